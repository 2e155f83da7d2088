"""The arrays that learning updates: the model's parameters and the objective's own arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import paramax
from numpyro.distributions import Distribution

from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractKernel
from energydsl.language.model import Model
from energydsl.learning.objective.base import AbstractObjective
from energydsl.learning.start import AbstractStart


class Moving(NamedTuple):
    """All arrays that one optimizer updates."""

    slots: Any
    """The model's slots, with None in place of everything that is not learnt."""
    own: dict[str, Any]
    """The objective's arrays by their paths, such as ``log_z`` or ``network.layers[0].weight``; for
    a model that learns beside the first one, its slots in the same way."""

    @property
    def empty(self) -> bool:
        """Whether there are no such arrays."""
        return not jax.tree.leaves(self)

    def named(self, ebm: EBM) -> dict[str, Any]:
        """The arrays by the names of the parameters, as optimizers and their masks see them.

        The objective's own have names such as ``objective.log_z``.
        """
        records = zip(ebm.model.skeleton.slots, self.slots, strict=True)
        named = {str(r.name): arrays for r, arrays in records if jax.tree.leaves(arrays)}
        return named | {f"objective.{name}": array for name, array in self.own.items()}

    def with_named(self, ebm: EBM, named: Mapping[str, Any]) -> Moving:
        """These arrays with the values that they have in `named`."""
        records = zip(ebm.model.skeleton.slots, self.slots, strict=True)
        slots = tuple(named.get(str(record.name), arrays) for record, arrays in records)
        return Moving(slots, {name: named[f"objective.{name}"] for name in self.own})

    def not_finite(self, ebm: EBM) -> list[str]:
        """The names of the arrays that contain NaN or an infinity."""
        return [name for name, arrays in self.named(ebm).items() if not _finite(arrays)]


def moving_of(ebm: EBM, objective: AbstractObjective) -> Moving:
    """The arrays of a model and an objective that are learnt, with their present values."""
    own = {n: jnp.asarray(a) for n, a in _named(objective) if _learns(a)}
    beside = {n: getattr(objective, n) for n in objective.learns}
    own |= {n: _learnt(model) for n, model in beside.items() if model is not None}
    return Moving(_learnt(ebm), own)


def _learnt(ebm: EBM) -> Any:
    return eqx.filter(ebm.model.slots, ebm.model.learnt)


def moved(ebm: EBM, objective: AbstractObjective, moving: Moving) -> tuple[EBM, AbstractObjective]:
    """The EBM and the objective with these values of the learnt arrays."""

    def at(name: str, leaf: Any) -> Any:
        if name not in moving.own:
            return leaf
        return _with(leaf, moving.own[name]) if name in objective.learns else moving.own[name]

    leaves = [at(name, leaf) for name, leaf in _named(objective)]
    structure = jax.tree.structure(objective, is_leaf=_is_setting)
    return _with(ebm, moving.slots), jax.tree.unflatten(structure, leaves)


def _with(ebm: EBM, slots: Any) -> EBM:
    """The EBM with these values of what learns."""
    return eqx.tree_at(lambda e: e.model.slots, ebm, eqx.combine(slots, ebm.model.slots))


def _named(objective: AbstractObjective) -> list[tuple[str, Any]]:
    """The leaves of an objective by their paths; settings are not taken apart."""
    leaves, _ = jtu.tree_flatten_with_path(objective, is_leaf=_is_setting)
    return [(jtu.keystr(path).lstrip("."), leaf) for path, leaf in leaves]


def _is_setting(part: Any) -> bool:
    """Whether a part is not learnt: frozen arrays, kernels, starts, models and distributions."""
    kinds = paramax.NonTrainable | AbstractKernel | AbstractStart | EBM | Model | Distribution
    return isinstance(part, kinds)


def _learns(leaf: Any) -> bool:
    return not _is_setting(leaf) and eqx.is_inexact_array(leaf)


def _finite(arrays: Any) -> bool:
    return all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(arrays))
