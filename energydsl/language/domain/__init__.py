"""Domains: the set in which each site of a variable takes its value.

Each kind of domain with rules of its own has its own file.
"""

from energydsl.language.domain.base import AbstractDomain as AbstractDomain
from energydsl.language.domain.continuous import Interval as Interval
from energydsl.language.domain.continuous import Positive as Positive
from energydsl.language.domain.continuous import Real as Real
from energydsl.language.domain.count import Count as Count
from energydsl.language.domain.finite import MAX_LEVEL as MAX_LEVEL
from energydsl.language.domain.finite import Binary as Binary
from energydsl.language.domain.finite import Categorical as Categorical
from energydsl.language.domain.finite import Integer as Integer
from energydsl.language.domain.finite import Spin as Spin
from energydsl.language.domain.positive_definite import PositiveDefinite as PositiveDefinite
from energydsl.language.domain.simplex import Simplex as Simplex
