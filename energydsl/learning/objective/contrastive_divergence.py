"""Contrastive divergence: the energy of data against that of samples by a short chain."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal

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
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.kernel.choose import cheapest
from energydsl.learning.divergence import LossKind
from energydsl.learning.latent import draw_latents, latent, slope_energy, visible
from energydsl.learning.objective.base import AbstractObjective
from energydsl.learning.shown import hidden_given, masks_of

CHAINS = 100
"""The default number of chains."""


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
        kernel: the kernel that moves the chains, with fixed settings (there is no warmup); by
            default the applicable one with the cheapest steps, such as Gibbs or Langevin.
        start: where the chains of each step begin: ``"data"``, at the batch (CD);
            ``"persistent"``, where the previous step left them (persistent CD); or ``"noise"``,
            at random configurations.
        chains: the number of chains, 100 by default; with ``start="data"``, one per example. If the
            examples have inputs, each example has this number of chains, by default one.
        settle: the number of steps of the kernel that draw latents and missing entries given the
            data, if they cannot be drawn in closed form.

    Source: Hinton (2002), Neural Computation 14(8), 1771-1800; persistent: Tieleman (2008),
    ICML, 1064-1071; from noise: Nijkamp et al. (2019), NeurIPS 32.
    """

    missing_entries: ClassVar[bool] = True
    loss_kind: ClassVar[LossKind] = "difference"

    k: int = 1
    kernel: AbstractKernel | None = None
    start: Literal["data", "persistent", "noise"] = "data"
    chains: int | None = None
    settle: int = 10

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
        if self.start not in ("data", "persistent", "noise"):
            raise ValueError(
                f"ContrastiveDivergence got start={self.start!r}; expected 'data', 'persistent' "
                "or 'noise'."
            )
        if self.start == "data" and self.chains is not None:
            raise ValueError(
                f"ContrastiveDivergence got chains={self.chains} with start='data', which has one "
                "chain per example; leave chains out, or give batch= to fit."
            )

    def of_one_example(self) -> ContrastiveDivergence:
        if self.start == "persistent":
            raise TypeError(
                "ContrastiveDivergence got start='persistent' and data with inputs: the chains "
                "would pass from the distribution of one example to that of another. Use "
                "start='data' or 'noise'."
            )
        return dataclasses.replace(self, chains=None if self.start == "data" else self.chains or 1)

    def check(self, ebm: EBM, data: Configuration) -> None:
        if self.kernel is not None and not isinstance(self.kernel, AbstractKernel):
            raise TypeError(
                f"ContrastiveDivergence got the kernel {brief(self.kernel)}; expected one such as "
                "ed.Gibbs()."
            )
        check_covered(ebm, self._moving(ebm))
        shown, masks = masks_of(ebm, jax.tree.map(lambda a: a[0], data))
        wrong = no_law(ebm.structure, ebm.model, {**ebm.start(key=jr.key(0)), **shown})
        if wrong is not None:
            raise ValueError(
                "ContrastiveDivergence needs a distribution to draw from, but at the first "
                f"example {wrong}. Start from parameters for which it exists."
            )
        if masks or isinstance(latent_layer(ebm.structure), Refusal):
            rest = hidden_given(ebm, shown, masks)
            check_covered(rest, self._moving(rest))

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> Any:
        return self._random(ebm, key) if self.start == "persistent" else None

    def loss(
        self, ebm: EBM, batch: Configuration, state: Any, *, key: Array
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        still, layer = _frozen(ebm), latent_layer(ebm.structure)
        batch, masks = masks_of(ebm, batch)
        if masks:
            layer = Refusal("entries of the data are missing")
        exact = not isinstance(layer, Refusal)
        energy = partial(slope_energy, ebm, layer) if exact else ebm.energy
        filled, ensemble, carry = batch, self._ensemble(still), state
        if self.start == "persistent":
            carry = ensemble.refresh(still, carry)
        # A key is split only if needed: in a small model that costs as much as a layer.
        if not exact or self.start != "persistent":
            key, clamp_key, start_key = jr.split(key, 3)
            if not exact or self.start == "data":
                filled = self._filled(still, layer, batch, masks, clamp_key)
            if self.start == "data":
                carry = ensemble.start(still, filled, key=start_key, warmup=0)
            elif self.start == "noise":
                carry = self._random(still, start_key)
        carry, info = _advance(
            still, ensemble, carry, jr.split(key, self.k) if self.k > 1 else key[None]
        )
        samples = ensemble.configurations(still, carry)

        names = [v.name for v in visible(ebm)] if exact else list(samples)
        ups = jax.vmap(energy)({n: filled[n] for n in names})
        downs = jax.vmap(energy)(lax.stop_gradient({n: samples[n] for n in names}))
        state = carry if self.start == "persistent" else None
        return jnp.mean(ups) - jnp.mean(downs), (state, info)

    def _moving(self, ebm: EBM) -> AbstractKernel:
        return cheapest(ebm) if self.kernel is None else self.kernel

    def _ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return self._moving(ebm).ensemble(ebm)

    def _random(self, ebm: EBM, key: Array) -> Any:
        """Chains at random configurations, in the ensemble's representation."""
        place_key, start_key = jr.split(key)
        xs = jax.vmap(lambda k: ebm.start(key=k))(jr.split(place_key, self.chains or CHAINS))
        return self._ensemble(ebm).start(ebm, xs, key=start_key, warmup=0)

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

        size = len(next(iter(batch.values())))
        return jax.vmap(one)(batch, masks, jr.split(key, size))


def _frozen(ebm: EBM) -> EBM:
    """The same EBM, with gradients stopped."""
    return jax.tree.map(lambda a: lax.stop_gradient(a) if eqx.is_array(a) else a, ebm)


def _advance(
    ebm: EBM, ensemble: AbstractEnsemble, carry: Any, keys: Array
) -> tuple[Any, dict[str, Array]]:
    """One step per key; returns the chains and the last step's statistics, averaged over chains."""
    tables = ensemble.load(ebm)

    def step(carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        return ensemble.advance(ebm, tables, carry, key=key)

    carry, _ = lax.scan(step, carry, keys[:-1])
    carry, info = step(carry, keys[-1])
    return carry, {n: jnp.mean(a) for n, a in info.items()}
