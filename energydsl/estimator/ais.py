"""Annealed importance sampling, from a base to the model and from the model to a base."""

from __future__ import annotations

import dataclasses

import jax.random as jr
from jax import Array

from energydsl._messages import described
from energydsl.compiler.ebm import EBM
from energydsl.estimator.annealed import Annealed
from energydsl.estimator.base import LONG_CHAINS, AbstractEstimator, check_settings
from energydsl.kernel.base import AbstractKernel
from energydsl.normalizer.log_z import LogZ


@described
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
        check_settings(self, chains=2, temperatures=1, steps=1)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        ready_key, run_key = jr.split(key)
        ready = Annealed(ebm, self.kernel, self.chains, self.temperatures // 2, key=ready_key)
        weights, _ = ready.forward(self.temperatures, self.steps, key=run_key)
        return LogZ.from_log_weights(weights)

    def doubled(self) -> AIS:
        return dataclasses.replace(self, temperatures=2 * self.temperatures)


@described
class ReverseAIS(AbstractEstimator):
    r"""Annealed importance sampling from the model to the base, whose estimate is from above.

    Each chain begins with a draw from the model and passes through the energies of `AIS` in the
    opposite order. Its weight
    $\log w = -\log Z_\text{base} + \sum_k (\beta_k - \beta_{k-1}) (E - E_\text{base})(x_k)$
    satisfies $\mathbb{E}\,w = 1/Z$, so that $-\log$ of the mean weight is above log Z on average,
    as the estimate of `AIS` is below it. The draws are exact where a rule has exact draws (see
    `ExactDraws`). Elsewhere they are the ends of chains of `warmup` transitions at the model from
    the domains' starts, and the result's `doubts` say so. If tables forbid states, $\mathbb{E}\,w$
    is below $1/Z$ by the share of forward chains that would end in a forbidden state.

    Args:
        kernel: as of `AIS`.
        chains: the number of chains, each with an independent weight if the draws are exact.
        temperatures: K, the number of steps in $\beta$.
        steps: transitions of the kernel at each $\beta_k$.
        warmup: transitions before the draws, where they are not exact.

    Raises:
        ValueError: as of `AIS`; or every draw is a forbidden state.

    Source: Burda, Grosse & Salakhutdinov (2015), AISTATS, PMLR 38, 102-110, section 3; Grosse,
    Ghahramani & Adams (2015), arXiv:1511.02543, section 3.
    """

    kernel: AbstractKernel | None = None
    chains: int = 128
    temperatures: int = 500
    steps: int = 1
    warmup: int = 1000

    def __check_init__(self) -> None:
        check_settings(self, chains=2, temperatures=1, steps=1, warmup=0)

    def estimate(self, ebm: EBM, *, key: Array) -> LogZ:
        ready_key, draw_key, run_key = jr.split(key, 3)
        ready = Annealed(ebm, self.kernel, self.chains, self.temperatures // 2, key=ready_key)
        carry, exact = ready.at_model(ready.carry, self.warmup, key=draw_key)
        weights = ready.backward(carry, self.temperatures, self.steps, key=run_key)
        found = LogZ.from_log_inverse_weights(weights)
        return found if exact else found.doubted(LONG_CHAINS)

    def doubled(self) -> ReverseAIS:
        return dataclasses.replace(self, temperatures=2 * self.temperatures, warmup=2 * self.warmup)
