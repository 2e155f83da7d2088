"""Noise: distributions over what data show, with exact densities and independent draws."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration, Refusal
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.kernel import ExactDraws
from energydsl.language.variable import Variable
from energydsl.learning.latent import visible
from energydsl.learning.shown import check_inside, coordinates_shown, energy_shown, why_not_summed
from energydsl.normalizer import Intractable

MOST_CORRELATED = 1000
"""The most coordinates whose covariance is fitted; of more, only the variances are."""

TRIED = 100
"""The number of draws that are compared with the domains."""


class AbstractNoise(eqx.Module):
    """A distribution over the variables of a model that data show."""

    @abc.abstractmethod
    def draws(self, ebm: EBM, count: int, *, key: Array) -> Configuration:
        """Independent draws along the first axis; what they have at clamped sites counts not."""

    @abc.abstractmethod
    def log_prob(self, ebm: EBM, v: Configuration) -> Array:
        """The log density of one example, at the sites that are not clamped."""


class DistributionNoise(AbstractNoise):
    """NumPyro distributions by the variables' names; variables are independent."""

    laws: dict[str, dist.Distribution]

    @staticmethod
    def of(noise: Any, ebm: EBM) -> DistributionNoise:
        """The noise of several variables by their names, or of the one variable."""
        if isinstance(noise, Mapping):
            return DistributionNoise(dict(noise))
        names = [v.name for v in visible(ebm)]
        if len(names) > 1:
            raise ValueError(
                f"NoiseContrastive got {brief(noise)} as noise for the variables {names}; give a "
                "dict with a distribution for each."
            )
        return DistributionNoise({names[0]: noise})

    def draws(self, ebm: EBM, count: int, *, key: Array) -> Configuration:
        keys = jr.split(key, len(self.laws))
        return {
            v.name: jnp.asarray(self._expanded(v).sample(k, (count,)), v.domain.dtype)
            for v, k in zip(visible(ebm), keys, strict=True)
        }

    def log_prob(self, ebm: EBM, v: Configuration) -> Array:
        total = jnp.zeros(())
        for w in visible(ebm):
            law, value = self._expanded(w), v[w.name]
            # Outside the support, log_prob of some families is a finite number.
            inside = True if law.support is None else law.support(value)
            each = jnp.where(inside, law.log_prob(value), -jnp.inf)
            total += jnp.sum(jnp.where(self._held(ebm, w), 0.0, each))
        return total

    def check(self, ebm: EBM) -> None:
        """Raise TypeError or ValueError unless the draws are values of the model's variables."""
        shapes = {v.name: v for v in visible(ebm)}
        if set(self.laws) != set(shapes):
            raise ValueError(
                f"NoiseContrastive got noise over {sorted(self.laws)}; expected a distribution for "
                f"each of {list(shapes)}, which data show."
            )
        for name, v in shapes.items():
            _check_law(v, self.laws[name])
            held = ebm.structure.skeleton.mask(v).reshape(*self._expanded(v).batch_shape, -1)
            if (held.any(axis=-1) & ~held.all(axis=-1)).any():
                raise ValueError(
                    f"NoiseContrastive got noise for {name!r} whose events are in part clamped; "
                    "expected a density of the free sites alone. Leave noise out, to fit it."
                )

    def _expanded(self, v: Variable) -> dist.Distribution:
        return _expanded(v, self.laws[v.name])

    def _held(self, ebm: EBM, v: Variable) -> np.ndarray:
        """True at the clamped events of the distribution."""
        law = self._expanded(v)
        held = ebm.structure.skeleton.mask(v).reshape(*law.batch_shape, -1)
        return np.asarray(held.all(axis=-1))


class ModelNoise(AbstractNoise):
    """A compiled model with exact log Z and exact draws."""

    model: EBM
    log_z: Array

    def draws(self, ebm: EBM, count: int, *, key: Array) -> Configuration:
        ensemble = ExactDraws().ensemble(self.model)
        before = {"": jnp.zeros(count)}  # of which only the number counts
        drawn, _ = ensemble.advance(self.model, ensemble.load(self.model), before, key=key)
        return {v.name: drawn[v.name] for v in visible(ebm)}

    def log_prob(self, ebm: EBM, v: Configuration) -> Array:
        return -energy_shown(self.model)(v) - self.log_z


def check_model(noise: EBM, ebm: EBM, data: Configuration) -> None:
    """Raise TypeError or ValueError unless a compiled model serves as noise for another."""
    check_ebm(noise, "NoiseContrastive")
    theirs, ours = ({v.name: (v.domain, v.shape) for v in visible(m)} for m in (noise, ebm))
    if theirs != ours:
        raise ValueError(
            f"NoiseContrastive got noise over {', '.join(map(str, visible(noise)))}; expected the "
            f"variables that data show: {', '.join(map(str, visible(ebm)))}."
        )
    if any(ebm.structure.skeleton.mask(v).any() for v in visible(ebm)):
        raise ValueError(
            "NoiseContrastive got a compiled model as noise for a model with clamped sites, of "
            "which it is no distribution. Leave noise out, to fit it, or give a NumPyro one."
        )
    lacking = None
    applies = ExactDraws().applies(noise)
    if isinstance(noise.normalizer, Intractable) or noise.normalizer.kind != "exact":
        lacking = f"log Z of the noise is {noise.normalizer}"
    elif isinstance(applies, Refusal):
        lacking = applies.reason
    else:
        lacking = why_not_summed(noise, data)
    if lacking is not None:
        raise TypeError(
            f"NoiseContrastive needs noise with an exact density and exact draws: {lacking}. Give "
            "a NumPyro distribution, or leave noise out, to fit it."
        )


class FittedNoise(AbstractNoise):
    """A Gaussian in unconstrained coordinates, and independent levels of finite sites."""

    mean: Array
    factor: Array
    """A square root of the covariance; if there are many coordinates, the deviations."""
    whiten: Array
    """Its inverse."""
    log_probs: dict[str, Array]
    """The log probability of each level, (site, level)."""

    @staticmethod
    def to(ebm: EBM, data: Configuration) -> FittedNoise:
        r"""The noise that is fitted to data.

        With n examples of d coordinates and their covariance S, the Gaussian's covariance is
        $(1 - t) S + t \operatorname{diag} S$ with $t = d / (n + d)$, which is positive definite
        also if there are few examples. The frequency of each level is $(k + 1) / (n + L)$ for k of
        n examples and L levels.
        """
        rows = jax.vmap(coordinates_shown(ebm).coordinates)(data)
        count, width = rows.shape
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        factor, whiten = spread, 1 / spread
        if 0 < width <= MOST_CORRELATED:
            own = width / (count + width)
            cov = (rows - mean).T @ (rows - mean) / count
            factor = jnp.linalg.cholesky((1 - own) * cov + own * jnp.diag(spread**2))
            whiten = jnp.linalg.inv(factor)
        frequencies = {}
        for v in _finite(ebm):
            hot = data[v.name].reshape(count, v.size, 1) == jnp.asarray(v.domain.values)
            frequencies[v.name] = jnp.log((hot.sum(axis=0) + 1) / (count + len(v.domain.values)))
        return FittedNoise(mean, factor, whiten, frequencies)

    @staticmethod
    def check(ebm: EBM, data: Configuration) -> None:
        """Raise TypeError or ValueError unless noise can be fitted to data."""
        smooth = coordinates_shown(ebm)
        odd = [v for v in visible(ebm) if v.name not in smooth.names and v not in _finite(ebm)]
        if odd:
            raise TypeError(
                f"NoiseContrastive fits noise to continuous and to finite variables, and {odd[0]} "
                "is neither. Give its distribution, such as noise=dist.Poisson(3.0)."
            )
        check_inside(ebm, data, "NoiseContrastive")
        still = np.asarray(jax.vmap(smooth.coordinates)(data).std(axis=0) == 0)
        if still.any():
            raise ValueError(
                f"NoiseContrastive fits a Gaussian to the data, and {int(still.sum())} of "
                f"{len(still)} coordinates are the same in all examples. Clamp such sites by "
                "model.condition(...), or give noise=."
            )

    def draws(self, ebm: EBM, count: int, *, key: Array) -> Configuration:
        space = coordinates_shown(ebm)
        normal_key, *keys = jr.split(key, 1 + len(self.log_probs))
        free = jr.normal(normal_key, (count, len(self.mean)))
        shift = free @ self.factor.T if self.factor.ndim == 2 else free * self.factor
        drawn = {v.name: jnp.zeros((count, *v.shape), v.domain.dtype) for v in visible(ebm)}
        for v, k in zip(_finite(ebm), keys, strict=True):
            level = jr.categorical(k, self.log_probs[v.name], shape=(count, v.size))
            values = jnp.asarray(v.domain.values, v.domain.dtype)[level]
            drawn[v.name] = values.reshape(count, *v.shape)
        return jax.vmap(space.configuration)(self.mean + shift, drawn)

    def log_prob(self, ebm: EBM, v: Configuration) -> Array:
        space = coordinates_shown(ebm)
        z = space.coordinates(v)
        gap = z - self.mean
        if self.whiten.ndim == 2:
            white, scale = self.whiten @ gap, jnp.diag(self.whiten)
        else:
            white, scale = self.whiten * gap, self.whiten
        total = jnp.sum(jnp.log(scale) - white**2 / 2 - math.log(2 * math.pi) / 2)
        total -= space.log_jacobian(z, v)
        for w in _finite(ebm):
            level = jnp.searchsorted(jnp.asarray(w.domain.values), v[w.name].ravel())
            each = jnp.take_along_axis(self.log_probs[w.name], level[:, None], axis=1)[:, 0]
            total += jnp.sum(jnp.where(ebm.structure.skeleton.mask(w).ravel(), 0.0, each))
        return total


def _finite(ebm: EBM) -> list[Variable]:
    return [v for v in visible(ebm) if v.domain.levels is not None]


def _expanded(v: Variable, law: dist.Distribution) -> dist.Distribution:
    """The distribution of the whole variable."""
    return law.expand(v.shape[: len(v.shape) - len(law.event_shape)])


def _check_law(v: Variable, law: Any) -> None:
    """Raise TypeError or ValueError unless draws of a distribution are values of a variable."""
    if not isinstance(law, dist.Distribution):
        raise TypeError(
            f"NoiseContrastive got the noise {brief(law)} for {v.name!r}; expected a NumPyro "
            "distribution such as dist.Normal(0, 1), or a compiled model."
        )
    try:
        drawn = np.asarray(_expanded(v, law).sample(jr.key(0), (TRIED,)))
    except ValueError:
        drawn = np.zeros(law.shape((TRIED,)))
    if drawn.shape[1:] != v.shape:
        raise ValueError(
            f"NoiseContrastive got noise of shape {law.shape()} for {v.name!r}; expected one that "
            f"broadcasts to {v.shape}."
        )
    whole = np.issubdtype(drawn.dtype, np.integer) or drawn.dtype == bool
    if whole != v.domain.discrete or v.domain.outside(drawn.astype(v.domain.dtype)).any():
        raise ValueError(
            f"NoiseContrastive got {type(law).__name__} noise for {v.name!r}, whose draws lie "
            f"outside {v.domain}; expected a distribution over {v.domain.support}."
        )
