"""Metropolis-Hastings: any proposal on any domain, accepted by the energy."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.coordinates import Unconstrained, event_shape
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractKernel
from energydsl.kernel.tuning import Tuned
from energydsl.language.variable import Variable

Proposal = Callable[..., tuple[Configuration, Array]]
"""From a configuration, with ``key=``: another, and log q(old | new) - log q(new | old)."""

IN_SPACE, ALONG_A_LINE = 0.234, 0.44
"""Acceptance rates that Gaussian steps are tuned to: of many coordinates, and of one."""


class MetropolisHastings(AbstractKernel):
    r"""Propose, then accept with probability $\min(1, e^{E(x) - E(x')} q(x|x') / q(x'|x))$.

    Without a proposal of your own, a step visits every free variable once. Of a finite one it
    proposes to move one site: spins and bits flip, labels change to any other, integers go one
    level up or down. A continuous one takes a Gaussian step in all its unconstrained coordinates,
    with the Jacobian; warmup tunes the step's scale towards an acceptance rate of 0.234, or 0.44
    in one dimension. Of any other one event moves as its domain says (`AbstractDomain.move`).

    Args:
        proposal: called as ``proposal(x, key=key)``, it returns a configuration and
            $\log q(x|x') - \log q(x'|x)$, 0 for a symmetric proposal.
        scale: of the Gaussian steps, to begin with.

    Source: Hastings (1970), Biometrika 57(1), 97-109; the rates: Roberts, Gelman & Gilks (1997),
    Annals of Applied Probability 7(1), 110-120.
    """

    proposal: Proposal | None = eqx.field(static=True, default=None)
    scale: float = 0.5

    def __check_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"MetropolisHastings got scale={self.scale}; expected above 0.")

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> dict[str, Tuned]:
        if self.proposal is not None:
            return {}
        return {v.name: Tuned.begin(self.scale, warmup) for v in _smooth(ebm)}

    def step(
        self, ebm: EBM, x: Configuration, state: dict[str, Tuned], *, key: Array
    ) -> tuple[Configuration, dict[str, Tuned], dict[str, Array]]:
        if self.proposal is not None:
            x, rate = _move(ebm, self.proposal, x, key)
            return x, state, {"acceptance_rate": rate}
        state, rates = dict(state), []
        free = ebm.structure.skeleton.free
        for v, move_key in zip(free, jr.split(key, len(free)), strict=True):
            if v.domain.levels is not None:
                x, rate = _move(ebm, _level(ebm, v), x, move_key)
            elif v.domain.transform is None:
                x, rate = _move(ebm, _event(ebm, v), x, move_key)
            else:
                space = Unconstrained.of(ebm.structure, (v.name,))
                x, rate = _move(ebm, _Walk(space, state[v.name].value), x, move_key)
                rows = space.coordinates(x).size
                state[v.name] = state[v.name].learn(rate, ALONG_A_LINE if rows == 1 else IN_SPACE)
            rates.append(rate)
        return x, state, {"acceptance_rate": jnp.mean(jnp.stack(rates))}

    def moves(self, ebm: EBM) -> np.ndarray:
        if self.proposal is not None:
            return ebm.structure.free
        free = ebm.structure.skeleton.free
        return ebm.structure.of_variables(v.name for v in free if _movable(v))

    def reason(self, ebm: EBM) -> str:
        still = next(v for v in ebm.structure.skeleton.free if not _movable(v))
        return (
            f"{still.domain} has neither levels nor a transform nor a move of its own, so pass "
            "proposal="
        )


def _smooth(ebm: EBM) -> list[Variable]:
    return [v for v in ebm.structure.skeleton.free if v.domain.transform is not None]


def _movable(v: Variable) -> bool:
    domain = v.domain
    return not (domain.levels is None and domain.transform is None and domain.move is None)


def _event(ebm: EBM, v: Variable) -> _Event:
    held = ebm.structure.skeleton.mask(v).reshape(-1, *event_shape(v))
    return _Event(v, np.flatnonzero(~held.reshape(len(held), -1)[:, 0]))


def _level(ebm: EBM, v: Variable) -> _Level:
    return _Level(v, np.flatnonzero(~ebm.structure.skeleton.mask(v).ravel()))


class _Level(eqx.Module):
    """One site of a finite variable goes to another level."""

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
    """Another level, and the log ratio of the proposals: labels jump, numbers step."""
    zero = jnp.zeros(())
    if count == 1:
        return level, zero
    if v.domain.ordered and count > 2:
        up = jr.bernoulli(key)
        new = level + jnp.where(up, 1, -1)
        # A step over an end stays: symmetric.
        return jnp.clip(new, 0, count - 1), zero
    return (level + jr.randint(key, (), 1, count)) % count, zero


class _Event(eqx.Module):
    """One event of a variable moves as its domain says."""

    variable: Variable = eqx.field(static=True)
    events: np.ndarray

    def __call__(self, x: Configuration, *, key: Array) -> tuple[Configuration, Array]:
        event_key, move_key = jr.split(key)
        v = self.variable
        rows = x[v.name].reshape(-1, *event_shape(v))
        event = jr.choice(event_key, self.events)
        new, log_ratio = v.domain.move(rows[event], key=move_key)  # type: ignore[misc]
        return {**x, v.name: rows.at[event].set(new).reshape(v.shape)}, log_ratio


class _Walk(eqx.Module):
    """A Gaussian step in unconstrained coordinates; the Jacobian enters the ratio."""

    space: Unconstrained = eqx.field(static=True)
    scale: Array

    def __call__(self, x: Configuration, *, key: Array) -> tuple[Configuration, Array]:
        z = self.space.coordinates(x)
        new = z + self.scale * jr.normal(key, z.shape)
        log_ratio = self.space.log_jacobian(new, x) - self.space.log_jacobian(z, x)
        return self.space.configuration(new, x), log_ratio


def _move(
    ebm: EBM, proposal: Proposal, x: Configuration, key: Array
) -> tuple[Configuration, Array]:
    propose_key, accept_key = jr.split(key)
    new, log_q = proposal(x, key=propose_key)
    log_ratio = ebm.energy(x) - ebm.energy(new) + log_q
    rate = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
    taken = jr.uniform(accept_key) < rate
    return jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, x), rate
