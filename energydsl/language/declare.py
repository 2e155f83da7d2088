"""The functions that users call: declarations of variables, and functions of expressions."""

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

from energydsl._messages import described
from energydsl._pickling import Portable, rebuilt
from energydsl.language.domain import (
    AbstractDomain,
    Binary,
    Categorical,
    Count,
    Integer,
    Interval,
    Positive,
    PositiveDefinite,
    Real,
    Simplex,
    Spin,
)
from energydsl.language.expression import (
    Apply,
    Expression,
    Parameter,
    View,
    declared,
    elementwise,
)
from energydsl.language.variable import Axes, Dims, Variable, as_shape

Shape = int | tuple[int, ...]


@described
def variable(
    name: str,
    domain: AbstractDomain,
    shape: Shape = (),
    *,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare a variable over any domain, which may be a subclass of your own.

    Args:
        name: its name, which is its key in configurations.
        domain: the set in which each site takes its value.
        shape: the shape of the array of sites; a single site if not given.
        latent: whether it is unobserved, so that data have no values of it.
        given: whether it is an input: the model is the distribution of the other variables given
            its value, which ``ebm.given(x=array)`` sets, or which data have for every example.
        dims: names for the axes, which `to_arviz` uses: ``"school"``, ``["row", "column"]``, or a
            mapping to labels, such as ``{"school": ["A", "B", "C"]}``.

    Returns:
        A view of the whole variable, to be used in energies.
    """
    whole = as_shape(shape, name)
    axes = None if dims is None else Axes.of(dims, whole, name)
    return View.of(Variable(name, domain, whole, latent, given, axes))


@described
def spin(
    name: str,
    shape: Shape = (),
    *,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare spins, each -1 or +1."""
    return variable(name, Spin(), shape, latent=latent, given=given, dims=dims)


@described
def binary(
    name: str,
    shape: Shape = (),
    *,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare bits, each 0 or 1."""
    return variable(name, Binary(), shape, latent=latent, given=given, dims=dims)


@described
def categorical(
    name: str,
    shape: Shape = (),
    *,
    levels: int,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare labels 0 .. levels-1, which energies compare or use as indices of tables."""
    return variable(name, Categorical(levels), shape, latent=latent, given=given, dims=dims)


@described
def integer(
    name: str,
    shape: Shape = (),
    *,
    low: int,
    high: int,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare integers from `low` to `high`, both included."""
    return variable(name, Integer(low, high), shape, latent=latent, given=given, dims=dims)


@described
def count(
    name: str,
    shape: Shape = (),
    *,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare counts: 0, 1, 2, ... without an upper bound."""
    return variable(name, Count(), shape, latent=latent, given=given, dims=dims)


@described
def real(
    name: str,
    shape: Shape = (),
    *,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare real numbers."""
    return variable(name, Real(), shape, latent=latent, given=given, dims=dims)


@described
def positive(
    name: str,
    shape: Shape = (),
    *,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare numbers above 0."""
    return variable(name, Positive(), shape, latent=latent, given=given, dims=dims)


@described
def interval(
    name: str,
    shape: Shape = (),
    *,
    low: float,
    high: float,
    latent: bool = False,
    given: bool = False,
    dims: Dims | None = None,
) -> View:
    """Declare real numbers from `low` to `high`."""
    return variable(
        name, Interval(float(low), float(high)), shape, latent=latent, given=given, dims=dims
    )


@described
def simplex(
    name: str, shape: Shape, *, latent: bool = False, given: bool = False, dims: Dims | None = None
) -> View:
    """Declare probability vectors along the last axis of `shape`."""
    return variable(name, Simplex(), shape, latent=latent, given=given, dims=dims)


@described
def positive_definite(
    name: str, shape: Shape, *, latent: bool = False, given: bool = False, dims: Dims | None = None
) -> View:
    """Declare symmetric positive definite matrices in the last two axes of `shape`."""
    return variable(name, PositiveDefinite(), shape, latent=latent, given=given, dims=dims)


@described
def parameter(
    name: str,
    init: Any,
    *,
    symmetric: bool = False,
    zero_diagonal: bool = False,
    positive: bool = False,
    bounded: tuple[float, float] | None = None,
    low_rank: int | None = None,
) -> Parameter:
    r"""Declare an array that learning updates: ``W = ed.parameter("W", 0.01 * noise)``.

    All other arrays in an energy are data, which learning does not change. A parameter that is used
    twice, in one model or in two models that are added, is one array. It is used in an energy as a
    view is, and is printed by its name. Its value is ``ebm.parameters["W"]``, and
    ``ebm.replace(W=array)`` is the model with another value.

    Constraints are stated here, and hold during learning and for every value that `replace` takes::

        W = ed.parameter("W", np.zeros((64, 64)), symmetric=True, zero_diagonal=True)
        J = ed.parameter("J", 0.4, positive=True)

    `init`, ``ebm.parameters["W"]`` and the argument of `replace` are the constrained array. The
    optimizer updates unconstrained numbers, which `energydsl.save` writes:

    - of a symmetric matrix the upper triangle, so that $W_{ij} = W_{ji}$ is one number, in which
      the derivative of $-x^\top W x$ is $-2 x_i x_j$;
    - of a positive number v its logarithm: equal steps change v by equal factors;
    - of a number between two ends the log-odds of its position there, $a$ in
      $v = l + (h - l) / (1 + e^{-a})$;
    - of a matrix of rank r its factors, $W = L R^\top$. The energy forms the product; where W
      would not fit into memory, declare the factors and write ``(x @ L) @ (y @ R)``.

    With a zero diagonal, the other constraints are about the entries off the diagonal. Any other
    constraint is given as a paramax wrapper, which ``ebm.parameters`` then contains, and which
    ``paramax.unwrap`` turns into the array::

        w = ed.parameter("w", paramax.Parameterize(jax.nn.softmax, np.zeros(3)))

    Args:
        name: a Python identifier, different from the names of the model's other parameters and
            variables.
        init: the value at which learning starts: a number, an array, or a paramax wrapper of an
            array. For `low_rank`, also a tuple of the two factors (L, R).
        symmetric: whether the last two axes are those of a symmetric matrix.
        zero_diagonal: whether the last two axes are those of a square matrix with zeros on its
            diagonal.
        positive: whether all entries are above 0.
        bounded: ``(low, high)``, the ends between which all entries lie.
        low_rank: the rank r of the matrix in the last two axes; it goes with no other constraint.

    Raises:
        TypeError: `init` is not an array of real numbers.
        ValueError: `name` is not a Python identifier; `init` has NaN or infinity, or violates a
            constraint; the constraints exclude each other, or do not fit the shape.
    """
    return declared(
        name,
        init,
        symmetric=symmetric,
        zero_diagonal=zero_diagonal,
        positive=positive,
        bounded=bounded,
        low_rank=low_rank,
    )


def fixed(value: Any) -> Any:
    """Freeze a parameter, or every array of a potential, so that learning does not change it.

    An array that is used in an energy directly is data and need not be frozen. To freeze a single
    array of a potential, freeze that array: ``ed.Linear(ed.fixed(b))``.
    """
    if isinstance(value, Parameter):
        return dataclasses.replace(value, frozen=True)
    if isinstance(value, Expression):
        raise TypeError(
            "ed.fixed marks parameters, not views; to hold a variable at a value, use "
            "model.condition(...)."
        )
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
expm1 = _unary("expm1", "e^x - 1")
log = _unary("log", "Natural logarithm")
log1p = _unary("log1p", "log(1 + x)")
sqrt = _unary("sqrt", "Square root")
sin = _unary("sin", "Sine")
cos = _unary("cos", "Cosine")
sinh = _unary("sinh", "Hyperbolic sine")
cosh = _unary("cosh", "Hyperbolic cosine")
tanh = _unary("tanh", "Hyperbolic tangent")
arctan = _unary("arctan", "Inverse tangent")
sign = _unary("sign", "-1, 0 or 1: the sign")
softplus = _unary("softplus", "log(1 + e^x)")


def maximum(a: object, b: object) -> Expression:
    """The larger of a and b, element by element."""
    return elementwise("maximum", a, b)


def minimum(a: object, b: object) -> Expression:
    """The smaller of a and b, element by element."""
    return elementwise("minimum", a, b)


def logaddexp(a: object, b: object) -> Expression:
    """log(e^a + e^b), element by element, computed without overflow."""
    return elementwise("logaddexp", a, b)


class Function(eqx.Module):
    """A JAX function as a potential; its parameters are the arrays that the function contains."""

    function: Callable[..., Array]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def energy(self, *values: Array) -> Array:
        return self.function(*values)

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (Function, Portable(self.function))


@described
def apply(function: Callable[..., Array], *views: object) -> Expression:
    """A JAX function of views and parameters, as one factor over all of their sites.

    The compiler does not analyse the function, so each of its sites interacts with every other; a
    function that acts element by element is better written as an expression. Pass parameters as
    arguments: an array that the function closes over becomes a constant.

    Args:
        function: takes arrays (integers for categorical views, floats otherwise) and returns one
            array. Exact rules call it in float64.
        *views: views, parameters, arrays or numbers.
    """
    return Apply.of(Function(function), views)
