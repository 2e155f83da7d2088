"""Where the chains of a run begin: at random, at given values, at a mode, or at draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array

from energydsl._messages import brief
from energydsl._types import Configuration, Values
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.compiler.start import check_starts, starts
from energydsl.kernel.base import check_covered
from energydsl.kernel.exact_draws import ExactDraws
from energydsl.mode.base import Mode

Start = Values | Mode | EBM | dist.Distribution | Mapping[str, dist.Distribution]
"""What `sample` accepts as ``start=``."""


def initial(ebm: EBM, start: Start | None, chains: int, *, key: Array) -> Configuration:
    """The initial configurations, with the chains on the first axis.

    Raises:
        TypeError, ValueError: the start does not fit the model, or has an infinite energy.
    """
    if start is None:
        return starts(ebm, chains, key=key)
    laws = _laws(ebm, start)
    if laws is not None:
        xs = _drawn(ebm, laws, chains, key)
    else:
        xs = _given(ebm, start.configuration if isinstance(start, Mode) else start, chains)
    check_starts(ebm, xs)
    return xs


def _laws(ebm: EBM, start: Any) -> EBM | Mapping[str, dist.Distribution] | None:
    """The distributions from which the start is drawn; None if it consists of values."""
    if isinstance(start, EBM):
        check_ebm(start, "sample")
        return start
    if isinstance(start, dist.Distribution):
        names = [v.name for v in ebm.structure.skeleton.free]
        if len(names) > 1:
            raise ValueError(
                f"sample got one distribution as its start for the variables {names}; give one for "
                f"each: start={{{names[0]!r}: dist.Normal(0.0, 1.0), ...}}."
            )
        return {names[0]: start}
    if isinstance(start, Mode):
        return None
    if not isinstance(start, Mapping):
        raise TypeError(
            f"sample got start={brief(start)}; expected a dict of arrays or of NumPyro "
            "distributions, a distribution, a compiled EBM, or a mode of ed.map_configuration."
        )
    kinds = {isinstance(value, dist.Distribution) for value in start.values()}
    if kinds == {True, False}:
        raise TypeError(
            "sample got a start of arrays and of distributions; expected either arrays for all "
            "variables, or distributions, where variables without one begin at random."
        )
    return start if kinds == {True} else None


def _drawn(
    ebm: EBM, laws: EBM | Mapping[str, dist.Distribution], chains: int, key: Array
) -> Configuration:
    """Draws for each chain; variables that are not drawn begin at random."""
    draw_key, random_key = jr.split(key)
    free = {v.name: v for v in ebm.structure.skeleton.free}
    if isinstance(laws, EBM):
        check_covered(laws, ExactDraws())
        plain = jax.vmap(lambda k: laws.start(key=k))(jr.split(random_key, chains))
        ensemble = ExactDraws().ensemble(laws)
        drawn, _ = ensemble.advance(laws, ensemble.load(laws), plain, key=draw_key)
    else:
        keys = jr.split(draw_key, len(laws))
        drawn = {
            n: _draws(law, free[n].shape, chains, k) if n in free else None
            for (n, law), k in zip(laws.items(), keys, strict=True)
        }
    if unknown := sorted(drawn.keys() - free.keys()):
        raise ValueError(
            f"sample got a start that draws {unknown}; the free variables are {list(free)}."
        )
    xs = {} if drawn.keys() == free.keys() else starts(ebm, chains, key=random_key)
    checked = {n: free[n].check(a, (chains,)) for n, a in drawn.items()}
    return {n: jnp.asarray(a) for n, a in ebm.model.placed({**xs, **checked}).items()}


def _draws(law: dist.Distribution, shape: tuple[int, ...], chains: int, key: Array) -> Array:
    """Draws of a shape; a distribution of fewer axes gives each entry of the others."""
    own = len(law.batch_shape) + len(law.event_shape)
    return jnp.asarray(law.sample(key, (chains, *shape[: max(len(shape) - own, 0)])))


def _given(ebm: EBM, start: Any, chains: int) -> Configuration:
    """The given values: one configuration for all chains, or one per chain."""
    ebm.model.check_names(start)
    free = ebm.structure.skeleton.free
    shapes = {v.name: v.shape for v in free}
    alike = all(np.shape(start[n]) == s for n, s in shapes.items())
    batch = () if alike else (chains,)
    wrong = {n: np.shape(start[n]) for n, s in shapes.items() if np.shape(start[n]) != (*batch, *s)}
    if wrong:
        raise ValueError(
            f"start has shapes {wrong}; expected {shapes}, or those with {chains} chains in front."
        )
    xs = ebm.model.placed({v.name: v.check(start[v.name], batch) for v in free})
    return {v.name: jnp.broadcast_to(xs[v.name], (chains, *v.shape)) for v in free}
