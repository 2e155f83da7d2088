"""Predictive draws: new values of what was observed, given draws of the rest."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration, IntractableError, check_key
from energydsl.language.model import Model
from energydsl.normalizer import Intractable
from energydsl.normalizer.base import Planned
from energydsl.normalizer.evaluate import draw, prepare
from energydsl.run.sampling import Chains, check_chains

BATCH_BYTES = 2**26
"""The memory in bytes that predictions which are drawn at once may take."""


def predictive(chains: Chains, *, key: Array) -> dict[str, np.ndarray]:
    r"""New data for each draw: $\tilde y \sim p(y \mid x)$ with x from the chains.

    If the chains are draws of $p(x \mid y)$, where y is what the model was conditioned on, then the
    result has the posterior predictive distribution. The draws of y are exact and independent given
    x, by the rules that serve `ExactDraws`.

    Args:
        chains: the result of `energydsl.sample` on a model that was conditioned.
        key: a `jax.random.key`.

    Returns:
        For each variable with clamped sites an array of shape (chain, draw, ...). Where only some
        of its sites were clamped, the others keep the values of the draw.

    Raises:
        IntractableError: no rule draws y exactly given x; the message says why.
        TypeError: what is given is not chains.
        ValueError: nothing was conditioned on, or the chains kept other quantities than the
            variables.
    """
    check_chains(chains, "predictive")
    model = chains.ebm.model
    check_key(key, "predictive", chains.ebm)
    if not model.observed:
        raise ValueError(
            "predictive got chains of a model that was not conditioned, so that nothing is left to "
            "predict: their draws are draws from the model. Condition it on data first: "
            "ed.compile(model.condition(y=data))."
        )
    xs = flat_draws(chains, "predictive")
    first = {name: np.asarray(chains.last[name])[0] for name in xs}
    observed = model.of_clamped_sites(first)
    plans = chains.ebm.conclusions.normalizer_of(observed, "draw")
    if isinstance(plans, Intractable):
        raise IntractableError(
            f"predictive needs exact draws of {model.observed} given the other variables: "
            f"{plans.reason}."
        )
    count = len(next(iter(xs.values())))
    values = {name: jnp.asarray(x, first[name].dtype) for name, x in xs.items()}
    size = sum(np.dtype(a.dtype).itemsize * a.size for a in observed.blank().values())
    batch = int(np.clip(BATCH_BYTES // max(plans.bytes, size, 1), 1, 1024))
    drawn = _predicted(observed, plans, values, jr.split(key, count), batch)
    lead = chains.stats["energy"].shape
    dtypes = {v.name: v.domain.draw_dtype for v in observed.variables}
    return {n: np.asarray(a, dtypes[n]).reshape(*lead, *a.shape[1:]) for n, a in drawn.items()}


def flat_draws(chains: Chains, function: str) -> dict[str, np.ndarray]:
    """The draws of every free variable, all chains one after another.

    Raises:
        ValueError: the chains have none of some variable, since they kept other quantities.
    """
    if missing := not_kept(chains):
        raise ValueError(
            f"{function} needs draws of {missing}, but the chains kept {list(chains.draws)}. "
            "Sample without keep=, or keep the variables, too: keep={'x': lambda x: x['x']}."
        )
    free = chains.ebm.structure.skeleton.free
    return {v.name: chains.draws[v.name].reshape(-1, *v.shape) for v in free}


def not_kept(chains: Chains) -> list[str]:
    """The names of the free variables of which the chains have no draws."""
    shapes = {name: array.shape[2:] for name, array in chains.draws.items()}
    return [v.name for v in chains.ebm.structure.skeleton.free if shapes.get(v.name) != v.shape]


@eqx.filter_jit
def _predicted(
    model: Model, plans: Planned, xs: Configuration, keys: Array, batch: int
) -> Configuration:
    def one(given: tuple[Configuration, Array]) -> Configuration:
        x, key = given
        held = model.around(model.blank() | x)
        return draw(held, plans, prepare(held, plans), key=key)

    return lax.map(one, (xs, keys), batch_size=batch)
