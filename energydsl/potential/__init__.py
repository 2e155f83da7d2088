"""Potentials: functions that return an energy and own their parameters, one a file."""

from energydsl.potential.base import AbstractPotential as AbstractPotential
from energydsl.potential.coupling import Coupling as Coupling
from energydsl.potential.linear import Linear as Linear
from energydsl.potential.log_density import LogDensity as LogDensity
from energydsl.potential.neural import Neural as Neural
from energydsl.potential.quadratic import Quadratic as Quadratic
from energydsl.potential.table import Table as Table
