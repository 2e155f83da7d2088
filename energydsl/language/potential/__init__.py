"""Potentials: functions that return an energy and own their parameters, each in its own file."""

from energydsl.language.potential.base import AbstractPotential as AbstractPotential
from energydsl.language.potential.coupling import Coupling as Coupling
from energydsl.language.potential.linear import Linear as Linear
from energydsl.language.potential.log_density import LogDensity as LogDensity
from energydsl.language.potential.neural import Neural as Neural
from energydsl.language.potential.quadratic import Quadratic as Quadratic
from energydsl.language.potential.table import Table as Table
