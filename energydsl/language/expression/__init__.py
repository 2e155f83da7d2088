"""Expressions: the tree that an energy is written as, a kind of node a file; the values' range."""

from energydsl.language.expression.apply import Apply as Apply
from energydsl.language.expression.elementwise import Elementwise as Elementwise
from energydsl.language.expression.elementwise import elementwise as elementwise
from energydsl.language.expression.leaf import Data as Data
from energydsl.language.expression.leaf import Number as Number
from energydsl.language.expression.leaf import Origin as Origin
from energydsl.language.expression.leaf import Parameter as Parameter
from energydsl.language.expression.leaf import Value as Value
from energydsl.language.expression.leaf import View as View
from energydsl.language.expression.leaf import as_expression as as_expression
from energydsl.language.expression.leaf import declared as declared
from energydsl.language.expression.leaf import owned as owned
from energydsl.language.expression.product import MatMul as MatMul
from energydsl.language.expression.rearrange import Gather as Gather
from energydsl.language.expression.rearrange import Rearrange as Rearrange
from energydsl.language.expression.reduction import Sum as Sum
from energydsl.language.expression.tree import Environment as Environment
from energydsl.language.expression.tree import Expression as Expression
from energydsl.language.expression.tree import evaluate as evaluate
from energydsl.language.expression.tree import fold as fold
from energydsl.language.expression.tree import post_order as post_order
from energydsl.language.expression.tree import render as render
from energydsl.language.expression.view import energy_dtype as energy_dtype
from energydsl.language.expression.view import sites_of as sites_of
from energydsl.language.expression.view import variables_of as variables_of
