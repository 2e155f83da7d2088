"""Exact means of functions of the sites, and the entropy."""

from __future__ import annotations

import numpy as np

from energydsl._messages import described
from energydsl._types import IntractableError
from energydsl.compiler.ebm import EBM, check_ebm, check_numbers, log_partition
from energydsl.language.expression import Expression, declared, parts_of, variables_of
from energydsl.language.model import Model
from energydsl.normalizer import Exact, Intractable, slopes_of, trouble

TILT, INFINITE = "_tilt", "_infinite"
"""The names of the parameters that are added to a model."""


@described
def expectation(ebm: EBM, expression: Expression) -> np.ndarray:
    r"""The exact mean $\mathbb{E}[f(x)]$ of an expression under the model.

    Every mean is a derivative of log Z: for the energy $E(x) + \sum_k \epsilon_k f_k(x)$
    $$\mathbb{E}[f_k] = -\partial \log Z / \partial \epsilon_k \quad \text{at } \epsilon = 0.$$
    All elements of f are computed together, by one gradient. The probabilities of the joint states
    of a factor are means of comparisons, the correlations of all neighbours on a lattice are the
    mean of ``s[1:] * s[:-1]``, and the mean energy is that of ``ebm.model.expression``.

    Log Z of the model with these terms must have an exact rule: they must keep the structure. In a
    model of normal sites ``x**2`` has an exact mean, ``x**4`` has none; in a chain, products of
    neighbours stay cheap, products of distant sites join what lies between.

    A function may be infinite where the model has probability 0. New values of parameters and
    evidence do not cause a recompilation.

    Args:
        ebm: a compiled model.
        expression: f, an expression of the model's variables, of any shape.

    Returns:
        The means in float64, in the shape of f.

    Raises:
        IntractableError: log Z of the model, or of the model with the terms of f, has no exact
            rule; the message says why. A quadrature is not exact.
        TypeError: a model that is not compiled, no expression, or a call inside a JAX
            transformation.
        ValueError: f has a variable that the model lacks, or is infinite with a probability above
            0; the distribution does not exist for the present parameter values; or every
            configuration has infinite energy.
    """
    check_ebm(ebm, "expectation")
    if not isinstance(expression, Expression):
        raise TypeError(
            f"expectation got {type(expression).__name__}; expected an expression of the model's "
            "variables, such as s[1:] * s[:-1]. The energy of a model is model.expression."
        )
    unknown = set(variables_of(expression)) - set(ebm.model.variables)
    if unknown:
        raise ValueError(
            f"expectation got {expression}, which depends on {sorted(map(str, unknown))}; the "
            f"model's variables are {[str(v) for v in ebm.model.variables]}."
        )
    return _mean(ebm, expression, "expectation")


@described
def entropy(ebm: EBM) -> float:
    r"""The exact entropy $H = -\mathbb{E}[\log p(x)] = \log Z + \mathbb{E}[E(x)]$ in nats.

    With real sites it is the differential entropy, which depends on their units and may be
    negative. Forbidden states contribute nothing.

    Args:
        ebm: a compiled model.

    Raises:
        IntractableError: log Z or the mean energy has no exact rule; the message says why.
        TypeError: a model that is not compiled, or a call inside a JAX transformation.
        ValueError: the distribution does not exist for the present parameter values, or every
            configuration has infinite energy.
    """
    check_ebm(ebm, "entropy")
    energy = _mean(ebm, ebm.model.expression, "entropy")
    return float(log_partition(ebm) + energy)


def _mean(ebm: EBM, f: Expression, function: str) -> np.ndarray:
    """The exact mean of an expression of the model's variables."""
    tilted = _tilted(ebm.model, f)
    check_numbers(tilted, function)
    normalizer = _exact(ebm, tilted, f, function)
    places = {slot.name: k for k, slot in enumerate(tilted.skeleton.slots)}
    log_z, slopes = slopes_of(tilted, normalizer, (places[TILT], places[INFINITE]))
    mean, often = (np.asarray(0.0 - np.asarray(slope)) for slope in slopes)
    if np.isneginf(log_z):
        raise ValueError("Every configuration has infinite energy: there is no mean.")
    if np.isnan(log_z) or np.isnan(mean).any() or np.isnan(often):
        raise ValueError(f"The mean of {f} cannot be computed: {trouble(tilted, normalizer)}.")
    if often > 0:
        raise ValueError(
            f"{f} is infinite or NaN in a configuration that the model allows, so that it has no "
            "mean."
        )
    return mean


def _tilted(model: Model, f: Expression) -> Model:
    """The model with each element of f, times a parameter that is 0, added to its energy."""
    # Where the energy is infinite, f may be too, and 0 times infinity is NaN.
    finite, infinite = parts_of(f)
    tilt, often = declared(TILT, np.zeros(f.shape)), declared(INFINITE, 0.0)
    terms = sum((often * part.sum() for part in infinite), 0.0 * often)
    return Model(model, (tilt * finite).sum() + terms)


def _exact(ebm: EBM, tilted: Model, f: Expression, function: str) -> Exact:
    if isinstance(ebm.normalizer, Intractable):
        raise IntractableError(f"{function} has no exact value: log Z is {ebm.normalizer}.")
    normalizer = ebm.conclusions.normalizer_of(tilted)
    if isinstance(normalizer, Exact):
        return normalizer
    raise IntractableError(
        f"The mean of {f} has no exact value: log Z of the model with multiples of it added to the "
        f"energy is {normalizer}. It must keep a structure that an exact rule knows; x**2 does "
        "where the energy is quadratic, x**4 does not. Average over draws instead: ed.sample."
    )
