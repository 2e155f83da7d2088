r"""Linear maps of the noise and the drift of a kernel, which make up for unequal scales.

A metric G is a constant positive definite matrix, or its diagonal. Coordinates $z = U w$ with
$U U^\top = G^{-1}$ have equal scales in all directions if $G^{-1}$ is the covariance of z. A step
in w is the step in z that is preconditioned by $G^{-1}$.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer.hmc_util import IntegratorState, warmup_adapter

from energydsl._messages import brief
from energydsl.kernel.tuning import Scheduled, Tuned

ADAPTED = "diagonal", "dense"
"""The metrics that warmup adapts."""


class Fixed(eqx.Module):
    """A step size, which may be adapted, and a constant map U; None is the identity."""

    pace: Tuned | Scheduled
    root: Array | None

    @property
    def value(self) -> Array:
        """The present step size."""
        return self.pace.value

    def learn(self, accept: Array, target: float, z: Array) -> Fixed:
        """The state after a step to z that was accepted with the probability `accept`."""
        return Fixed(self.pace.learn(accept, target), self.root)


class Windowed(eqx.Module):
    """A step size and a map that are both adapted in the windows of warmup, as by NUTS.

    Source: Stan Reference Manual, section "Automatic parameter tuning".
    """

    adaptation: Any
    steps: Array
    dense: bool = eqx.field(static=True)
    warmup: int = eqx.field(static=True)

    @staticmethod
    def begin(value: float, z: Array, dense: bool, warmup: int, key: Array) -> Windowed:
        """The initial state at the point z, with `warmup` steps of adaptation."""
        start, _ = warmup_adapter(warmup, dense_mass=dense)
        first: Any = jnp.asarray(value, float)
        adaptation = start(_info(z), key, first, mass_matrix_size=z.size)
        return Windowed(adaptation, jnp.asarray(0), dense, warmup)

    @property
    def value(self) -> Array:
        """The present step size."""
        return self.adaptation.step_size

    @property
    def root(self) -> Array:
        """The present map U."""
        root = self.adaptation.mass_matrix_sqrt_inv
        return root.T if self.dense else root

    def learn(self, accept: Array, target: float, z: Array) -> Windowed:
        """The state after a step to z that was accepted with the probability `accept`."""
        _, update = warmup_adapter(self.warmup, dense_mass=self.dense, target_accept_prob=target)
        new = update(self.steps, accept, _info(z), self.adaptation)
        learning = self.steps < self.warmup
        kept = jax.tree.map(lambda a, b: jnp.where(learning, a, b), new, self.adaptation)
        return Windowed(kept, self.steps + 1, self.dense, self.warmup)


def outwards(root: Array | None, w: Array) -> Array:
    """U w."""
    if root is None:
        return w
    return root * w if root.ndim == 1 else root @ w


def inwards(root: Array | None, slope: Array) -> Array:
    r"""$U^\top \nabla U(z)$: the gradient in w of a function of z."""
    if root is None:
        return slope
    return root * slope if root.ndim == 1 else root.T @ slope


def checked(metric: Any) -> Any:
    """A metric as it is stored: None, one of the words, or an array of floats.

    Raises:
        ValueError: it is none of these, or not positive definite.
    """
    if metric is None or (isinstance(metric, str) and metric in ADAPTED):
        return metric
    expected = "expected a positive definite matrix, its diagonal, 'diagonal', 'dense' or None"
    try:
        array = np.asarray(metric, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"A metric is {brief(metric)}; {expected}.") from None
    if array.ndim == 1:
        good = bool(np.all(array > 0) and np.all(np.isfinite(array)))
    else:
        good = array.ndim == 2 and array.shape[0] == array.shape[1] and _is_definite(array)
    if not good:
        raise ValueError(f"A metric is {brief(metric)}; {expected}.")
    return jnp.asarray(array, float)


def root_of(metric: Array | None, size: int) -> Array | None:
    """The map U of a constant metric.

    Raises:
        ValueError: it does not have the size of the coordinates.
    """
    if metric is None:
        return None
    if metric.shape[0] != size:
        raise ValueError(
            f"A metric of shape {metric.shape} was given for {size} unconstrained coordinates; "
            f"expected ({size},) or ({size}, {size}). A simplex has one less than it has entries."
        )
    if metric.ndim == 1:
        return 1 / jnp.sqrt(metric)
    lower = jnp.linalg.cholesky(metric)
    return jax.scipy.linalg.solve_triangular(lower, jnp.eye(size), lower=True).T


def _is_definite(matrix: np.ndarray) -> bool:
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T):
        return False
    return bool(np.linalg.eigvalsh(matrix).min() > 0)


def _info(z: Array) -> IntegratorState:
    return IntegratorState(z, None, jnp.zeros(()), jnp.zeros_like(z))
