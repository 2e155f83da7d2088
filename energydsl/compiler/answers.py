"""Marginals of single sites."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._messages import brief, described
from energydsl._types import IntractableError
from energydsl.compiler.ebm import EBM, check_ebm, check_numbers
from energydsl.language.variable import Variable
from energydsl.normalizer import Intractable, Question, trouble
from energydsl.normalizer.base import Planned
from energydsl.normalizer.evaluate import log_partition_of, marginals_of

_INSTEAD = {
    "marginals": "For approximate ones, write ed.marginals(ebm, ed.BeliefPropagation()), or "
    "average draws of ed.sample.",
    "predict": "Take one input at a time: at = ebm.given(...), and ed.sample(at, key=key).",
}
"""What to do where no rule has the answer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Marginal:
    """The marginal distribution of each site of a variable.

    Attributes:
        mean: the mean of each site, in the variable's shape; None for labels, which have no mean.
        variance: the variance of each site; None for labels.
        probabilities: the probabilities of each site's levels, (shape, levels); None for real
            sites, whose marginal is normal, or a mixture of normals if there are finite sites, too.
        levels: the values to which the last axis of `probabilities` belongs; None for real sites.
    """

    mean: np.ndarray | None
    variance: np.ndarray | None
    probabilities: np.ndarray | None = None
    levels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Marginals(Mapping[str, Marginal]):
    """The marginal distributions of single sites: a mapping from variable names to `Marginal`.

    Attributes:
        variables: the `Marginal` of each variable; a clamped site has its evidence with
            probability 1.
        kind: "exact", or the name of an approximation of unknown error: "belief propagation" or
            "mean field".
        missing: the variables whose marginals are not known: they have leaves of normalised
            densities, over whose parents these densities would have to be averaged.
        doubts: sentences that say why an approximation cannot be trusted; empty if nothing was
            noticed.

    Raises:
        IntractableError: the marginals of a missing variable are read.
    """

    variables: dict[str, Marginal]
    kind: str
    missing: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @staticmethod
    def of(
        ebm: EBM,
        laws: Mapping[str, Array | np.ndarray],
        kind: str,
        missing: tuple[str, ...] = (),
        doubts: tuple[str, ...] = (),
    ) -> Marginals:
        """From laws of the free sites: probabilities (size, levels), or means and variances.

        Clamped sites get their evidence.
        """
        known = [v for v in ebm.model.variables if v.name not in missing]
        variables = {v.name: marginal_of(ebm, v, laws.get(v.name)) for v in known}
        return Marginals(variables, kind, missing, doubts)

    def __getitem__(self, name: str) -> Marginal:
        if name in self.missing:
            raise IntractableError(
                f"The marginals of {name!r} have no exact value: its sites are leaves of "
                "normalised densities, which would have to be averaged over their parents. Draw "
                "from the model: ed.sample(ebm, ed.ExactDraws(), key=key)."
            )
        if name not in self.variables:
            raise KeyError(f"There are no marginals of {name!r}; there are of {list(self)}.")
        return self.variables[name]

    def __contains__(self, name: object) -> bool:
        return name in self.variables

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


@runtime_checkable
class MarginalMethod(Protocol):
    """A method that approximates marginals; its `Marginals.kind` is never "exact"."""

    def marginals(self, ebm: EBM) -> Marginals: ...


@described
def marginals(ebm: EBM, method: MarginalMethod | None = None) -> Marginals:
    r"""The marginal distribution $p(x_i)$ of every site.

    All other sites are summed or integrated out. Exact marginals are derivatives of log Z:
    $p(x_i = l) = -\partial \log Z / \partial \theta_{il}$, where $\theta_{il}$ is an energy that is
    added where site i has level l.

    Args:
        ebm: a compiled model of finite or real variables.
        method: an approximation for finite variables, `BeliefPropagation` or `MeanField`. By
            default the marginals are exact, or refused.

    Returns:
        A `Marginal` for each variable, including clamped ones. Where a model is tractable only
        because leaves of normalised densities integrate to 1, the variables with such leaves are
        `Marginals.missing`.

    Raises:
        IntractableError: no rule gives the marginals of some component; the message says why.
        TypeError: a model that is not compiled, or a call inside a JAX transformation; a method
            without marginals, or one that does not fit the model.
        ValueError: the distribution does not exist for the present parameter values, or every
            configuration has infinite energy.
    """
    if method is not None:
        return _approximate(ebm, method)
    check_ebm(ebm, "marginals")
    check_numbers(ebm.model, "marginals")
    normalizer = planned(ebm, "marginals", "marginals", "known_marginals")
    found = marginals_of(ebm.model, normalizer)
    missing = tuple(dict.fromkeys(name for plan in normalizer.plans for name in plan.leaves))
    known = [v for v in ebm.model.variables if v.name not in missing]
    if not all(is_law(ebm, v, found[v.name]) for v in known if v.name in found):
        _check_possible(ebm)
        raise ValueError(f"The marginals do not exist: {trouble(ebm.model, normalizer)}.")
    return Marginals.of(ebm, found, normalizer.kind, missing)


def _approximate(ebm: EBM, method: MarginalMethod) -> Marginals:
    check_ebm(ebm, "marginals")
    check_numbers(ebm.model, "marginals")
    if not isinstance(method, MarginalMethod):
        raise TypeError(
            f"marginals got the method {brief(method)}; expected ed.BeliefPropagation() or "
            "ed.MeanField(). Other methods estimate log Z only; draws give marginals, too: "
            "ed.sample."
        )
    found = method.marginals(ebm)
    if found.doubts:
        warnings.warn(f"{type(method).__name__}: {'; '.join(found.doubts)}.", stacklevel=3)
    return found


def is_law(ebm: EBM, v: Variable, law: Array) -> bool:
    """Whether the marginals of a variable's free sites exist: Z is neither NaN nor 0."""
    held, numbers = ebm.model.skeleton.mask(v).ravel(), np.asarray(law)
    if np.isnan(numbers).any():
        return False
    return v.domain.levels is None or bool((numbers[..., ~held, :].sum(axis=-1) > 0).all())


def _check_possible(ebm: EBM) -> None:
    """Raise ValueError if every configuration has infinite energy, so that Z is 0."""
    if isinstance(ebm.normalizer, Intractable):
        return
    if np.isneginf(np.asarray(log_partition_of(ebm.model, ebm.normalizer, np.dtype(float)))):
        raise ValueError("Every configuration has infinite energy: there are no marginals.")


def planned(ebm: EBM, function: str, *questions: Question) -> Planned:
    """The plans that compute the first of these quantities that is known.

    Raises:
        IntractableError: there are none; the message says why.
    """
    reasons = []
    for question in questions:
        normalizer = ebm.conclusions.survey.choose(question)
        if not isinstance(normalizer, Intractable):
            return normalizer
        reasons.append(normalizer.reason)
    raise IntractableError(
        f"{function} has no exact answer for this model: {reasons[0]}. {_INSTEAD[function]}"
    )


def marginal_of(ebm: EBM, v: Variable, law: Array | np.ndarray | None) -> Marginal:
    """The `Marginal` of a variable, from the marginals of its free sites and its evidence.

    The law may have leading axes, which those of the result then have, too.
    """
    held = ebm.model.skeleton.mask(v).ravel()
    given = np.asarray(ebm.model.evidence.get(v.name, jnp.zeros(v.shape))).ravel()
    lead = () if law is None else np.shape(law)[:-2]
    if v.domain.levels is None:
        numbers = np.zeros((v.size, 2)) if law is None else np.array(law)
        numbers[..., held, :] = np.stack([given[held], np.zeros(held.sum())], axis=1)
        mean, variance = (numbers[..., k].reshape((*lead, *v.shape)) for k in (0, 1))
        return Marginal(mean, variance)
    levels = v.domain.values
    shares = np.zeros((v.size, len(levels))) if law is None else np.array(law)
    shares[..., held, :] = given[held, None] == levels
    # Rounding can leave -1e-17, and sums of 1 - 1e-16.
    shares = np.maximum(shares, 0.0)
    shaped = shares.reshape(*lead, *v.shape, len(levels))
    if not v.domain.ordered:
        return Marginal(None, None, shaped, levels)
    mean, square = np.asarray(shaped @ levels), np.asarray(shaped @ levels**2.0)
    return Marginal(mean, np.asarray(square - mean**2), shaped, levels)
