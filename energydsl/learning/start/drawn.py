"""Chains that begin at draws from given distributions, or from another EBM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import check_covered
from energydsl.kernel.exact_draws import ExactDraws
from energydsl.language.variable import Variable
from energydsl.learning.start.base import AbstractStart, Walkers


class Drawn(AbstractStart):
    """The chains begin at independent draws; variables without a distribution begin at random.

    Args:
        source: a NumPyro distribution, if one variable is not latent; a mapping from names to
            distributions; or an EBM that has exact draws.
    """

    source: dist.Distribution | Mapping[str, dist.Distribution] | EBM

    def check(self, ebm: EBM, chains: int) -> None:
        drawn = self._drawn(ebm, jr.key(0))
        free = {v.name: v for v in ebm.structure.skeleton.free}
        unknown = sorted(drawn.keys() - free.keys())
        if unknown:
            raise ValueError(
                f"ContrastiveDivergence got a start that draws {unknown}; the free variables are "
                f"{list(free)}."
            )
        for name, value in drawn.items():
            free[name].domain.check(value, free[name].shape, f"The start's draw of {name!r}")

    def begin(
        self, walkers: Walkers, state: None, examples: Configuration, *, key: Array
    ) -> tuple[Any, None]:
        ebm, count = walkers.ebm, walkers.count
        draw_key, place_key, start_key = jr.split(key, 3)
        drawn = jax.vmap(lambda k: self._drawn(ebm, k))(jr.split(draw_key, count))
        random = walkers.random(count, key=place_key)
        xs = {n: jnp.asarray(drawn.get(n, a), a.dtype) for n, a in random.items()}
        return walkers.at(jax.vmap(ebm.model.placed)(xs), key=start_key), None

    def _drawn(self, ebm: EBM, key: Array) -> Configuration:
        """One draw of the variables that the source has."""
        if isinstance(self.source, EBM):
            check_covered(self.source, ExactDraws())
            place_key, draw_key = jr.split(key)
            at = self.source.start(key=place_key)
            return ExactDraws().step(self.source, at, None, key=draw_key)[0]
        free = {v.name: v for v in ebm.structure.skeleton.free}
        named = self.source if isinstance(self.source, Mapping) else {_only(ebm): self.source}
        keys = jr.split(key, len(named))
        return {n: _draw(d, free.get(n), k) for (n, d), k in zip(named.items(), keys, strict=True)}


def _draw(law: dist.Distribution, variable: Variable | None, key: Array) -> Array:
    """A draw of a variable's shape; a distribution of fewer axes gives each entry of the others."""
    own = (*law.batch_shape, *law.event_shape)
    shape = own if variable is None else variable.shape
    return jnp.asarray(law.sample(key, shape[: max(len(shape) - len(own), 0)]))


def _only(ebm: EBM) -> str:
    """The name of the one variable that is not latent."""
    names = [v.name for v in ebm.structure.skeleton.free if not v.latent]
    if len(names) > 1:
        raise ValueError(
            f"ContrastiveDivergence got one distribution as its start for the variables {names}; "
            f"give one for each: start={{{names[0]!r}: dist.Normal(0.0, 1.0), ...}}."
        )
    return names[0]


def drawn_from(source: object) -> Drawn | None:
    """The start with these draws; None if these are no distributions."""
    if isinstance(source, dist.Distribution | EBM):
        return Drawn(source)
    if not isinstance(source, Mapping) or not source:
        return None
    for name, law in source.items():
        if not isinstance(name, str) or not isinstance(law, dist.Distribution):
            raise TypeError(
                f"ContrastiveDivergence got a start with {brief(name)}: {brief(law)}; expected a "
                "NumPyro distribution for each name, such as dist.Normal(0.0, 1.0)."
            )
    return Drawn(dict(source))
