"""Recovery likelihood: chains that begin at noisy data and move given them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration, check_key
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.kernel.choose import cheapest
from energydsl.language.noised import centre, noised, spread
from energydsl.language.variable import Variable
from energydsl.learning.start.base import AbstractStart, Walkers


def _increasing(levels: Sequence[float] | float) -> tuple[float, ...]:
    """The levels as numbers, or ValueError unless they are positive and increase."""
    try:
        numbers = np.atleast_1d(np.asarray(levels, float))
    except (TypeError, ValueError):
        numbers = np.zeros((0, 0))
    rises = numbers.ndim == 1 and numbers.size and numbers[0] > 0 and (np.diff(numbers) > 0).all()
    if not rises or not np.isfinite(numbers).all():
        raise ValueError(
            f"Noisy got levels={brief(levels)}; expected standard deviations above 0 that increase "
            "from each to the next, such as (0.1, 0.2, 0.4)."
        )
    return tuple(float(level) for level in numbers)


@described
class Noisy(AbstractStart):
    r"""Noise is added to the data, and each chain recovers an example from its noisy version.

    The chain of example x begins at $\tilde x = x + \sigma \xi$ with standard normal $\xi$, and
    moves under the conditional energy $E(x) + \lVert x - \tilde x \rVert^2 / (2 \sigma^2)$ of
    $p(x \mid \tilde x)$. If $\sigma$ is small, this distribution is nearly normal and a short chain
    suffices; its likelihood is maximal at the same E as that of the data. Kernels move
    $u = (x - \tilde x) / \sigma$, so that a step size is in units of $\sigma$, or of $\sigma^2$ for
    Langevin.

    Without `level`, the energy is that of the data, and each example gets one of the noise levels
    at random. With `level`, the model is a ladder. At the level $s_j$ its energy is that of the
    data plus noise of standard deviation $s_j$, with $s_0 = 0$ for the data. A rung j is drawn for
    each example, whose version at $s_{j-1}$ is recovered from that at $s_j$, so that
    $\sigma^2 = s_j^2 - s_{j-1}^2$. The input named by `level` tells the energy $s_{j-1}$. Give it 0
    before and after learning, as in ``ed.fit(ebm.given(noise=0.0), ...)``. `draw` begins at noise
    of $s_T$ and goes down the ladder: choose $s_T$ large against the spread of the data, which
    should have mean 0. Factors of 1.5 to 2 between levels keep the conditional distributions easy.
    In the source, the data is also shrunk at each level so that its variance remains 1, which only
    changes the units of x; an energy may divide x by $\sqrt{1 + s^2}$ itself.

    Args:
        levels: the standard deviations $s_1 < s_2 < \dots < s_T$, in the data's units; or one
            number.
        level: the name of a real input of the model, without axes, that receives the level.

    Source: Gao et al. (2021), Learning energy-based models by diffusion recovery likelihood, ICLR,
    eqs. (4) and (10), algorithms 1 and 2; one level: Bengio et al. (2013), NeurIPS 26.
    """

    levels: tuple[float, ...] = eqx.field(converter=_increasing)
    level: str | None = None

    at_examples: ClassVar[bool] = True

    def check(self, ebm: EBM, chains: int) -> None:
        odd = [str(v) for v in ebm.structure.skeleton.free if v.latent or not v.domain.real_line]
        if odd:
            raise TypeError(
                f"Noisy adds normal noise to real variables that data show, and {odd} are not. "
                "Use start='data' or 'persistent'."
            )
        scalars = [v.name for v in ebm.model.inputs if v.domain.real_line and not v.shape]
        if self.level is not None and self.level not in scalars:
            raise ValueError(
                f"Noisy got level={self.level!r}; expected the name of a real input without axes, "
                f'such as ed.real("noise", given=True); the model has {scalars or "none"}.'
            )

    def begin(
        self, walkers: Walkers, state: None, examples: Configuration, *, key: Array
    ) -> tuple[Any, None]:
        """The chains begin at u = 0, the noisy data; they move under a `conditional`."""
        blank = {v.name: jnp.zeros((walkers.count, *v.shape)) for v in _moving(walkers.ebm)}
        return walkers.at(jax.vmap(walkers.ebm.model.placed)(blank), key=key), None

    def conditional(self, ebm: EBM) -> EBM:
        """The EBM of u given noisy data, whose values and noise are inputs."""
        budget, rules = ebm.conclusions.budget, ebm.conclusions.rules
        model = noised(ebm.model, _moving(ebm))
        return compile_model(model, budget=budget.terms, memory=budget.memory, rules=rules)

    def at_a_rung(
        self, ebm: EBM, x: Configuration, *, key: Array
    ) -> tuple[Configuration, Configuration]:
        """An example at the lower level of a random rung, and the inputs of `conditional`."""
        rung_key, low_key, high_key = jr.split(key, 3)
        rung = jr.randint(rung_key, (), 0, len(self.levels))
        lows, widths = self._rungs()
        x = ebm.model.placed(x)
        if self.level is not None:
            x = ebm.model.placed(_plus(x, lows[rung], low_key))
        noisy = _plus(x, widths[rung], high_key)
        return x, self._inputs(ebm, noisy, lows[rung], widths[rung])

    def at_level(self, ebm: EBM, inputs: Configuration) -> EBM:
        """The EBM at the level that is among the inputs of `conditional`."""
        return ebm if self.level is None else ebm.given({self.level: inputs[self.level]})

    def recovered(
        self, walkers: Walkers, steps: int, *, key: Array
    ) -> tuple[Configuration, dict[str, Array]]:
        """What one chain under a `conditional` with its inputs finds, in the data's units."""
        begin_key, move_key = jr.split(key)
        carry, _ = self.begin(walkers, None, {}, key=begin_key)
        carry, info = walkers.advanced(carry, steps, key=move_key)
        u, given = walkers.configurations(carry), walkers.ebm.model.evidence
        found = {
            v.name: given[centre(v).name] + given[spread(v).name] * u[v.name][0]
            for v in _moving(walkers.ebm)
        }
        return found, info

    def draw(
        self,
        ebm: EBM,
        kernel: AbstractKernel | None = None,
        *,
        key: Array,
        k: int = 10,
        chains: int = 100,
    ) -> Configuration:
        """Draws from noise: one chain per draw goes down the ladder, with k steps on each rung.

        Args:
            ebm: the learnt model, whose input `level` may have any value.
            kernel: the kernel, by default as in contrastive divergence.
            key: a `jax.random.key`.
            k: the number of steps per rung.
            chains: the number of draws.

        Returns:
            The draws of the data's distribution, with the draws on the first axis.

        Raises:
            ValueError: there is no ladder, because `level` is not given; draw by `energydsl.sample`
                instead.
        """
        check_ebm(ebm, "Noisy.draw")
        check_key(key, "Noisy.draw", ebm)
        if self.level is None:
            raise ValueError(
                "Noisy.draw goes down a ladder of levels, and this start has none, as level=None: "
                "the energy is that of the data. Use ed.sample(ebm, key=key)."
            )
        self.check(ebm, chains)
        target = self.conditional(ebm)
        kernel = cheapest(target) if kernel is None else kernel
        check_covered(target, kernel)
        return _descended(self, ebm, target, kernel.ensemble(target), k, chains, key)

    def _rungs(self) -> tuple[Array, Array]:
        """The lower level and the noise of each rung."""
        levels = np.asarray(self.levels)
        if self.level is None:
            return jnp.zeros(len(levels)), jnp.asarray(levels, float)
        lows = np.concatenate([[0.0], levels[:-1]])
        return jnp.asarray(lows, float), jnp.asarray(np.sqrt(levels**2 - lows**2), float)

    def _inputs(self, ebm: EBM, noisy: Configuration, low: Array, width: Array) -> Configuration:
        """The inputs of `conditional`. At clamped sites u is x itself."""
        inputs = {}
        for v in _moving(ebm):
            held = ebm.structure.skeleton.mask(v)
            inputs[centre(v).name] = jnp.where(held, 0.0, noisy[v.name])
            inputs[spread(v).name] = jnp.where(held, 1.0, width)
        return inputs if self.level is None else inputs | {self.level: low}


@eqx.filter_jit
def _descended(
    start: Noisy,
    ebm: EBM,
    target: EBM,
    ensemble: AbstractEnsemble,
    k: int,
    chains: int,
    key: Array,
) -> Configuration:
    lows, widths = start._rungs()
    first_key, key = jr.split(key)
    origin = {v.name: jnp.zeros((chains, *v.shape)) for v in _moving(ebm)}
    xs = _plus(origin, jnp.asarray(start.levels[-1]), first_key)

    def rung(xs: Configuration, at: tuple[Array, Array, Array]) -> tuple[Configuration, None]:
        low, width, rung_key = at

        def one(x: Configuration, key: Array) -> Configuration:
            given = target.given(start._inputs(ebm, x, low, width))
            return start.recovered(Walkers(given, ensemble, 1), k, key=key)[0]

        return jax.vmap(one)(xs, jr.split(rung_key, chains)), None

    keys = jr.split(key, len(start.levels))
    return lax.scan(rung, xs, (lows, widths, keys), reverse=True)[0]


def _moving(ebm: EBM) -> tuple[Variable, ...]:
    """The variables to which noise is added."""
    return tuple(ebm.structure.skeleton.free)


def _plus(x: Configuration, scale: Array, key: Array) -> Configuration:
    """Values with independent normal noise of this standard deviation."""
    keys = jr.split(key, len(x))
    return {n: a + scale * jr.normal(k, a.shape) for (n, a), k in zip(x.items(), keys, strict=True)}
