"""The command line, and the model zoo as it sees it."""

from energydsl.cli.commands import app as app
from energydsl.cli.commands import main as main
