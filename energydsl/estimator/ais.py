"""Annealed importance sampling."""

from __future__ import annotations

import warnings
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
from energydsl.estimator.base import AbstractEstimator
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.kernel.choose import cheapest
from energydsl.normalizer.log_z import LogZ

WIDER = 1.2
"""Standard deviation of the base of a continuous variable, relative to the pilot's draws."""

LEAST_ESS = 2.0
"""The effective number of chains below which an estimate comes with a warning."""

PILOT = 100
"""The least number of steps of the pilot run, which has half as many as temperatures."""


class AIS(AbstractEstimator):
    r"""Annealed importance sampling with any kernel.

    Each chain begins with an exact draw from a base distribution whose log Z is known. It then
    passes through the energies $E_k = (1-\beta_k) E_\text{base} + \beta_k E$ with
    $0 = \beta_0 < \dots < \beta_K = 1$, with `steps` transitions of the kernel at each. Its weight
    $\log w = \log Z_\text{base} - \sum_k (\beta_k - \beta_{k-1}) (E - E_\text{base})(x_{k-1})$
    satisfies $\mathbb{E}\,w = Z$, even if the kernel has not converged. The base is uniform on
    finite sites. On continuous sites it consists of independent normals in unconstrained
    coordinates, with means and standard deviations from a short pilot run. Entries of tables that
    forbid a state have a finite energy along the path; chains that end in a forbidden state get
    $w = 0$. The standard error is the jackknife estimate over chains. If the chains miss a mode,
    the estimate is too low although its standard error is small; an `ess` far below `chains` is a
    sign of an unreliable estimate.

    Args:
        kernel: any kernel that updates every free site; by default the applicable one with the
            cheapest steps, such as Gibbs or Langevin.
        chains: the number of chains, each with an independent weight.
        temperatures: K, the number of steps in $\beta$.
        steps: transitions of the kernel at each $\beta_k$.

    Raises:
        ValueError: a count below one (two for `chains`); no chain with a weight above zero; or a
            domain that has neither unconstrained coordinates nor a `log_start_density`.

    Source: Neal (2001), Statistics and Computing 11, 125-139, equations (3), (10) and (11).
    """

    kernel: AbstractKernel | None = None
    chains: int = 128
    temperatures: int = 500
    steps: int = 1

    def __check_init__(self) -> None:
        for name, least in (("chains", 2), ("temperatures", 1), ("steps", 1)):
            count = getattr(self, name)
            if not isinstance(count, int | np.integer) or count < least:
                raise ValueError(
                    f"AIS got {name}={count!r}; expected a whole number of at least {least}."
                )

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        kernel = cheapest(ebm) if self.kernel is None else self.kernel
        check_covered(ebm, kernel)
        path = Path(ebm)
        # With the base's energy added, a conditional may no longer belong to a known family.
        check_covered(path.mixed, kernel)
        ensemble = kernel.ensemble(path.mixed)
        pilot_key, run_key = jr.split(key)
        # Only the normals of continuous variables need a pilot run.
        pilot = max(self.temperatures // 2, PILOT) if path.base.smooth else 0
        place, carry = _pilot(path, ensemble, pilot_key, self.chains, pilot)
        betas = jnp.linspace(0.0, 1.0, self.temperatures + 1)
        terms, lost = _anneal(path, ensemble, place, carry, betas, self.steps, key=run_key)
        total = np.asarray(terms, np.float64).sum(axis=0)
        weights = np.where(lost, -np.inf, path.base.log_partition - total)
        return self._checked(LogZ.from_log_weights(weights), weights)

    def _checked(self, found: LogZ, log_weights: np.ndarray) -> LogZ:
        """The estimate; an error or a warning if too few chains have nearly all of the weight."""
        more = "take more temperatures, steps or chains, or another kernel"
        if not np.isfinite(found.value):
            missing = int(np.isneginf(log_weights).sum())
            raise ValueError(
                f"AIS found no estimate: of {self.chains} chains, {missing} have the weight zero "
                "(they end in forbidden states) and the others no finite weight. If the model "
                f"allows any state at all, {more}."
            )
        if found.ess < LEAST_ESS:
            warnings.warn(
                f"AIS: the weights of {self.chains} chains are worth {found.ess:.2g} independent "
                f"ones, so the estimate may be far off and its error too small: {more}.",
                stacklevel=4,
            )
        return found


@eqx.filter_jit
def _pilot(
    path: Path, ensemble: AbstractEnsemble, key: Array, chains: int, length: int
) -> tuple[Place, Any]:
    """A pilot run: the normals of the base, and the chains' carry with adapted quantities."""
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


@eqx.filter_jit
def _anneal(
    path: Path,
    ensemble: AbstractEnsemble,
    place: Place,
    carry: Any,
    betas: Array,
    steps: int,
    *,
    key: Array,
) -> tuple[Array, Array]:
    """The terms of each chain's -log w + log Z_base, and which chains end in a forbidden state.

    Of shapes (temperatures, chains) and (chains,).
    """

    def rung(carry: Any, now: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        before, beta, key = now
        ebm = path.at(beta, place)
        carry, tables = ensemble.refresh(ebm, carry), ensemble.load(ebm)
        xs = ensemble.configurations(ebm, carry)
        gaps = jax.vmap(lambda x: path.gap(x, place))(xs)

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            return ensemble.advance(ebm, tables, carry, key=key)[0], None

        return lax.scan(step, carry, jr.split(key, steps))[0], (beta - before) * gaps

    draw_key, run_key = jr.split(key)
    base = path.at(betas[0], place)
    count = len(next(iter(ensemble.configurations(base, carry).values())))
    draw = jax.vmap(lambda k: path.base.draw(path.ebm, place, key=k))
    carry = ensemble.place(base, carry, draw(jr.split(draw_key, count)))
    keys = jr.split(run_key, len(betas) - 1)
    carry, terms = lax.scan(rung, carry, (betas[:-1], betas[1:], keys))
    return terms, jax.vmap(path.forbidden)(ensemble.configurations(path.ebm, carry))
