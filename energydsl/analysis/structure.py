"""The structure of a model: which sites interact, and by which kinds of functions.

Structure does not depend on the values of parameters; properties that do (attractive couplings,
zero field) are in `value_checks.py`. Each property is computed once, when it is first used, by
vectorised operations on index arrays.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import numpy as np
import paramax

from energydsl._types import is_traced
from energydsl.analysis import graph
from energydsl.analysis.degree import Degrees, degrees
from energydsl.analysis.factor import Entries, Factor, Known, Leaf, Sites, Whole, factorise
from energydsl.analysis.parity import is_even
from energydsl.language.expression import energy_dtype
from energydsl.language.model import Model
from energydsl.language.skeleton import Skeleton
from energydsl.language.variable import Variable

MAX_PAIRS = 50_000_000
"""The most interacting pairs that are listed. Sites of a wider factor are only known to be in one
connected component."""


class Structure:
    """The structure of a model. Sites are numbered consecutively across variables.

    Structures are equal if their skeletons are, and if they are the same part of it (`part`).
    """

    def __init__(self, model: Model) -> None:
        self.skeleton: Skeleton = model.skeleton
        self.variables = model.variables
        self.factors = factorise(model.skeleton.root)
        ends = np.cumsum([0, *(v.size for v in self.variables)])
        self.sites = int(ends[-1])
        self.offset = {v.name: int(o) for v, o in zip(self.variables, ends, strict=False)}
        masks = [model.skeleton.mask(v).ravel() for v in self.variables]
        self.free = ~np.concatenate(masks)
        self._shapes = [
            jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), eqx.filter(p, eqx.is_array)
            )
            for p in paramax.unwrap(model.slots)
        ]
        self._static = [
            eqx.filter(p, eqx.is_array, inverse=True) for p in paramax.unwrap(model.slots)
        ]
        self._chosen = ""
        self.written = _written(model)
        """The numbers that the user wrote in the energy, by slot, where they are not traced.

        They are no part of the structure: conclusions from them belong to the plan that uses them,
        which checks them when it is carried out."""

    def part(self, free: np.ndarray, chosen: tuple[np.ndarray, ...]) -> Structure:
        """The structure of some free sites and some factors; all other sites are constants.

        Args:
            free: True at the sites of the part; free events belong to it whole or not at all.
            chosen: for each batch, True at the factors of the part.
        """
        part = copy.copy(self)
        for name in [
            n for n in part.__dict__ if isinstance(getattr(Structure, n, None), cached_property)
        ]:
            del part.__dict__[name]
        part.free = self.free & free
        part.factors = tuple(
            f.only(c) for f, c in zip(self.factors, chosen, strict=True) if c.any()
        )
        seal = hashlib.blake2b(self._chosen.encode(), digest_size=16)
        for mask in (part.free, *chosen):
            seal.update(np.packbits(mask).tobytes())
        part._chosen = seal.hexdigest()
        return part

    @property
    def partial(self) -> bool:
        """Whether this is the structure of a part of the model."""
        return bool(self._chosen)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Structure)
            and other._chosen == self._chosen
            and other.skeleton == self.skeleton
        )

    def __hash__(self) -> int:
        return hash((self.skeleton, self._chosen))

    def describe(self, site: int) -> str:
        """The name of a site, such as ``s[3, 4]``."""
        starts = np.array(list(self.offset.values()))
        variable = self.variables[int(np.searchsorted(starts, site, side="right")) - 1]
        return variable.describe(site - self.offset[variable.name])

    def of_variables(self, names: Iterable[str]) -> np.ndarray:
        """True at each site of the named variables."""
        chosen = set(names)
        return np.repeat(
            [v.name in chosen for v in self.variables], [v.size for v in self.variables]
        )

    def numbers(self, leaf: Sites) -> np.ndarray:
        """The sites of a leaf in the numbering across variables, (factor, site)."""
        return leaf.index.reshape(len(leaf.index), -1) + self.offset[leaf.variable.name]

    def scope(self, factor: Factor) -> np.ndarray:
        """The scope of each factor of a batch: its sites, (factor, site), with repeats."""
        columns = [self.numbers(leaf) for leaf in factor.sites.values()]
        return np.concatenate(columns, axis=1) if columns else np.zeros((factor.size, 0), np.int32)

    @cached_property
    def crowded(self) -> bool:
        """Whether some factor has so many sites that its pairs are not listed."""
        return any(_pairs(self._moving_size(f)) * f.size > MAX_PAIRS for f in self.factors)

    def _moving_size(self, factor: Factor) -> int:
        """The largest number of arguments of one factor of a batch that are free sites."""
        return int(self.free[self.scope(factor)].any(axis=0).sum())

    def scope_size(self, factor: Factor) -> int:
        """The number of site arguments of one factor of a batch."""
        return sum(math.prod(leaf.index.shape[1:]) for leaf in factor.sites.values())

    @cached_property
    def edges(self) -> np.ndarray:
        """The edges of the interaction graph of free sites.

        A factor whose pairs are not listed contributes a star that connects its sites.
        """
        pairs = [np.zeros((0, 2), np.int32)]
        for factor in self.factors:
            scope = self.scope(factor)
            pairs.append(self._pairs_of(scope[:, self.free[scope].any(axis=0)]))
        pairs += [self._event_pairs(v) for v in self.variables if v.domain.event_ndim]
        listed = np.concatenate(pairs)
        return graph.unique_edges(listed[self.free[listed].all(axis=1)], self.sites)

    def _pairs_of(self, scope: np.ndarray) -> np.ndarray:
        size, width = scope.shape
        if width < 2:
            return np.zeros((0, 2), np.int32)
        if _pairs(width) * size > MAX_PAIRS:
            # A star connects all free sites if its centre is one of them.
            order = np.argsort(~self.free[scope], axis=1, kind="stable")
            scope = np.take_along_axis(scope, order, axis=1)
            first = np.broadcast_to(scope[:, :1], (size, width - 1))
            return np.stack([first.ravel(), scope[:, 1:].ravel()], axis=1)
        left, right = np.triu_indices(width, 1)
        return np.stack([scope[:, left].ravel(), scope[:, right].ravel()], axis=1)

    def _events(self, v: Variable) -> np.ndarray:
        """The sites of each event of a variable, one event per row."""
        width = math.prod(v.event_shape)
        return np.arange(v.size).reshape(-1, width) + self.offset[v.name]

    def _event_pairs(self, v: Variable) -> np.ndarray:
        """The pairs of entries of each event, which constrain each other whatever the energy is."""
        return self._pairs_of(self._events(v))

    def free_events(self, v: Variable) -> np.ndarray:
        """The sites of each free event of a variable, one event per row."""
        events = self._events(v)
        return events[self.free[events[:, 0]]]

    @cached_property
    def component_of(self) -> np.ndarray:
        """The connected component of each free site; -1 at clamped sites."""
        labels = graph.components(self.sites, self.edges)[1]
        _, compact = np.unique(labels[self.free], return_inverse=True)
        result = np.full(self.sites, -1, np.int32)
        result[self.free] = compact
        return result

    @cached_property
    def component_sizes(self) -> np.ndarray:
        """The number of free sites of each component."""
        return np.bincount(self.component_of[self.free])

    @cached_property
    def row_components(self) -> tuple[np.ndarray, ...]:
        """For each batch, the component of each factor; -1 for factors without a free site."""
        owners = []
        for factor in self.factors:
            scope = self.scope(factor)
            owners.append(self.component_of[scope].max(axis=1, initial=-1))
        return tuple(owners)

    @cached_property
    def factor_counts(self) -> np.ndarray:
        """For each component, the number of factors that contain a free site of it."""
        count = np.zeros(len(self.component_sizes))
        for owner in self.row_components:
            count += np.bincount(owner[owner >= 0], minlength=len(count))
        return count

    @cached_property
    def covered(self) -> np.ndarray:
        """True at each site that is in a factor, or whose event has another entry in a factor."""
        seen = np.zeros(self.sites, bool)
        for factor in self.factors:
            seen[self.scope(factor)] = True
        for v in self.variables:
            if v.domain.event_ndim:
                # A distribution of one entry of an event is a distribution of the whole event.
                events = self._events(v)
                seen[events] = seen[events].any(axis=1, keepdims=True)
        return seen

    @cached_property
    def colours(self) -> np.ndarray:
        """A proper colouring of the interaction graph."""
        if self.crowded:
            return np.arange(self.sites, dtype=np.int32)
        return graph.colouring(self.sites, self.edges)

    @cached_property
    def sides(self) -> np.ndarray | None:
        """A two-colouring of the interaction graph; None if it is not bipartite or not listed."""
        return None if self.crowded else graph.two_colouring(self.sites, self.edges)

    @cached_property
    def pairwise(self) -> bool:
        """Whether each factor has at most two free sites."""
        for factor in self.factors:
            scope = np.sort(np.where(self.free, np.arange(self.sites), -1)[self.scope(factor)])
            distinct = (np.diff(scope, prepend=-1) > 0).sum(axis=1) if scope.size else 0
            if np.max(distinct) > 2:
                return False
        return True

    @cached_property
    def forest(self) -> bool:
        """Whether the interaction graph has no cycle."""
        free = int(self.free.sum())
        return not self.crowded and len(self.edges) == free - len(self.component_sizes)

    @cached_property
    def width_bound(self) -> int:
        """An upper bound on the treewidth of the interaction graph."""
        if self.crowded:
            return int(self.component_sizes.max()) - 1
        return graph.width_bound(self.sites, self.edges)

    @cached_property
    def planar(self) -> bool | None:
        """Whether the interaction graph is planar; None if that was not tested."""
        return None if self.crowded else graph.is_planar(self.sites, self.edges)

    @cached_property
    def levels(self) -> np.ndarray:
        """The number of levels of each site; 0 where `AbstractDomain.levels` is None."""
        counts = [(v.domain.levels or 0, v.size) for v in self.variables]
        return np.repeat([c for c, _ in counts], [n for _, n in counts])

    @cached_property
    def uncountable(self) -> np.ndarray:
        """True at each component with a free site that has neither levels nor a transform.

        No exact rule can sum or integrate over such a site alone.
        """
        lost = [v.name for v in self.variables if not (v.domain.levels or v.domain.transform)]
        bad = self.of_variables(lost)[self.free]
        return np.bincount(self.component_of[self.free], bad) > 0

    def abstract(self, leaf: Leaf) -> Any:
        """The shape and dtype of one factor's argument, or those of a function's arrays."""
        match leaf:
            case Whole(slot=slot):
                return self._shapes[slot]
            case Entries(slot=slot, index=index):
                return jax.ShapeDtypeStruct(index.shape[1:], self._shapes[slot].dtype)
            case Sites(variable=v, index=index):
                return jax.ShapeDtypeStruct(index.shape[1:], v.domain.energy_dtype)
            case Known(expression=expression, index=index):
                return jax.ShapeDtypeStruct(index.shape[1:], energy_dtype(expression))
        return jax.ShapeDtypeStruct(leaf.index.shape[1:], np.int32)

    def function(self, factor: Factor) -> Any:
        """The function of a bare factor, without its arrays; None for other factors."""
        leaf = factor.leaves[0] if factor.bare else None
        return self.static(leaf) if isinstance(leaf, Whole) else None

    def static(self, leaf: Whole) -> Any:
        """The function in a slot, without its arrays."""
        return self._static[leaf.slot]

    def completed(self, factor: Factor, arguments: Sequence[Any]) -> list[Any]:
        """The arguments of one factor, with functions made of their arrays and all the rest."""
        return [
            eqx.combine(value, self.static(leaf)) if isinstance(leaf, Whole) else value
            for leaf, value in zip(factor.leaves, arguments, strict=True)
        ]

    @cached_property
    def degrees(self) -> tuple[Degrees, ...]:
        """For each batch of factors, the degrees in each of its site leaves, and jointly."""
        return tuple(self._degrees(f) for f in self.factors)

    @cached_property
    def degrees_in_reals(self) -> tuple[float, ...]:
        """For each batch of factors, the joint degree in its real sites, with all others fixed."""
        return tuple(self._degree_in_reals(f) for f in self.factors)

    def _degree_in_reals(self, factor: Factor) -> float:
        moving = [k for k in self._moving(factor) if factor.sites[k].variable.domain.real_line]
        return degrees(*self._moving_first(factor, moving), len(moving)).total if moving else 0.0

    def _moving(self, factor: Factor) -> list[int]:
        """The leaves with free sites; sites that are all clamped are constants."""
        return [k for k, leaf in factor.sites.items() if self.free[self.numbers(leaf)].any()]

    def _degrees(self, factor: Factor) -> Degrees:
        moving = self._moving(factor)
        bound = degrees(*self._moving_first(factor, moving), len(moving))
        each = dict(zip(moving, bound.each, strict=True))
        return Degrees(tuple(each.get(k, 0.0) for k in factor.sites), bound.total)

    def is_even(self, factor: Factor, flipped: Sequence[int]) -> bool:
        """Whether a factor is shown to stay as it is when some leaves change their signs."""
        return is_even(*self._moving_first(factor, flipped), len(flipped))

    def _moving_first(
        self, factor: Factor, moving: Sequence[int]
    ) -> tuple[Callable[..., jax.Array], list[Any]]:
        """A factor as a function of its leaves, some of them first, and their abstract values."""
        order = [*moving, *(k for k in range(len(factor.leaves)) if k not in moving)]
        place = {k: i for i, k in enumerate(order)}

        def energy(*values: Any) -> jax.Array:
            arguments = [values[place[k]] for k in range(len(order))]
            return factor.energy(*self.completed(factor, arguments))

        return energy, [self.abstract(factor.leaves[k]) for k in order]

    def degree_in(self, variable: Variable) -> float:
        """The highest degree of the energy in a single site of `variable`, with others fixed."""
        return max((self._degree_in(f, d, variable) for f, d in self._with_degrees()), default=0)

    def _with_degrees(self) -> zip:
        return zip(self.factors, self.degrees, strict=True)

    def _degree_in(self, factor: Factor, bound: Degrees, variable: Variable) -> float:
        own = [
            (degree, self.numbers(leaf))
            for leaf, degree in zip(factor.sites.values(), bound.each, strict=True)
            if leaf.variable == variable
        ]
        if len(own) < 2 or not repeats(np.concatenate([n for _, n in own], axis=1)):
            return max((d for d, _ in own), default=0)
        return sum(d for d, _ in own)

    @cached_property
    def multilinear(self) -> bool:
        """Whether the energy is linear in each free finite site, with all others fixed."""
        finite = [v for v in self.skeleton.free if v.domain.levels is not None]
        return bool(finite) and all(self.degree_in(v) <= 1 for v in finite)

    @cached_property
    def quadratic(self) -> bool:
        """Whether all free sites are real and the energy is jointly at most quadratic in them."""
        free = self.skeleton.free
        real = all(v.domain.real_line for v in free)
        return real and all(d.total <= 2 for d in self.degrees)


def _written(model: Model) -> dict[int, float]:
    pairs = zip(model.skeleton.slots, model.slots, strict=True)
    return {
        k: float(value)
        for k, (record, value) in enumerate(pairs)
        if record.kind == "number" and not is_traced(value) and not value.shape
    }


def repeats(scope: np.ndarray) -> bool:
    """Whether some row contains a site more than once."""
    return bool((np.diff(np.sort(scope, axis=1), axis=1) == 0).any())


def _pairs(width: int) -> int:
    return width * (width - 1) // 2
