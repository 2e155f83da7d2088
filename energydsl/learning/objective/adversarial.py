"""Adversarial learning: an energy and a generator of its samples, learnt together."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.divergence import LossKind
from energydsl.learning.guide import check_generator, compiled, log_weights
from energydsl.learning.latent import frozen, latent
from energydsl.learning.objective.base import AbstractObjective, DoesNotFit


@described
class Adversarial(AbstractObjective):
    r"""Contrastive learning with negatives from a generator q that learns beside the energy.

    $$\min_\theta \max_q\ \overline{E_\theta(v)} - \mathbb{E}_q[E_\theta(x)] + H(q).$$

    The energy descends on data and rises where the generator draws; the generator minimises
    $D_\text{KL}(q \Vert p)$, so that its draws follow the energy. No chains are run. At the optimum
    over q the objective is minus the log-likelihood: $-\mathbb{E}_q E + H(q)$ is a lower bound
    of $\log Z$. The history has this bound as ``log_z_bound``; its ``loss`` is the mean energy of
    data minus that of draws. The generator is a model of the same variables with exact log Z and
    exact draws, such as a flow; ``history.generator`` is the one that was learnt.

    Args:
        generator: the generator, compiled or not.
        samples: the number of draws at each step.

    Source: Kim & Bengio (2016), arXiv:1606.03439; Dai et al. (2019), NeurIPS 32, eq. (5).
    """

    learns: ClassVar[tuple[str, ...]] = ("generator",)
    loss_kind: ClassVar[LossKind] = "difference"

    generator: EBM = eqx.field(converter=compiled)
    samples: int = 100

    def __check_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise ValueError(
                f"Adversarial got samples={brief(self.samples)}; expected a whole number of at "
                "least 2."
            )

    def of_one_example(self) -> Adversarial:
        raise TypeError(
            "Adversarial got data with inputs: its generator draws from one distribution, and "
            "every example has its own. Use ContrastiveDivergence()."
        )

    def check(self, ebm: EBM, data: Configuration) -> None:
        if hidden := [w.name for w in latent(ebm)]:
            raise DoesNotFit(
                f"Adversarial compares energies of what data show, and they do not show {hidden}."
            )
        check_generator(ebm, self.generator)

    def init(self, ebm: EBM, data: Configuration, *, key: Array) -> None:
        return None

    def loss(
        self, ebm: EBM, batch: Configuration, state: None, *, key: Array
    ) -> tuple[Array, tuple[None, dict[str, Array]]]:
        drawn = log_weights(frozen(ebm), self.generator, {}, self.samples, key=key)
        bound = drawn.bound()
        negatives = lax.stop_gradient(drawn.values)
        ups, downs = (jnp.mean(jax.vmap(ebm.energy)(x)) for x in (batch, negatives))
        # The value is the difference; of the bound, only the gradient in the generator counts.
        value = ups - downs - bound + lax.stop_gradient(bound)
        return value, (None, {"log_z_bound": bound})
