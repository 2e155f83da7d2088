"""Properties of a model that depend on the present values of its parameters and evidence.

Factors are evaluated in float64 at the levels of their free sites. The answers are sound: True is
proven for these values, without a tolerance, while False may mean that it could not be shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energydsl.analysis.evaluation import argument, as_double, batched
from energydsl.analysis.factor import Factor, Sites
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model

MAX_TERMS = 2**26
"""The most energies of factors that are evaluated to show that a batch has no field."""

RAYED, RAYS, MAX_RAYED = 8, 4, 100_000
"""The number of components whose energy growth is tested, the number of rays for each, and the most
sites of a model for which this is done."""

NEAR_FAR = (1e6, 1e12)
"""The two distances from the origin between which the growth of the energy is measured."""


def is_attractive(structure: Structure, model: Model) -> bool:
    r"""Whether all couplings are attractive, so that the energy is submodular.

    This means $\theta(0, 0) + \theta(1, 1) \le \theta(0, 1) + \theta(1, 0)$ for the two levels
    0 < 1 of each site, where $\theta$ is the sum of all factors of the same pair. Graph cuts and
    monotone coupling need it.

    Returns:
        False also if a free site does not have two levels, or a factor has more than two free
        sites.
    """
    if not _is_two_level(structure) or not structure.pairwise or not model.numeric:
        return False
    codes, tables = [np.zeros(0, np.int64)], [np.zeros((4, 0))]
    with jax.enable_x64(True):
        for batch in _batches(structure, model):
            pairs = batch.counts == 2
            if pairs.any():
                first, last = batch.ends
                codes.append((first.astype(np.int64) * structure.sites + last)[pairs])
                tables.append(np.stack([batch.energies(t)[pairs] for t in range(4)]))
    pairs, number = np.unique(np.concatenate(codes), return_inverse=True)
    theta = [np.bincount(number, t, len(pairs)) for t in np.concatenate(tables, axis=1)]
    return bool((theta[0] + theta[3] <= theta[1] + theta[2]).all())


def has_zero_field(structure: Structure, model: Model) -> bool:
    """Whether exchanging the two levels of all free sites at once leaves every factor unchanged.

    Returns:
        False also if a free site does not have two levels, if the fields of several factors cancel
        only in their sum, or if a factor has too many sites to test.
    """
    if not _is_two_level(structure) or not model.numeric:
        return False
    with jax.enable_x64(True):
        return all(batch.is_even() for batch in _batches(structure, model))


def no_growth(structure: Structure, model: Model) -> str | None:
    r"""A message if exp(-E) is found to have no finite integral; None if that is not found.

    The n real sites of a component are moved along random rays, $x = r u$, with the other sites at
    random values. The integral over them is finite only if E grows faster than $n \log r$. The
    growth is measured from r = 10^6 to 10^12, in float64, in the `RAYED` largest components.
    """
    real = structure.of_variables(v.name for v in structure.variables if v.domain.real_line)
    real &= structure.free
    if not real.any() or structure.sites > MAX_RAYED or not model.numeric:
        return None
    sizes = np.bincount(structure.component_of[real], minlength=1)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        energy = jax.jit(_along(structure, as_double(model)))
        for component in np.argsort(-sizes, kind="stable")[:RAYED]:
            inside = real & (structure.component_of == component)
            for k in range(RAYS if inside.any() else 0):
                ray = (-1) ** k * np.where(inside, rng.normal(size=structure.sites), 0.0)
                near, far = (float(energy(jnp.asarray(r * ray))) for r in NEAR_FAR)
                growth = (far - near) / np.log(NEAR_FAR[1] / NEAR_FAR[0])
                # NaN, if both are infinite, compares as False: nothing is concluded.
                if far == -np.inf or growth <= inside.sum():
                    site = structure.describe(int(np.argmax(inside)))
                    return (
                        f"the energy does not grow far out along {site} and the sites connected "
                        "to it, so exp(-E) has no finite integral; a term such as "
                        "0.01 * (x @ x) would make it finite"
                    )
    return None


def _along(structure: Structure, model: Model) -> Callable[[jax.Array], jax.Array]:
    """The energy as a function of a shift of all real sites from a random start."""
    free = structure.skeleton.free
    keys = jax.random.split(jax.random.key(0), len(free))
    start = {v.name: v.domain.start(v.shape, key=k) for v, k in zip(free, keys, strict=True)}

    def energy(shift: jax.Array) -> jax.Array:
        x = {
            v.name: start[v.name] + shift[structure.offset[v.name] :][: v.size].reshape(v.shape)
            if v.domain.real_line
            else start[v.name]
            for v in free
        }
        return model.energy(x)

    return energy


class _Batch:
    """A batch of factors as functions of their free sites' levels."""

    def __init__(self, structure: Structure, env: Any, factor: Factor) -> None:
        self.env = env
        self.factor = factor
        scope = structure.scope(factor)
        free = structure.free[scope]
        self.ends = (
            np.where(free, scope, structure.sites).min(axis=1, initial=structure.sites),
            np.where(free, scope, -1).max(axis=1, initial=-1),
        )
        self.ranks, self.counts = _ranks(np.where(free, scope, -1))

    def energies(self, t: int) -> np.ndarray:
        """The energy of each factor whose r-th free site has the level given by bit r of t."""
        values, column = [], 0
        for leaf in self.factor.leaves:
            value = argument(leaf, getattr(leaf, "index", None), self.env)
            if isinstance(leaf, Sites):
                width = leaf.index[0].size
                rank = self.ranks[:, column : column + width].reshape(leaf.index.shape)
                column += width
                if (rank >= 0).any():
                    levels = jnp.asarray(leaf.variable.domain.values, value.dtype)
                    value = jnp.where(rank < 0, value, levels[(t >> np.maximum(rank, 0)) & 1])
            values.append(value)
        return np.asarray(batched(self.factor)(*values))

    def is_even(self) -> bool:
        """Whether no energy changes when the levels of all free sites are exchanged."""
        width = int(self.counts.max())
        if width == 0:
            return True
        if self.factor.size * 2.0**width > MAX_TERMS:
            return False
        flip = 2**width - 1
        return all(
            np.array_equal(self.energies(t), self.energies(t ^ flip))
            for t in range(2 ** (width - 1))
        )


def _ranks(scope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each entry among the distinct sites of its row, and the number of these.

    An entry of -1 has rank -1 and is not counted.
    """
    order = np.argsort(scope, axis=1, kind="stable")
    rising = np.diff(np.take_along_axis(scope, order, axis=1), axis=1, prepend=-1) > 0
    ranks = np.empty_like(scope)
    np.put_along_axis(ranks, order, np.cumsum(rising, axis=1, dtype=scope.dtype) - 1, axis=1)
    return ranks, rising.sum(axis=1)


def _batches(structure: Structure, model: Model) -> list[_Batch]:
    model = as_double(model)
    env = model.environment(model.blank())
    return [_Batch(structure, env, f) for f in structure.factors if f.sites]


def _is_two_level(structure: Structure) -> bool:
    return bool((structure.levels[structure.free] == 2).all())
