"""Lowerings of a Gibbs sweep, one a file: dense, gather, lattice."""

from energydsl.sweep.base import AbstractSweep as AbstractSweep
from energydsl.sweep.base import Block as Block
from energydsl.sweep.base import colour_blocks as colour_blocks
