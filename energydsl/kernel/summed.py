r"""Finite sites summed out exactly, so that gradient kernels move the others by their marginal law.

With the finite sites z and the others y, the marginal energy is
$F(y) = -\log \sum_z e^{-E(y, z)}$. A kernel that leaves the density proportional to $e^{-F(y)}$
invariant, followed by an exact draw of z given y, leaves that of (y, z) invariant.
"""

from __future__ import annotations

import abc
from functools import lru_cache
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.evaluation import factor_energies
from energydsl.analysis.structure import Structure
from energydsl.compiler.ebm import EBM
from energydsl.language.model import Model
from energydsl.normalizer import Intractable, log_partition_of
from energydsl.normalizer.base import Planned
from energydsl.normalizer.evaluate import draw, prepare
from energydsl.sweep.forest import finite_sites, is_forest
from energydsl.sweep.trees import Trees, downwards, load, log_sums, trees_of, upwards, written

MAX_OPERATIONS = 2.0**20
"""The most operations of one sum by the rules for log Z, as each step needs many of them."""


class Target(Protocol):
    """What a gradient kernel needs of a distribution: an EBM has it, and so has `Marginal`."""

    @property
    def structure(self) -> Structure:
        """The structure of the model."""
        ...

    def energy(self, x: Configuration) -> Array:
        """The energy of a configuration."""
        ...


class AbstractSum(eqx.Module):
    """How the free finite sites are summed out and drawn, given all other sites."""

    @abc.abstractmethod
    def energy(self, ebm: EBM, x: Configuration) -> Array:
        """F; the entries of x at the finite sites are not used."""

    @abc.abstractmethod
    def draw(self, ebm: EBM, xs: Configuration, *, key: Array) -> Configuration:
        """The configurations with exact draws of the finite sites; the first axis is chains."""

    @property
    @abc.abstractmethod
    def manner(self) -> str:
        """How the sites are summed out, in words."""


class Marginal(eqx.Module):
    """An EBM whose finite sites are summed out."""

    ebm: EBM
    sum: AbstractSum

    @property
    def structure(self) -> Structure:
        """The structure of the whole model."""
        return self.ebm.structure

    def energy(self, x: Configuration) -> Array:
        """F; the entries of x at the finite sites are not used."""
        return self.sum.energy(self.ebm, x)


class ForestSum(AbstractSum):
    """Finite sites that form a forest given the others, such as independent labels or a chain."""

    trees: Trees
    rest: Structure = eqx.field(static=True)
    """The structure of the factors without a free finite site."""

    def energy(self, ebm: EBM, x: Configuration) -> Array:
        values = ebm.model.complete(x)
        env = ebm.model.environment(values)
        beside = sum((factor_energies(f, env).sum() for f in self.rest.factors), jnp.zeros(()))
        return beside - log_sums(self._passed(ebm, jax.tree.map(lambda a: a[None], values)))[0]

    def draw(self, ebm: EBM, xs: Configuration, *, key: Array) -> Configuration:
        values = jax.vmap(ebm.model.complete)(xs)
        levels = downwards(self.trees, self._passed(ebm, values), key=key)
        state = written(self.trees, _packed(ebm, values), levels)
        return {n: state[n].T.reshape(a.shape) for n, a in xs.items()}

    @property
    def manner(self) -> str:
        return "as trees"

    def _passed(self, ebm: EBM, values: Configuration) -> Any:
        free, env = ebm.structure.skeleton.free, ebm.model.environment(ebm.model.evidence)
        tables = load(ebm.structure, free, self.trees, env)
        return upwards(ebm.structure, self.trees, tables, _packed(ebm, values))


class PlanSum(AbstractSum):
    """Finite sites whose log Z and draws given the others have plans of some rule."""

    total: Planned
    drawn: Planned
    given: tuple[str, ...] = eqx.field(static=True)
    """The free variables that are not finite."""

    def energy(self, ebm: EBM, x: Configuration) -> Array:
        rest = _conditioned(ebm.model, self.given, x)
        return -log_partition_of(rest, self.total, jnp.zeros(()).dtype)

    def draw(self, ebm: EBM, xs: Configuration, *, key: Array) -> Configuration:
        def one(x: Configuration, key: Array) -> Configuration:
            rest = _conditioned(ebm.model, self.given, x)
            return x | draw(rest, self.drawn, prepare(rest, self.drawn), key=key)

        return jax.vmap(one)(xs, jr.split(key, len(next(iter(xs.values())))))

    @property
    def manner(self) -> str:
        return f"by {self.total.rules}"


def sum_of(ebm: EBM) -> AbstractSum | Refusal:
    """How the free finite sites are summed out, or why they are not."""
    finite = finite_sites(ebm.structure)
    if not finite.any():
        return Refusal("no free site is discrete with finitely many levels, so none is summed out")
    if not (ebm.structure.free & ~finite).any():
        return Refusal("no free site is continuous, so nothing is left to move by gradients")
    forest = _forest(ebm.structure)
    return _planned(ebm) if forest is None else forest


@lru_cache(maxsize=32)
def _forest(structure: Structure) -> ForestSum | None:
    if not is_forest(structure):
        return None
    finite = finite_sites(structure)
    beside = tuple(~finite[structure.scope(f)].any(axis=1) for f in structure.factors)
    with jax.ensure_compile_time_eval():
        trees = trees_of(structure, finite)
    return ForestSum(trees, structure.part(structure.free & ~finite, beside))


def _planned(ebm: EBM) -> PlanSum | Refusal:
    free = ebm.structure.skeleton.free
    given = tuple(v.name for v in free if v.domain.levels is None)
    # The plans do not depend on the values.
    rest = _conditioned(ebm.model, given, ebm.start(key=jr.key(0)))
    total, drawn = (ebm.conclusions.normalizer_of(rest, q) for q in ("log_partition", "draw"))
    if isinstance(total, Intractable):
        return Refusal(f"its discrete sites cannot be summed out: {total.reason}")
    if isinstance(drawn, Intractable):
        return Refusal(f"its discrete sites cannot be drawn given the others: {drawn.reason}")
    if total.operations > MAX_OPERATIONS:
        return Refusal(
            f"to sum out its discrete sites takes {total.operations:.3g} operations in each "
            f"gradient, by {total.rules}; at most {MAX_OPERATIONS:.3g}"
        )
    return PlanSum(total, drawn, given)


def _conditioned(model: Model, given: tuple[str, ...], x: Configuration) -> Model:
    return model.condition(model.placed({n: jnp.asarray(x[n]) for n in given}))


def _packed(ebm: EBM, values: Configuration) -> dict[str, Array]:
    """The values of the free variables, (site, chain)."""
    free = ebm.structure.skeleton.free
    return {v.name: values[v.name].reshape(-1, v.size).T for v in free}


def summed_sites(ebm: EBM) -> np.ndarray:
    """True at the free sites that a sum covers; all False if there is none."""
    return finite_sites(ebm.structure) & isinstance(sum_of(ebm), AbstractSum)
