"""Lowerings (implementations) of a Gibbs sweep, each in its own file; `LOWERINGS` lists them."""

from energydsl.sweep.base import AbstractSweep as AbstractSweep
from energydsl.sweep.base import Block as Block
from energydsl.sweep.base import Offer as Offer
from energydsl.sweep.base import colour_blocks as colour_blocks
from energydsl.sweep.choose import LOWERINGS as LOWERINGS
from energydsl.sweep.choose import Considered as Considered
from energydsl.sweep.choose import choose_sweep as choose_sweep
from energydsl.sweep.tree_sweep import TreeSweep as TreeSweep
