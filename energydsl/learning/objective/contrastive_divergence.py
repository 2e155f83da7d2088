"""Contrastive divergence: the energy of data against that of samples by a short chain."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration, Refusal
from energydsl.analysis.incidence import no_law
from energydsl.analysis.layer import IndependentSites, latent_layer
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractKernel, check_covered
from energydsl.kernel.choose import cheapest
from energydsl.learning.divergence import LossKind
from energydsl.learning.guide import check_guide, compiled, evidence_bound, route_of
from energydsl.learning.latent import draw_latents, frozen, latent, slope_energy, visible
from energydsl.learning.objective.base import AbstractObjective
from energydsl.learning.shown import hidden_given, masks_of
from energydsl.learning.start import AbstractStart, AtExamples, Noisy, Walkers, start_of

CHAINS = 100
"""The default number of chains."""

FOREVER = 2**31 - 1
"""A warmup that outlasts learning."""


def _maybe_compiled(guide: object) -> EBM | None:
    return None if guide is None else compiled(guide)


class _Tuning(NamedTuple):
    """The state where a kernel adapts: that of the start, and chains with adapted settings."""

    kept: Any
    carry: Any


@described
class ContrastiveDivergence(AbstractObjective):
    r"""Contrastive divergence: the loss $\overline{F(v)} - \overline{F(\tilde v)}$.

    It is the mean free energy of data minus that of samples $\tilde v$ by a kernel. Its gradient is
    that of minus the log-likelihood if the samples are distributed as the model. If the latents are
    independent given the data, as in an RBM, $F$ sums them out, and the gradient of the data's term
    is exact. Otherwise, or if entries of the data are missing, both terms use the energy, and the
    kernel draws what is not shown while the rest is clamped. The loss is not a likelihood and may
    have any sign.

    Args:
        k: the number of steps of the kernel per step of learning.
        kernel: the kernel that moves the chains; by default the applicable one with the cheapest
            steps, such as Gibbs or Langevin.
        start: where the chains of each step begin: ``"data"``, at the batch (CD);
            ``"persistent"``, where the previous step left them (persistent CD); ``"noise"``, at
            random configurations; `energydsl.Buffer`, at entries of a replay buffer;
            `energydsl.Noisy`, at noisy data (recovery likelihood); or at draws from NumPyro
            distributions, one or a dict of them by name, or from an EBM with exact draws.
        chains: the number of chains, 100 by default; with ``start="data"`` or `energydsl.Noisy`,
            one per example. If the examples have inputs, each example has this number of chains, by
            default one.
        settle: the number of steps of the kernel that draw latents and missing entries given the
            data, if they cannot be drawn in closed form.
        penalty: $\alpha \geq 0$; the loss has the additional term $\alpha \,
            (\overline{F(v)^2} + \overline{F(\tilde v)^2})$, which keeps the energies of a network
            near 0. It pulls the model away from the most likely one.
        guide: a model of the latents with the data as inputs, as in `energydsl.Variational`. The
            free energy of data is then replaced by the guide's bound,
            $\mathbb{E}_q[E(v, z) + \log q(z \mid v)]$, and the guide learns beside the model;
            ``history.guide`` is the one that was learnt. With independent spins or bits this is
            mean field for the data and chains for log Z, as deep Boltzmann machines are learnt
            (Salakhutdinov & Hinton 2009). For starts that are not at the data.
        tune: whether the kernel adapts its settings, such as the step size of `energydsl.Langevin`
            with its Metropolis test or of `energydsl.NUTS`, as it does in warmup. It never ends,
            because the distribution changes as long as learning lasts; the rate of adaptation
            decays. As a chain's steps then depend on its past, samples are biased a little. Without
            it, settings stay as given. A kernel that does not adapt is not affected, such as
            Langevin without the test. Not for chains that begin at the data.

    Source: Hinton (2002), Neural Computation 14(8), 1771-1800; persistent: Tieleman (2008),
    ICML, 1064-1071; from noise: Nijkamp et al. (2019), NeurIPS 32; the penalty: Du & Mordatch
    (2019), NeurIPS 32, section 3.3.
    """

    learns: ClassVar[tuple[str, ...]] = ("guide",)
    missing_entries: ClassVar[bool] = True
    loss_kind: ClassVar[LossKind] = "difference"

    k: int = 1
    kernel: AbstractKernel | None = None
    start: AbstractStart = eqx.field(default_factory=AtExamples, converter=start_of)
    chains: int | None = None
    settle: int = 10
    guide: EBM | None = eqx.field(default=None, converter=_maybe_compiled)
    penalty: float = eqx.field(default=0.0, converter=float)
    tune: bool = False

    def __check_init__(self) -> None:
        for name in ("k", "chains", "settle"):
            value = getattr(self, name)
            if not (name == "chains" and value is None) and not (
                isinstance(value, int) and value >= 1
            ):
                raise ValueError(
                    f"ContrastiveDivergence got {name}={value!r}; expected a whole number of at "
                    "least 1."
                )
        if not 0 <= self.penalty < float("inf"):
            raise ValueError(
                f"ContrastiveDivergence got penalty={self.penalty}; expected a finite number of at "
                "least 0."
            )
        if self.start.at_examples and self.chains is not None:
            raise ValueError(
                f"ContrastiveDivergence got chains={self.chains} with a start at the data, which "
                "has one chain per example; leave chains out, or give batch= to fit."
            )
        if self.start.at_examples and self.guide is not None:
            raise ValueError(
                "ContrastiveDivergence got a guide and a start at the data; the guide stands for "
                "the latents of data, so let the chains begin elsewhere: start='persistent'."
            )
        if self.start.at_examples and self.tune:
            raise ValueError(
                "ContrastiveDivergence got tune=True with a start at the data, whose chains last "
                "for one step of learning; give the kernel its settings, or use "
                "start='persistent'."
            )

    def of_one_example(self) -> ContrastiveDivergence:
        if self.tune:
            raise TypeError(
                "ContrastiveDivergence got tune=True and data with inputs: what is adapted to the "
                "distribution of one example would serve that of another. Leave tune out."
            )
        start = self.start.of_one_example()
        chains = None if start.at_examples else self.chains or 1
        return dataclasses.replace(self, start=start, chains=chains)

    def _check_guide(self, ebm: EBM, guide: EBM, masks: Configuration) -> None:
        check_guide(ebm, guide)
        if masks:
            raise TypeError(
                f"ContrastiveDivergence got a guide, which is given whole examples, and entries of "
                f"{list(masks)} are missing. Leave guide out."
            )
        if route_of(ebm, guide) == "scores":
            raise ValueError(
                "ContrastiveDivergence needs a guide of independent bits or spins in which the "
                "energy is linear, or one with differentiable draws, such as of Normal densities."
            )

    def check(self, ebm: EBM, data: Configuration) -> None:
        if self.kernel is not None and not isinstance(self.kernel, AbstractKernel):
            raise TypeError(
                f"ContrastiveDivergence got the kernel {brief(self.kernel)}; expected one such as "
                "ed.Gibbs()."
            )
        self.start.check(ebm, self._count(data))
        shown, masks = masks_of(ebm, jax.tree.map(lambda a: a[0], data))
        if isinstance(self.start, Noisy):
            if masks:
                raise TypeError(
                    f"Noisy adds noise to whole examples, and entries of {list(masks)} are "
                    "missing. Use start='data', 'persistent' or 'noise'."
                )
            ebm, shown = _noisy_example(self.start, ebm, shown)
        if self.guide is not None:
            self._check_guide(ebm, self.guide, masks)
        check_covered(ebm, self._moving(ebm))
        wrong = no_law(ebm.structure, ebm.model, {**ebm.start(key=jr.key(0)), **shown})
        if wrong is not None:
            raise ValueError(
                "ContrastiveDivergence needs a distribution to draw from, but at the first "
                f"example {wrong}. Start from parameters for which it exists."
            )
        if masks or (isinstance(latent_layer(ebm.structure), Refusal) and self.guide is None):
            rest = hidden_given(ebm, shown, masks)
            check_covered(rest, self._moving(rest))

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> Any:
        if isinstance(self.start, Noisy):
            return None
        walkers = self._walkers(ebm, data)
        if not self.tune:
            return self.start.init(walkers, key=key)
        key, begin_key = jr.split(key)
        return _Tuning(self.start.init(walkers, key=key), walkers.anew(key=begin_key))

    def loss(
        self, ebm: EBM, batch: Configuration, state: Any, *, key: Array
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        if isinstance(self.start, Noisy):
            ups, downs, info = self._recovery(self.start, ebm, batch, key)
        else:
            ups, downs, state, info = self._divergence(ebm, batch, state, key)
        value = jnp.mean(ups) - jnp.mean(downs)
        if self.penalty:
            value += self.penalty * (jnp.mean(ups**2) + jnp.mean(downs**2))
        return value, (state, info)

    def _divergence(
        self, ebm: EBM, batch: Configuration, state: Any, key: Array
    ) -> tuple[Array, Array, Any, dict[str, Array]]:
        """The energies of the batch and of the samples, the new state, and statistics."""
        layer = latent_layer(ebm.structure)
        batch, masks = masks_of(ebm, batch)
        if masks:
            layer = Refusal("entries of the data are missing")
        exact = not isinstance(layer, Refusal)
        energy = partial(slope_energy, ebm, layer) if exact else ebm.energy
        walkers = self._walkers(frozen(ebm), batch)
        if isinstance(state, _Tuning):
            walkers, state = dataclasses.replace(walkers, adapted=state.carry), state.kept
        filled, begin_key = batch, key
        # A key is split only if needed: in a small model that costs as much as a layer.
        if not exact or self.start.draws:
            key, clamp_key, begin_key = jr.split(key, 3)
            if self.start.at_examples or not (exact or self.guide is not None):
                filled = self._filled(walkers.ebm, layer, batch, masks, clamp_key)
        examples = filled if self.start.at_examples else {}
        carry, begun = self.start.begin(walkers, state, examples, key=begin_key)
        carry, info = walkers.advanced(carry, self.k, key=key)
        samples = walkers.configurations(carry)
        state = self.start.keep(walkers, state, begun, carry)
        state = _Tuning(state, carry) if self.tune else state

        names = [v.name for v in visible(ebm)] if exact else list(samples)
        if self.guide is None:
            ups = jax.vmap(energy)({n: filled[n] for n in names})
        else:
            keys = jr.split(jr.fold_in(key, 1), _size(batch))
            bound = partial(evidence_bound, ebm, self.guide)
            ups = -jax.vmap(lambda v, k: bound(v, key=k))(batch, keys)
        downs = jax.vmap(energy)(lax.stop_gradient({n: samples[n] for n in names}))
        return ups, downs, state, info

    def _recovery(
        self, start: Noisy, ebm: EBM, batch: Configuration, key: Array
    ) -> tuple[Array, Array, dict[str, Array]]:
        """The energies of examples and of what chains recover from their noisy versions."""
        target = frozen(start.conditional(ebm))
        ensemble = self._moving(target).ensemble(target)

        def one(x: Configuration, key: Array) -> tuple[Array, Array, dict[str, Array]]:
            noise_key, chain_key = jr.split(key)
            clean, inputs = start.at_a_rung(ebm, x, key=noise_key)
            walkers = Walkers(target.given(inputs), ensemble, 1)
            found, info = start.recovered(walkers, self.k, key=chain_key)
            own = start.at_level(ebm, inputs)
            return own.energy(clean), own.energy(lax.stop_gradient(found)), info

        ups, downs, info = jax.vmap(one)(batch, jr.split(key, _size(batch)))
        return ups, downs, {n: jnp.mean(a) for n, a in info.items()}

    def _moving(self, ebm: EBM) -> AbstractKernel:
        return cheapest(ebm) if self.kernel is None else self.kernel

    def _count(self, batch: Configuration) -> int:
        return _size(batch) if self.start.at_examples else self.chains or CHAINS

    def _walkers(self, ebm: EBM, batch: Configuration) -> Walkers:
        warmup = FOREVER if self.tune else 0
        return Walkers(ebm, self._moving(ebm).ensemble(ebm), self._count(batch), warmup)

    def _filled(
        self,
        ebm: EBM,
        layer: IndependentSites | Refusal,
        batch: Configuration,
        masks: Configuration,
        key: Array,
    ) -> Configuration:
        """The batch with what it does not show, drawn given what it shows."""
        if not latent(ebm) and not masks:
            return jax.vmap(lambda v: ebm.model.placed(v))(batch)

        def settle(v: Configuration, masks: Configuration, key: Array) -> Configuration:
            rest = hidden_given(ebm, v, masks)
            kernel = self._moving(rest)
            keys = jr.split(key, self.settle + 2)
            x = rest.start(key=keys[0])
            x |= {n: jnp.where(mask, v[n], x[n]) for n, mask in masks.items()}
            state = kernel.init(rest, x, key=keys[1], warmup=0)

            def step(carry: Any, key: Array) -> tuple[Any, None]:
                x, state, _ = kernel.step(rest, *carry, key=key)
                return (x, state), None

            x = lax.scan(step, (x, state), keys[2:])[0][0]
            return v | x | {n: jnp.where(mask, v[n], x[n]) for n, mask in masks.items()}

        def one(v: Configuration, masks: Configuration, key: Array) -> Configuration:
            if isinstance(layer, Refusal):
                return ebm.model.placed(settle(v, masks, key))
            return ebm.model.placed({**v, **draw_latents(ebm, layer, v, key=key)})

        return jax.vmap(one)(batch, masks, jr.split(key, _size(batch)))


def _noisy_example(start: Noisy, ebm: EBM, x: Configuration) -> tuple[EBM, Configuration]:
    """The EBM of a chain that recovers an example, and where the chain begins."""
    target = start.conditional(ebm)
    _, inputs = start.at_a_rung(ebm, x, key=jr.key(0))
    return target.given(inputs), {n: jnp.zeros_like(a) for n, a in x.items()}


def _size(batch: Configuration) -> int:
    return len(next(iter(batch.values())))
