"""The command line."""

from energydsl.cli.commands import app as app
from energydsl.cli.commands import main as main
