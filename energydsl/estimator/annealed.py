"""Chains on a path of annealing: the pilot run, the ladder from base to target and back."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.estimator.annealing import Path, Place
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.kernel.choose import cheapest
from energydsl.language.model import Model
from energydsl.normalizer import Exact
from energydsl.normalizer.evaluate import draw, prepare

WIDER = 1.2
"""Standard deviation of the base of a continuous variable, relative to the pilot's draws."""

PILOT = 100
"""The least number of steps of the pilot run, which has half as many as temperatures."""

CHUNK = 64
"""The most rungs that one call of the compiled program passes: a ladder that is twice as long takes
twice as many calls, and is not compiled anew."""


class Annealed(eqx.Module):
    """Chains that are ready for the path between a base distribution and an EBM.

    Args:
        ebm: the target.
        kernel: moves the chains; None for the applicable one with the cheapest steps.
        chains: the number of chains.
        pilot: the number of steps of the pilot run, which adapts the kernel and, on continuous
            sites, finds the base's means and standard deviations. Finite models have no pilot run.

    Raises:
        ValueError: the kernel leaves out a free site, or the base has no density.
    """

    path: Path
    ensemble: AbstractEnsemble
    place: Place
    carry: Any
    """The chains' carry at the end of the pilot run, with adapted quantities."""
    count: int = eqx.field(static=True)

    def __init__(
        self, ebm: EBM, kernel: AbstractKernel | None, chains: int, pilot: int, *, key: Array
    ) -> None:
        if kernel is not None:
            check_covered(ebm, kernel)
        self.path = Path(ebm)
        # With the base's energy added, a conditional may no longer belong to a known family.
        kernel = cheapest(self.path.mixed) if kernel is None else kernel
        check_covered(self.path.mixed, kernel)
        self.ensemble = kernel.ensemble(self.path.mixed)
        length = max(pilot, PILOT) if self.path.base.smooth else 0
        self.place, self.carry = _pilot(self.path, self.ensemble, key, chains, length)
        self.count = chains

    def forward(self, temperatures: int, steps: int, *, key: Array) -> tuple[np.ndarray, Any]:
        r"""The log weights of chains from the base to the target, $\mathbb{E}\,w = Z$.

        Returns:
            The log weight of each chain, -inf if it ends in a forbidden state; and the carry there.
        """
        draw_key, run_key = jr.split(key)
        carry = self.drawn(key=draw_key)
        betas = np.linspace(0.0, 1.0, temperatures + 1)
        weights, carry = self._anneal(carry, betas, steps, key=run_key)
        weights = np.where(self.forbidden(carry), -np.inf, self.path.base.log_partition + weights)
        return weights, carry

    def backward(self, carry: Any, temperatures: int, steps: int, *, key: Array) -> np.ndarray:
        r"""The log weights of chains from the target to the base, $\mathbb{E}\,w = 1/Z$.

        Chains that begin in a forbidden state are no draws of the target and are left out.
        """
        allowed = ~self.forbidden(carry)
        betas = np.linspace(1.0, 0.0, temperatures + 1)
        weights = self._anneal(carry, betas, steps, key=key)[0]
        return weights[allowed] - self.path.base.log_partition

    def drawn(self, *, key: Array) -> Any:
        """The carry with each chain at an exact draw from the base."""
        return self.placed(_draws(self.path, self.place, jr.split(key, self.count)))

    def placed(self, xs: Configuration) -> Any:
        """The carry with the chains at other configurations."""
        return _put(self.path, self.ensemble, self.place, self.carry, xs)

    def moved(self, carry: Any, steps: int, *, key: Array) -> Any:
        """The carry after transitions at the target, whose forbidden states may be entered."""
        return self._anneal(carry, np.ones(steps + 1), 1, key=key)[1] if steps else carry

    def at_model(self, carry: Any, warmup: int, *, key: Array) -> tuple[Any, bool]:
        """The carry with draws from the model, and whether these are exact.

        Without exact draws, the chains of `carry` make `warmup` transitions at the model.
        """
        xs = exact_draws(self.path.ebm, self.count, key=key)
        if xs is None:
            return self.moved(carry, warmup, key=key), False
        return self.placed(xs), True

    def _anneal(
        self, carry: Any, betas: np.ndarray, steps: int, *, key: Array
    ) -> tuple[np.ndarray, Any]:
        r"""The log weights $-\sum_k (\beta_k - \beta_{k-1}) (E - E_\text{base})(x_{k-1})$.

        The betas may rise or fall. After the k-th term, `steps` transitions at $\beta_k$ follow.
        """
        total, rungs = np.zeros(self.count), len(betas) - 1
        for k, window in enumerate(windows(betas, -(-rungs // _calls(rungs)))):
            parts = self.path, self.ensemble, self.place
            carry, terms = _rungs(*parts, carry, window, steps, key=jr.fold_in(key, k))
            total -= np.asarray(terms, np.float64).sum(axis=0)
        return total, carry

    def forbidden(self, carry: Any) -> np.ndarray:
        """Which chains are in a state that the target forbids."""
        return np.asarray(_forbidden(self.path, self.ensemble, carry))


def windows(betas: np.ndarray, length: int) -> list[Array]:
    """The ladder in windows of one number of rungs, each beginning where the one before ends.

    The last beta may be repeated, which adds transitions there and changes no weight.
    """
    rungs = len(betas) - 1
    count = -(-rungs // length)
    padded = np.pad(betas, (0, count * length - rungs), mode="edge")
    return [jnp.asarray(padded[k * length :][: length + 1], float) for k in range(count)]


def _calls(rungs: int) -> int:
    """The number of windows: a power of two, so that twice the rungs are twice the windows."""
    return 1 if rungs <= CHUNK else 2 * _calls(-(-rungs // 2))


def stretched(step: Array, gaps: Array) -> Array:
    """A step in beta times the gaps: 0 where the step is, even if a gap is infinite."""
    return jnp.where(step == 0, 0.0, step * gaps)


def advanced(ensemble: AbstractEnsemble, ebm: EBM, carry: Any, steps: int, key: Array) -> Any:
    """The carry after some transitions."""
    tables = ensemble.load(ebm)

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        return ensemble.advance(ebm, tables, carry, key=key)[0], None

    return lax.scan(step, carry, jr.split(key, steps))[0]


def exact_draws(ebm: EBM, count: int, *, key: Array) -> Configuration | None:
    """Independent exact draws from an EBM, where rules without numerical error have them."""
    plans = ebm.conclusions.survey.choose("draw")
    if not isinstance(plans, Exact):
        return None
    return _exact_draws(ebm.model, plans, jr.split(key, count))


@eqx.filter_jit
def _exact_draws(model: Model, plans: Exact, keys: Array) -> Configuration:
    prepared = prepare(model, plans)
    return jax.vmap(lambda k: draw(model, plans, prepared, key=k))(keys)


@eqx.filter_jit
def _draws(path: Path, place: Place, keys: Array) -> Configuration:
    return jax.vmap(lambda k: path.base.draw(path.ebm, place, key=k))(keys)


@eqx.filter_jit
def _put(
    path: Path, ensemble: AbstractEnsemble, place: Place, carry: Any, xs: Configuration
) -> Any:
    return ensemble.place(path.at(jnp.ones(()), place), carry, xs)


@eqx.filter_jit
def _forbidden(path: Path, ensemble: AbstractEnsemble, carry: Any) -> Array:
    return jax.vmap(path.forbidden)(ensemble.configurations(path.ebm, carry))


@eqx.filter_jit
def _rungs(
    path: Path,
    ensemble: AbstractEnsemble,
    place: Place,
    carry: Any,
    betas: Array,
    steps: int,
    *,
    key: Array,
) -> tuple[Any, Array]:
    """The carry after a window of rungs, and the terms of each chain's weight, (rung, chain)."""

    def rung(carry: Any, now: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        before, beta, key = now
        ebm = path.at(beta, place)
        carry = ensemble.refresh(ebm, carry)
        xs = ensemble.configurations(ebm, carry)
        gaps = jax.vmap(lambda x: path.gap(x, place))(xs)
        return advanced(ensemble, ebm, carry, steps, key), stretched(beta - before, gaps)

    return lax.scan(rung, carry, (betas[:-1], betas[1:], jr.split(key, len(betas) - 1)))


@eqx.filter_jit
def _pilot(
    path: Path, ensemble: AbstractEnsemble, key: Array, chains: int, length: int
) -> tuple[Place, Any]:
    """The normals of the base, and the chains' carry with adapted quantities."""
    start_key, init_key, run_key = jr.split(key, 3)
    xs = jax.vmap(lambda k: path.ebm.start(key=k))(jr.split(start_key, chains))
    standard = path.base.standard(jax.tree.map(lambda a: a[0], xs))
    target = path.at(jnp.ones(()), standard)
    carry = ensemble.start(target, xs, key=init_key, warmup=length)
    if not length:
        return standard, carry
    tables = ensemble.load(target)

    def step(carry: Any, key: Array) -> tuple[Any, Configuration]:
        carry, _ = ensemble.advance(target, tables, carry, key=key)
        xs = ensemble.configurations(target, carry)
        return carry, jax.vmap(path.base.coordinates)(xs)

    carry, zs = lax.scan(step, carry, jr.split(run_key, length))
    return _placed(jax.tree.map(lambda z: z[length // 2 :], zs), standard), carry


def _placed(zs: Configuration, standard: Place) -> Place:
    """Normals fitted to coordinates, (draw, chain, ...); standard ones if any are not finite."""

    def spread(z: Array) -> Array:
        least = 1e-6 * (1 + jnp.max(jnp.abs(z)))
        return WIDER * jnp.maximum(jnp.std(z, axis=(0, 1)), least)

    found = Place(
        {n: jnp.mean(z, axis=(0, 1)) for n, z in zs.items()},
        {n: spread(z) for n, z in zs.items()},
    )
    good = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(found)]))
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), found, standard)
