"""What users write: declarations of variables, and functions of expressions."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl.language.domain import (
    AbstractDomain,
    Binary,
    Categorical,
    Integer,
    Interval,
    Positive,
    Real,
    Simplex,
    Spin,
)
from energydsl.language.expression import (
    Apply,
    Expression,
    Parameter,
    Rearrange,
    View,
    as_expression,
    declared,
    elementwise,
)
from energydsl.language.expression.operation import Move
from energydsl.language.variable import Variable, as_shape

Shape = int | tuple[int, ...]


def variable(name: str, domain: AbstractDomain, shape: Shape = (), *, latent: bool = False) -> View:
    """Declare a variable over any domain, one of your own included.

    Args:
        name: by which configurations hold it.
        domain: the set in which each site takes its value.
        shape: of the array of sites; none for one site.
        latent: data never shows it.
    """
    return View.of(Variable(name, domain, as_shape(shape, name), latent))


def spin(name: str, shape: Shape = (), *, latent: bool = False) -> View:
    """Declare spins, each -1 or +1."""
    return variable(name, Spin(), shape, latent=latent)


def binary(name: str, shape: Shape = (), *, latent: bool = False) -> View:
    """Declare bits, each 0 or 1."""
    return variable(name, Binary(), shape, latent=latent)


def categorical(name: str, shape: Shape = (), *, levels: int, latent: bool = False) -> View:
    """Declare labels, each of 0 .. levels-1; energies compare them or index tables by them."""
    return variable(name, Categorical(levels), shape, latent=latent)


def integer(name: str, shape: Shape = (), *, low: int, high: int, latent: bool = False) -> View:
    """Declare integers from `low` to `high`, both included."""
    return variable(name, Integer(low, high), shape, latent=latent)


def real(name: str, shape: Shape = (), *, latent: bool = False) -> View:
    """Declare real numbers."""
    return variable(name, Real(), shape, latent=latent)


def positive(name: str, shape: Shape = (), *, latent: bool = False) -> View:
    """Declare numbers above 0."""
    return variable(name, Positive(), shape, latent=latent)


def interval(
    name: str, shape: Shape = (), *, low: float, high: float, latent: bool = False
) -> View:
    """Declare real numbers from `low` to `high`."""
    return variable(name, Interval(float(low), float(high)), shape, latent=latent)


def simplex(name: str, shape: Shape, *, latent: bool = False) -> View:
    """Declare probability vectors along the last axis of `shape`."""
    return variable(name, Simplex(), shape, latent=latent)


def parameter(name: str, init: Any) -> Parameter:
    r"""Declare an array that learning moves: ``W = ed.parameter("W", 0.01 * noise)``.

    Other arrays in an energy are data, which learning leaves alone. Used twice, in one model or in
    two that are added, a parameter is one array. It stands in an energy as a view does, and prints
    by its name; its value is ``ebm.parameters["W"]``, and ``ebm.replace(W=array)`` gives another.

    A constraint is stated here, by a paramax wrapper: what it wraps is what moves. A coupling stays
    positive as $J = e^a$, a matrix W symmetric with a zero diagonal as a function of any matrix::

        J = ed.parameter("J", paramax.Parameterize(jnp.exp, jnp.log(0.4)))
        W = ed.parameter("W", paramax.Parameterize(lambda a: jnp.triu(a, 1) + jnp.triu(a, 1).T, w))

    Args:
        name: a name of Python's; no two parameters or variables of a model share one.
        init: where learning begins: a number, an array, or a paramax wrapper of an array.

    Raises:
        TypeError: an `init` that is no array of real numbers.
        ValueError: a name that is none of Python's, NaN or infinity in `init`.
    """
    return declared(name, init)


def fixed(value: Any) -> Any:
    """Freeze a parameter, or every array of a potential: learning leaves it alone.

    Arrays that stand in an energy by themselves need no mark, as they are data. An array given to
    a potential is marked by itself: ``ed.Linear(ed.fixed(b))``.
    """
    if isinstance(value, Parameter):
        return dataclasses.replace(value, frozen=True)
    if isinstance(value, Expression):
        raise TypeError("ed.fixed marks parameters, not views; to hold a variable, condition.")
    if isinstance(value, numbers.Number | np.ndarray | jax.Array | Sequence):
        return paramax.NonTrainable(jnp.asarray(value))
    return paramax.non_trainable(value)


def _unary(name: str, formula: str) -> Callable[[object], Expression]:
    def function(x: object) -> Expression:
        return elementwise(name, x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{formula}, element by element."
    return function


exp = _unary("exp", "e^x")
log = _unary("log", "Natural logarithm")
sqrt = _unary("sqrt", "Square root")
sin = _unary("sin", "Sine")
cos = _unary("cos", "Cosine")
tanh = _unary("tanh", "Hyperbolic tangent")
softplus = _unary("softplus", "log(1 + e^x)")


def maximum(a: object, b: object) -> Expression:
    """The larger of two, element by element."""
    return elementwise("maximum", a, b)


def minimum(a: object, b: object) -> Expression:
    """The smaller of two, element by element."""
    return elementwise("minimum", a, b)


def logaddexp(a: object, b: object) -> Expression:
    """log(e^a + e^b), element by element and without overflow."""
    return elementwise("logaddexp", a, b)


def where(condition: object, a: object, b: object) -> Expression:
    """`a` where the condition holds, else `b`, element by element."""
    return elementwise("where", condition, a, b)


def roll(view: Expression, shift: int, axis: int = 0) -> Expression:
    """Shift periodically along `axis`, as `numpy.roll`: neighbours on a torus."""
    view = as_expression(view)
    if not -view.ndim <= axis < view.ndim:
        raise ValueError(
            f"ed.roll got axis {axis} for an expression of shape {view.shape}; expected an axis "
            f"from 0 to {view.ndim - 1}."
        )
    return Rearrange.of(view, Move.roll(int(shift), axis % view.ndim))


class Function(eqx.Module):
    """Any JAX function as a potential that owns nothing but what the function holds."""

    function: Callable[..., Array]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def energy(self, *values: Array) -> Array:
        return self.function(*values)


def apply(function: Callable[..., Array], *views: object) -> Expression:
    """Any JAX function of views and parameters, as one factor over all of their sites.

    The compiler does not look inside, so every site it touches interacts with every other; where
    the function is elementwise, write it as an expression instead. Pass parameters as arguments:
    arrays that the function closes over are baked in.

    Args:
        function: arrays in (integers for categorical views, else floats), one array out. Exact
            rules call it in float64; index by `jnp.int32`, which stays what it is.
        *views: views, arrays or numbers.
    """
    return Apply.of(Function(function), views)
