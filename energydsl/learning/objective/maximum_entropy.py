"""Maximum entropy: the distribution of highest entropy whose moments are those that are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.analysis.degree import degrees
from energydsl.compiler.ebm import EBM, check_ebm, log_partition
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.kernel.choose import cheapest
from energydsl.learning.latent import latent
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit
from energydsl.normalizer import Intractable

Values = dict[str, Any]
"""The values of the parameters that are learnt, by name."""


def _as_moments(given: Any) -> dict[str, Any] | None:
    """The moments as arrays that learning leaves alone."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(
            f"MaximumEntropy got the moments {brief(given)}; expected them by the parameters' "
            'names, such as {"theta": 4.5}. Examples are data: '
            "ed.fit(ebm, ed.MaximumEntropy(), examples, key=key)."
        )
    for name, value in given.items():
        if not np.isfinite(np.asarray(value, float)).all():
            raise ValueError(f"MaximumEntropy got moments of {name!r} that are not finite.")
    return {name: paramax.NonTrainable(jnp.asarray(v, float)) for name, v in given.items()}


@described
class MaximumEntropy(AbstractObjective):
    r"""Maximum entropy: of all distributions with given moments, the one of highest entropy.

    It has the energy $E_0(x) + \theta \cdot f(x)$, linear in its parameters; if $E_0$ is not
    constant, the entropy is that relative to $e^{-E_0}$. The moments are the means of the slopes
    $\partial E / \partial \theta = f$, and learning makes those of the model equal to those that
    are wanted, m. Where log Z is exact the loss is the dual $\theta \cdot m + \log Z$, which is
    convex; if $E_0$ is 0, its minimum is the highest entropy in nats. Elsewhere the model's moments
    are means over chains that go on from step to step; the loss then has the same gradient,
    $m - \overline f$, and its value is the gap.

    The history has ``gap``, the largest difference between a moment of the model and the wanted
    one. If no distribution has the wanted moments, the parameters grow without bound, and the gap
    does not go to 0.

    Args:
        moments: m, an array for each parameter by name, such as ``{"theta": 4.5}``; ``fit`` then
            gets no data. If left out, they are the means over the data that ``fit`` gets: the
            moments of one example x0 are f(x0).
        kernel: the kernel that moves the chains; by default there are chains only if log Z is not
            exact, and the applicable kernel with the cheapest steps moves them.
        k: the number of steps of the kernel per step of learning.
        chains: the number of chains.

    Source: Jaynes (1957), Physical Review 106(4), 620-630; by chains and one example: Zhu, Wu &
    Mumford (1998), International Journal of Computer Vision 27(2), 107-126.
    """

    moments: dict[str, Any] | None = eqx.field(default=None, converter=_as_moments)
    kernel: AbstractKernel | None = None
    k: int = 1
    chains: int = 100

    def __check_init__(self) -> None:
        for name in ("k", "chains"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"MaximumEntropy got {name}={value!r}; expected a whole number of at least 1."
                )

    @property
    def needs_data(self) -> bool:
        return self.moments is None

    def of_one_example(self) -> AbstractObjective:
        raise DoesNotFit(
            "MaximumEntropy matches the moments of one distribution, and given inputs every "
            "example has its own."
        )

    def check(self, ebm: EBM, data: Configuration) -> None:
        check_ebm(ebm, "fit")
        self._check_linear(ebm)
        if self.moments is None:
            hidden = [w.name for w in latent(ebm)]
            if hidden:
                raise DoesNotFit(
                    f"MaximumEntropy needs the moments of all variables, and data do not show "
                    f"{hidden}."
                )
        else:
            self._check_moments(ebm, self.moments)
        if self._by_chains(ebm):
            check_covered(ebm, self._kernel(ebm))

    def _check_linear(self, ebm: EBM) -> None:
        x = jax.eval_shape(lambda: ebm.start(key=jr.key(0)))
        found = degrees(lambda values, x: _put(ebm, values).energy(x), [_values(ebm), x], 1)
        if found.total > 1:
            raise DoesNotFit(
                "MaximumEntropy needs an energy that is linear in its parameters, and this one is "
                f"not shown to be linear in {', '.join(_values(ebm))}."
            )

    def _check_moments(self, ebm: EBM, moments: dict[str, Any]) -> None:
        values = _values(ebm)
        if set(moments) != set(values):
            raise ValueError(
                f"MaximumEntropy got moments of {sorted(moments)}; the parameters that are learnt "
                f"are {sorted(values)}. Give the mean of dE/dtheta of each, and freeze others by "
                "ed.fixed."
            )
        for name, value in values.items():
            shape = getattr(value, "shape", None)
            if moments[name].shape != shape:
                raise ValueError(
                    f"MaximumEntropy got moments of shape {moments[name].shape} of {name!r}; "
                    f"expected {shape}, the mean of the slope in each entry."
                )

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> Any:
        if not self._by_chains(ebm):
            return None
        place_key, start_key = jr.split(key)
        xs = jax.vmap(lambda k: ebm.start(key=k))(jr.split(place_key, self.chains))
        return self._ensemble(ebm).start(ebm, xs, key=start_key, warmup=0)

    def loss(
        self, ebm: EBM, batch: Configuration, state: Any, *, key: Array
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        moving = _values(ebm)
        values = lax.stop_gradient(moving)
        wanted = self.moments if self.moments is not None else _means(ebm, values, batch)
        if self._by_chains(ebm):
            state, info = self._advanced(_put(ebm, values), state, key)
            samples = self._ensemble(ebm).configurations(ebm, state)
            found, value = _means(ebm, values, lax.stop_gradient(samples)), None
        else:
            log_z, slopes = jax.value_and_grad(lambda v: log_partition(_put(ebm, v)))(values)
            found, info = jax.tree.map(jnp.negative, slopes), {}
            value = log_z + _inner(values, wanted)
        gap = lax.stop_gradient(jax.tree.map(jnp.subtract, wanted, found))
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(g)) for g in jax.tree.leaves(gap)]))
        # The gradient of the first term is the gap; its value is 0.
        loss = _inner(moving, gap) - _inner(values, gap) + (largest if value is None else value)
        return loss, (state, {"gap": largest} | info)

    def _advanced(self, ebm: EBM, carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        """The chains after k steps, and the last step's statistics, averaged over chains."""
        ensemble = self._ensemble(ebm)
        tables = ensemble.load(ebm)

        def step(carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
            return ensemble.advance(ebm, tables, carry, key=key)

        carry, info = lax.scan(step, ensemble.refresh(ebm, carry), jr.split(key, self.k))
        return carry, {n: jnp.mean(a[-1]) for n, a in info.items()}

    def _by_chains(self, ebm: EBM) -> bool:
        return self.kernel is not None or isinstance(ebm.normalizer, Intractable)

    def _kernel(self, ebm: EBM) -> AbstractKernel:
        return cheapest(ebm) if self.kernel is None else self.kernel

    def _ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return self._kernel(ebm).ensemble(ebm)


def _places(ebm: EBM) -> dict[str, int]:
    """The slots of the parameters that learning updates."""
    records = zip(ebm.model.skeleton.slots, ebm.model.learnt, strict=True)
    return {
        str(record.name): place
        for place, (record, learns) in enumerate(records)
        if any(jax.tree.leaves(learns))
    }


def _values(ebm: EBM) -> Values:
    """The values of the parameters that learning updates, after all constraints."""
    slots = {name: paramax.unwrap(ebm.model.slots[k]) for name, k in _places(ebm).items()}
    return eqx.filter(slots, eqx.is_inexact_array)


def _put(ebm: EBM, values: Values) -> EBM:
    """The EBM with these values in place of its parameters."""
    slots = list(ebm.model.slots)
    for name, place in _places(ebm).items():
        slots[place] = eqx.combine(values[name], paramax.unwrap(slots[place]))
    return eqx.tree_at(lambda e: e.model.slots, ebm, tuple(slots))


def _means(ebm: EBM, values: Values, xs: Configuration) -> Values:
    """The means of the slopes of the energy over examples."""

    def energy(values: Values) -> Array:
        return jnp.mean(jax.vmap(_put(ebm, values).energy)(xs))

    return jax.grad(energy)(values)


def _inner(a: Values, b: Values) -> Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros(()))
