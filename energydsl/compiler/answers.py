"""What follows exactly from an EBM besides log Z: the laws of single sites, and modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, IntractableError, is_traced
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.language.variable import Variable
from energydsl.normalizer import Intractable, Question, trouble
from energydsl.normalizer.base import Planned
from energydsl.normalizer.evaluate import marginals_of, mode_of


@dataclasses.dataclass(frozen=True, eq=False)
class Marginal:
    """The law of each site of a variable by itself.

    Attributes:
        mean: of each site, in the variable's shape; None of labels, which have no mean.
        variance: of each site; None of labels.
        probabilities: of the levels of each site, (*shape, levels); None of real sites, whose law
            is the normal one (or, beside finite sites, a mixture of normal ones) of this mean and
            variance.
        levels: the values that the last axis of `probabilities` counts; None of real sites.
    """

    mean: np.ndarray | None
    variance: np.ndarray | None
    probabilities: np.ndarray | None = None
    levels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Marginals(Mapping[str, Marginal]):
    """The laws of single sites, by variable.

    Attributes:
        laws: one `Marginal` a variable; clamped sites have their evidence with certainty.
        kind: "exact".
    """

    laws: dict[str, Marginal]
    kind: str

    def __getitem__(self, name: str) -> Marginal:
        return self.laws[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.laws)

    def __len__(self) -> int:
        return len(self.laws)


@dataclasses.dataclass(frozen=True, eq=False)
class Mode:
    """A configuration of low energy.

    Attributes:
        configuration: its values, an array for each free variable.
        energy: of the configuration.
        proven: whether no configuration has less energy.
        method: by which it was found.
    """

    configuration: Configuration
    energy: float
    proven: bool
    method: str


def marginals(ebm: EBM) -> Marginals:
    r"""The law $p(x_i)$ of every site by itself, all others summed or integrated out.

    They follow from log Z: $p(x_i = l) = -\partial \log Z / \partial \theta_{il}$ for an energy
    $\theta_{il}$ added to a site's level.

    Args:
        ebm: over finite or real variables.

    Returns:
        For each variable, clamped ones too, a `Marginal`.

    Raises:
        IntractableError: some component has no rule that gives marginals; the message says why.
        TypeError: a model that is not compiled, or inside a JAX transformation.
        ValueError: the rule fails on these values.
    """
    normalizer = _planned(ebm, "marginals", "marginals")
    found = marginals_of(ebm.model, normalizer)
    laws = {v.name: _marginal(ebm, v, found.get(v.name)) for v in ebm.model.variables}
    if any(np.isnan(a).any() for a in found.values()):
        raise ValueError(f"marginals has no value here: {trouble(ebm.model, normalizer)}.")
    return Marginals(laws, normalizer.kind)


def map_configuration(ebm: EBM) -> Mode:
    r"""A configuration of highest probability: $\arg\min_x E(x)$ over the free sites.

    Raises:
        IntractableError: some component has no rule that gives a mode; the message says why.
        TypeError: a model that is not compiled, or inside a JAX transformation.
        ValueError: the rule fails on these values, or every configuration is forbidden.
    """
    normalizer = _planned(ebm, "map_configuration", "mode")
    x = mode_of(ebm.model, normalizer)
    energy = float(ebm.energy(x))
    if np.isnan(energy):
        raise ValueError(f"There is no mode here: {trouble(ebm.model, normalizer)}.")
    if energy == np.inf:
        raise ValueError("Every configuration has infinite energy: there is no most likely one.")
    return Mode(x, energy, True, normalizer.rules)


def _planned(ebm: EBM, function: str, question: Question) -> Planned:
    """The plans that answer a question about an EBM's values."""
    check_ebm(ebm, function)
    if is_traced(ebm.model):
        raise TypeError(
            f"{function} was called inside a JAX transformation; call it outside of jit, grad and "
            "vmap, on an EBM with numbers."
        )
    normalizer = ebm.findings.survey.choose(question)
    if isinstance(normalizer, Intractable):
        raise IntractableError(f"{function} has no exact answer: {normalizer.reason}.")
    return normalizer


def _marginal(ebm: EBM, v: Variable, law: Array | None) -> Marginal:
    """What was found of free sites, with the evidence of clamped ones."""
    held = ebm.model.skeleton.mask(v).ravel()
    given = np.asarray(ebm.model.evidence.get(v.name, jnp.zeros(v.shape))).ravel()
    if v.domain.levels is None:
        numbers = np.zeros((v.size, 2)) if law is None else np.array(law)
        numbers[held] = np.stack([given[held], np.zeros(held.sum())], axis=1)
        return Marginal(*(numbers[:, k].reshape(v.shape) for k in (0, 1)))
    levels = v.domain.values
    shares = np.zeros((v.size, len(levels))) if law is None else np.array(law)
    shares[held] = given[held, None] == levels
    # Rounding can leave -1e-17, and sums of 1 - 1e-16.
    shares = np.maximum(shares, 0.0)
    shaped = shares.reshape(*v.shape, len(levels))
    if not v.domain.ordered:
        return Marginal(None, None, shaped, levels)
    mean = shaped @ levels
    return Marginal(mean, shaped @ levels**2.0 - mean**2, shaped, levels)
