"""Metropolis-Hastings, with any proposal on any domain."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._messages import brief, described
from energydsl._pickling import Portable, rebuilt
from energydsl._types import Configuration
from energydsl.analysis.coordinates import Unconstrained
from energydsl.compiler.ebm import EBM
from energydsl.kernel.acceptance import acceptance, finite
from energydsl.kernel.base import AbstractKernel
from energydsl.kernel.tuning import Tuned
from energydsl.language.variable import Events, Variable

Proposal = Callable[..., tuple[Configuration, Array]]
"""A function of a configuration and ``key=`` that returns the proposed configuration and
log q(old | new) - log q(new | old)."""

PROPOSAL = (
    "expected a function called as proposal(x, key=key) that returns a configuration x' and "
    "log q(x | x') - log q(x' | x), which is 0.0 for a symmetric proposal"
)

IN_SPACE, ALONG_A_LINE = 0.234, 0.44
"""Target acceptance rates of Gaussian steps: for many coordinates, and for one."""


@described
class MetropolisHastings(AbstractKernel):
    r"""Metropolis-Hastings: x' is accepted with $\min(1, e^{E(x) - E(x')} q(x|x') / q(x'|x))$.

    Without a proposal of your own, a step makes one proposal for each free variable. For a finite
    variable it changes one site: spins and bits flip, labels change to any other label, and
    integers go one level up or down. For a continuous variable it is a Gaussian step in all its
    unconstrained coordinates, with the Jacobian in the acceptance ratio; warmup adapts the step's
    scale towards an acceptance rate of 0.234, or 0.44 in one dimension. For any other variable,
    its domain proposes a change of one event (`AbstractDomain.move`).

    Args:
        proposal: a function called as ``proposal(x, key=key)`` that returns a configuration x' and
            $\log q(x|x') - \log q(x'|x)$, which is 0 for a symmetric proposal.
        scale: the initial standard deviation of the Gaussian steps.

    Source: Hastings (1970), Biometrika 57(1), 97-109; the rates: Roberts, Gelman & Gilks (1997),
    Annals of Applied Probability 7(1), 110-120.
    """

    proposal: Proposal | None = eqx.field(static=True, default=None)
    scale: float = 0.5

    def __check_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"MetropolisHastings got scale={self.scale}; expected above 0.")
        if self.proposal is not None and not callable(self.proposal):
            raise TypeError(
                f"MetropolisHastings got the proposal {brief(self.proposal)}; {PROPOSAL}."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (MetropolisHastings, Portable(self.proposal), self.scale)

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> dict[str, Tuned]:
        if self.proposal is not None:
            _check_proposal(self.proposal, x, key)
            return {}
        return {v.name: Tuned.begin(self.scale, warmup) for v in _smooth(ebm)}

    def step(
        self, ebm: EBM, x: Configuration, state: dict[str, Tuned], *, key: Array
    ) -> tuple[Configuration, dict[str, Tuned], dict[str, Array]]:
        if self.proposal is not None:
            x, rate = _move(ebm, self.proposal, x, key)
            return x, state, {"acceptance_rate": rate}
        state, rates = dict(state), []
        # Another kernel of a cycle may move the variables that this one cannot.
        movable = [v for v in ebm.structure.skeleton.free if _movable(v)]
        for v, move_key in zip(movable, jr.split(key, len(movable)), strict=True):
            if v.domain.levels is not None:
                x, rate = _move(ebm, _level(ebm, v), x, move_key)
            elif v.domain.transform is not None:
                space = Unconstrained.of(ebm.structure, (v.name,))
                x, rate = _move(ebm, _Walk(space, state[v.name].value), x, move_key)
                rows = space.coordinates(x).size
                state[v.name] = state[v.name].learn(rate, ALONG_A_LINE if rows == 1 else IN_SPACE)
            elif v.domain.move is not None:
                event = _Event(ebm.structure.skeleton.free_events(v), v.domain.move)
                x, rate = _move(ebm, event, x, move_key)
            rates.append(rate)
        return x, state, {"acceptance_rate": jnp.mean(jnp.stack(rates))}

    def moves(self, ebm: EBM) -> np.ndarray:
        if self.proposal is not None:
            return ebm.structure.free
        free = ebm.structure.skeleton.free
        return ebm.structure.of_variables(v.name for v in free if _movable(v))

    def merit(self, ebm: EBM) -> str:
        return "it applies to any site, but is slow: one proposal per variable and step"

    def effort(self, ebm: EBM) -> float:
        # Each proposal needs two energies.
        return 2.0 * (1 if self.proposal else len(ebm.structure.skeleton.free))

    def reason(self, ebm: EBM) -> str:
        still = next(v for v in ebm.structure.skeleton.free if not _movable(v))
        return (
            f"{still.domain} has neither levels nor a transform nor a move of its own, so give a "
            "proposal: MetropolisHastings(proposal=...)"
        )


def _check_proposal(proposal: Proposal, x: Configuration, key: Array) -> None:
    """Raise unless a proposal takes a key, and returns a like configuration and a scalar."""
    try:
        inspect.signature(proposal).bind(x, key=key)
    except TypeError as error:
        raise TypeError(
            f"MetropolisHastings got a proposal that cannot be called: {error}; {PROPOSAL}."
        ) from None
    given = jax.eval_shape(lambda x, key: proposal(x, key=key), x, key)
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            f"MetropolisHastings got a proposal that returns {type(given).__name__}; {PROPOSAL}."
        )
    new, ratio = given
    shapes = {n: a.shape for n, a in x.items()}
    proposed = {n: np.shape(a) for n, a in new.items()} if isinstance(new, dict) else brief(new)
    if proposed != shapes or np.shape(ratio):
        raise ValueError(
            f"MetropolisHastings got a proposal that returns {proposed} and a ratio of shape "
            f"{np.shape(ratio)}; expected a configuration of {shapes}, and a scalar."
        )


def _smooth(ebm: EBM) -> list[Variable]:
    return [v for v in ebm.structure.skeleton.free if v.domain.transform is not None]


def _movable(v: Variable) -> bool:
    domain = v.domain
    return not (domain.levels is None and domain.transform is None and domain.move is None)


def _level(ebm: EBM, v: Variable) -> _Level:
    return _Level(v, np.flatnonzero(~ebm.structure.skeleton.mask(v).ravel()))


class _Level(eqx.Module):
    """A proposal that changes one site of a finite variable to another level."""

    variable: Variable = eqx.field(static=True)
    sites: np.ndarray

    def __call__(self, x: Configuration, *, key: Array) -> tuple[Configuration, Array]:
        site_key, level_key = jr.split(key)
        v, old = self.variable, x[self.variable.name]
        values = jnp.asarray(v.domain.values, v.domain.dtype)
        site = jr.choice(site_key, self.sites)
        level = jnp.searchsorted(values, old.ravel()[site])
        count = len(v.domain.values)
        new, log_ratio = _other_level(v, level, count, level_key)
        return {**x, v.name: old.ravel().at[site].set(values[new]).reshape(v.shape)}, log_ratio


def _other_level(v: Variable, level: Array, count: int, key: Array) -> tuple[Array, Array]:
    """Another level, and the log ratio of the proposals.

    Any other label is equally likely; ordered levels go one up or down.
    """
    zero = jnp.zeros(())
    if count == 1:
        return level, zero
    if v.domain.ordered and count > 2:
        up = jr.bernoulli(key)
        new = level + jnp.where(up, 1, -1)
        # A step beyond the last level stays in place, which keeps the proposal symmetric.
        return jnp.clip(new, 0, count - 1), zero
    return (level + jr.randint(key, (), 1, count)) % count, zero


class _Event(eqx.Module):
    """A proposal that changes one event of a variable by its domain's `move`."""

    events: Events
    move: Callable[..., tuple[Array, Array]]

    def __call__(self, x: Configuration, *, key: Array) -> tuple[Configuration, Array]:
        event_key, move_key = jr.split(key)
        name = self.events.variable.name
        events = self.events.of(x[name])
        chosen = jr.choice(event_key, len(events))
        new, log_ratio = self.move(events[chosen], key=move_key)
        return {**x, name: self.events.put(x[name], events.at[chosen].set(new))}, log_ratio


class _Walk(eqx.Module):
    """A proposal of a Gaussian step in unconstrained coordinates; the ratio has the Jacobian."""

    space: Unconstrained = eqx.field(static=True)
    scale: Array

    def __call__(self, x: Configuration, *, key: Array) -> tuple[Configuration, Array]:
        z = self.space.coordinates(x)
        new = z + self.scale * jr.normal(key, z.shape)
        log_ratio = self.space.log_jacobian(new, x) - self.space.log_jacobian(z, x)
        # A value that rounding moves out of the support is rejected.
        log_ratio = jnp.where(self.space.held(new, x), log_ratio, -jnp.inf)
        return self.space.configuration(new, x), log_ratio


def _move(
    ebm: EBM, proposal: Proposal, x: Configuration, key: Array
) -> tuple[Configuration, Array]:
    propose_key, accept_key = jr.split(key)
    new, log_q = proposal(x, key=propose_key)
    priced = finite(ebm)
    rate = acceptance(priced.energy(x), priced.energy(new), jnp.asarray(log_q))
    taken = jr.uniform(accept_key) < rate
    return jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, x), rate
