"""Energies that are proven to be linear in sufficient statistics of one event.

A factor's jaxpr is read with log x, 1/x, cos x, log n! or log det X as variables of their own
beside x itself. If the result is at most linear in all of them, its slopes are the natural
parameters. They are computed by differentiation, so that they may depend on parameters in any way.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core as jex

from energydsl.analysis.canonical import canonical
from energydsl.analysis.degree import degrees
from energydsl.analysis.factor import Entries, Factor, Whole
from energydsl.analysis.structure import Structure
from energydsl.language.domain import (
    AbstractDomain,
    Count,
    Interval,
    Positive,
    PositiveDefinite,
    Simplex,
)

VALUE, LOG, INVERSE, LOG_HIGH, COS, SIN, LOG_FACTORIAL, LOG_GAMMA, SHIFT, LOG_DET = (
    "x", "log x", "1/x", "log(high - x)", "cos x", "sin x", "log x!", "log gamma(x + r)", "r",
    "log det x",
)  # fmt: skip

STATISTICS: dict[type[AbstractDomain], tuple[str, ...]] = {
    Positive: (VALUE, LOG, INVERSE),
    Interval: (VALUE, LOG, LOG_HIGH, COS, SIN),
    Simplex: (VALUE, LOG),
    Count: (VALUE, LOG_FACTORIAL, LOG_GAMMA, SHIFT),
    PositiveDefinite: (VALUE, LOG_DET),
}
"""The statistics that are recognised, by domain; on an interval, LOG is that of x - low.

The slope in SHIFT is that in LOG_GAMMA times r, from which r is known.
"""


class Site(NamedTuple):
    """Where a value is a x + b for the values x of a site leaf; None is a = 1, or b = 0.

    `known` holds a and b as numbers, where these are known without the model's parameters.
    """

    leaf: int
    scale: Array | None
    shift: Array | None
    known: tuple[float | None, float | None]


class Cell(NamedTuple):
    """A value of the jaxpr: what it is as a function of the statistics."""

    value: Any
    moving: bool = False
    """Whether it depends on the sites."""
    site: Site | None = None
    known: float | None = None


@dataclasses.dataclass(frozen=True)
class Linear:
    """A batch of factors as functions of the statistics of some of their site leaves.

    Args:
        structure: the structure of the model.
        number: the number of the batch.
        leaves: the site leaves that are not constant, by position, each with its domain.
        known: the leaves that are a number that the user wrote, each with its value.
    """

    structure: Structure
    number: int
    leaves: tuple[tuple[int, AbstractDomain], ...]
    known: tuple[tuple[int, float], ...]

    @staticmethod
    def of(structure: Structure, number: int, own: Sequence[int]) -> Linear:
        """The factors of a batch as functions of the site leaves in these positions."""
        factor, numbers = structure.factors[number], structure.written
        known = [
            (k, numbers[leaf.slot])
            for k, leaf in enumerate(factor.leaves)
            if isinstance(leaf, Entries) and leaf.slot in numbers and leaf.index.ndim == 1
        ]
        domains = [(k, factor.sites[k].variable.domain) for k in own]
        return Linear(structure, number, tuple(domains), tuple(known))

    @functools.cached_property
    def own(self) -> dict[int, AbstractDomain]:
        """The domain of each leaf that is not constant, by position."""
        return dict(self.leaves)

    @property
    def factor(self) -> Factor:
        return self.structure.factors[self.number]

    @functools.cached_property
    def blank(self) -> dict[tuple[int, str], jax.ShapeDtypeStruct]:
        """The statistics of each leaf: one for each of its entries, or one log det."""
        shapes = {}
        for k, domain in self.own.items():
            leaf = self.structure.abstract(self.factor.leaves[k])
            for name in STATISTICS[type(domain)]:
                shape = () if name == LOG_DET else leaf.shape
                shapes[k, name] = jax.ShapeDtypeStruct(shape, leaf.dtype)
        return shapes

    @functools.cached_property
    def present(self) -> dict[str, bool] | None:
        """Whether each statistic occurs; None if the energy is not shown to be linear in them."""
        names, shapes = list(self.blank), list(self.blank.values())

        def energy(*values: Any) -> Array:
            given = dict(zip(names, values, strict=False))
            return self.energy(given, values[len(names) :])

        try:
            bound = degrees(energy, [*shapes, *self._abstract], len(names))
        except NotLinearError:
            return None
        if bound.total > 1:
            return None
        found: dict[str, bool] = {}
        for (_, name), degree in zip(names, bound.each, strict=True):
            found[name] = found.get(name, False) or degree > 0
        return found

    @functools.cached_property
    def factorials(self) -> float | None:
        """The slope of log x!, summed over entries; None if it depends on the model's numbers."""
        return self._fixed(LOG_FACTORIAL)

    @functools.cached_property
    def gammas(self) -> float | None:
        """The same for log gamma(x + r)."""
        return self._fixed(LOG_GAMMA)

    def _fixed(self, statistic: str) -> float | None:
        if not (self.present or {}).get(statistic):
            return 0.0

        def slope(*values: Any) -> Array:
            slopes = self.slopes(list(values))[1]
            own = [jnp.sum(s) for (_, name), s in slopes.items() if name == statistic]
            return sum(own, jnp.zeros(()))

        if degrees(slope, self._abstract, len(self._abstract)).total > 0:
            return None
        zeros = [jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), a) for a in self._abstract]
        return float(slope(*zeros))

    def slopes(self, arguments: list[Any]) -> tuple[Array, dict[tuple[int, str], Array]]:
        """For one factor, the energy with all statistics at 0, and its slope in each of them."""
        dtype = jnp.zeros(()).dtype
        zeros = {name: jnp.zeros(s.shape, dtype) for name, s in self.blank.items()}
        return jax.value_and_grad(self.energy)(zeros, arguments)

    def energy(self, given: Mapping[tuple[int, str], Array], arguments: Sequence[Any]) -> Array:
        """The energy of one factor, given the statistics in place of its own leaves."""
        filled = list(arguments)
        for k, leaf in enumerate(self.factor.leaves):
            if k in self.own:
                filled[k] = given[k, VALUE]
            elif isinstance(leaf, Whole):
                filled[k] = canonical(eqx.combine(arguments[k], self.structure.static(leaf)))
        arrays, rest = eqx.partition(filled, eqx.is_array)
        flat, form = jax.tree.flatten(arrays)
        starts = np.cumsum([0, *(len(jax.tree.leaves(a)) for a in arrays)])

        def of_arrays(*flat: Array) -> Array:
            return self.factor.energy(*eqx.combine(jax.tree.unflatten(form, flat), rest))

        closed = jax.make_jaxpr(of_arrays)(*flat)
        cells = [Cell(a) for a in flat]
        for k in self.own:
            site = Site(k, None, None, (1.0, 0.0))
            cells[starts[k]] = Cell(given[k, VALUE], True, site)
        for k, value in self.known:
            cells[starts[k]] = cells[starts[k]]._replace(known=value)
        reader = _Reader(self, given)
        return reader.run(closed.jaxpr, [Cell(c) for c in closed.consts], cells)[0].value

    @functools.cached_property
    def _abstract(self) -> list[Any]:
        return [self.structure.abstract(leaf) for leaf in self.factor.leaves]


class NotLinearError(Exception):
    """The energy contains a function of the sites that is no known statistic."""


class _Reader:
    """Evaluates a jaxpr at statistics."""

    def __init__(self, linear: Linear, given: Mapping[tuple[int, str], Array]) -> None:
        self.linear, self.given = linear, given
        self.gammas = 0

    def run(self, jaxpr: jex.Jaxpr, consts: list[Cell], cells: list[Cell]) -> list[Cell]:
        known: dict = dict(zip(jaxpr.invars, cells, strict=True))
        known.update(zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> Cell:
            if not isinstance(atom, jex.Literal):
                return known[atom]
            number = atom.val
            return Cell(number, known=float(number) if np.ndim(number) == 0 else None)

        for equation in jaxpr.eqns:
            results = self._step(equation, [read(v) for v in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _step(self, equation: jex.JaxprEqn, cells: list[Cell]) -> list[Cell]:
        name, moving = equation.primitive.name, any(c.moving for c in cells)
        if moving:
            lifted = self._lifted(equation, cells)
            if lifted is not None:
                return lifted
            if name in {"jit", "closed_call"}:
                inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
                held = [Cell(c) for c in getattr(inner, "consts", ())]
                return self.run(getattr(inner, "jaxpr", inner), held, cells)
            if name.startswith("custom_"):
                raise NotLinearError(name)
        settings = equation.primitive.get_bind_params(equation.params)
        found = equation.primitive.bind(*(c.value for c in cells), **settings)
        if equation.primitive.multiple_results:
            return [Cell(value, moving) for value in found]
        return [Cell(found, moving, _site(name, cells), _number(name, cells))]

    def _lifted(self, equation: jex.JaxprEqn, cells: list[Cell]) -> list[Cell] | None:
        """The results of a function of the sites that is a statistic; None for others."""
        match equation.primitive.name:
            case "log":
                return self._log(cells[0].site, 0.0)
            case "log1p":
                return self._log(cells[0].site, 1.0)
            case "div" if not cells[0].moving:
                return self._inverse(cells[1].site, cells[0].value)
            case "integer_pow" if equation.params["y"] == -1:
                return self._inverse(cells[0].site, 1.0)
            case "lgamma":
                return self._gamma(cells[0].site)
            case "cos" | "sin" as name:
                return self._wave(cells[0].site, name == "sin")
            case "jit" if _is_log_det(equation):
                site = cells[0].site
                if site is None or site.scale is not None or site.shift is not None:
                    return None
                found = self._statistic(site, LOG_DET, lambda t: t)
                return None if found is None else [Cell(jnp.ones_like(found[0].value)), *found]
        return None

    def _log(self, site: Site | None, more: float) -> list[Cell] | None:
        """Log(a x + b + more), where its argument is 0 at an end of the domain."""
        if site is None:
            return None
        scale = 1.0 if site.scale is None else site.scale
        domain = self.linear.own[site.leaf]
        if not isinstance(domain, Interval):
            if site.shift is not None or more:
                return None
            return self._statistic(site, LOG, lambda t: jnp.log(scale) + t)
        shift = more if site.shift is None else site.shift + more
        a, b = site.known
        if not a or b is None:
            return None
        for name, end, sign in ((LOG, domain.low, 1.0), (LOG_HIGH, domain.high, -1.0)):
            if _same(a * end + b, -more) and a * sign > 0:
                # The numbers may have been replaced since they were known.
                there = jnp.isclose(scale * end + shift, 0.0, rtol=0.0, atol=1e-6 * abs(a * end))
                factor = jnp.where(there, sign * scale, jnp.nan)
                return self._statistic(site, name, lambda t, f=factor: jnp.log(f) + t)
        return None

    def _inverse(self, site: Site | None, over: Any) -> list[Cell] | None:
        if site is None or site.shift is not None:
            return None
        scale = 1.0 if site.scale is None else site.scale
        return self._statistic(site, INVERSE, lambda t: over / scale * t)

    def _gamma(self, site: Site | None) -> list[Cell] | None:
        """Log gamma(x + r); a second one in the same energy may have another r."""
        if site is None or site.known[0] != 1.0:
            return None
        if site.known[1] == 1.0:
            return self._statistic(site, LOG_FACTORIAL, lambda t: t)
        self.gammas += 1
        if self.gammas > 1 or (site.leaf, SHIFT) not in self.given:
            return None
        rest = 0.0 if site.shift is None else site.shift * self.given[site.leaf, SHIFT]
        return self._statistic(site, LOG_GAMMA, lambda t: t + rest)

    def _wave(self, site: Site | None, is_sine: bool) -> list[Cell] | None:
        """Cos(b + x), cos(b - x) or their sines."""
        if site is None or abs(site.known[0] or 0.0) != 1.0 or (site.leaf, SIN) not in self.given:
            return None
        shift, sign = jnp.asarray(0.0 if site.shift is None else site.shift), site.known[0] or 1.0
        sine = self.given[site.leaf, SIN] * sign
        if is_sine:
            return self._statistic(site, COS, lambda t: jnp.sin(shift) * t + jnp.cos(shift) * sine)
        return self._statistic(site, COS, lambda t: jnp.cos(shift) * t - jnp.sin(shift) * sine)

    def _statistic(
        self, site: Site, name: str, change: Callable[[Array], Array]
    ) -> list[Cell] | None:
        key = site.leaf, name
        return [Cell(change(self.given[key]), True)] if key in self.given else None


def _same(a: float, b: float) -> bool:
    """Whether two numbers are the same in float32, in which numbers of an energy are kept."""
    return abs(a - b) <= 2.0**-22 * max(abs(a), abs(b))


def _site(name: str, cells: list[Cell]) -> Site | None:
    """The result of an operation as a x + b, where it is one; shapes do not change."""
    if not any(c.site for c in cells):
        return None
    first = cells[0]
    if first.site is not None and name in {"convert_element_type", "copy", "copy_p"}:
        return first.site
    if first.site is not None and name == "neg":
        return _scaled(first.site, Cell(-1.0, known=-1.0), operator.mul)
    if len(cells) != 2 or sum(c.moving for c in cells) != 1:
        return None
    site, other = (first.site, cells[1]) if first.moving else (cells[1].site, first)
    if site is None or np.ndim(other.value) > np.ndim(cells[1 - int(first.moving)].value):
        return None
    match name:
        case "add" | "add_any":
            return _shifted(site, other, 1.0)
        case "sub" if first.moving:
            return _shifted(site, other, -1.0)
        case "sub":
            return _shifted(_scaled(site, Cell(-1.0, known=-1.0), operator.mul), other, 1.0)
        case "mul":
            return _scaled(site, other, operator.mul)
        case "div" if first.moving:
            return _scaled(site, other, operator.truediv)
    return None


def _scaled(site: Site, by: Cell, operation: Callable[..., Any]) -> Site:
    one = 1.0 if site.scale is None else site.scale
    shift = None if site.shift is None else operation(site.shift, by.value)
    a, b = (_both(k, by.known, operation) for k in site.known)
    return Site(site.leaf, operation(one, by.value), shift, (a, 0.0 if shift is None else b))


def _shifted(site: Site, by: Cell, sign: float) -> Site:
    old = 0.0 if site.shift is None else site.shift
    a, b = site.known
    b = None if b is None or by.known is None else b + sign * by.known
    return Site(site.leaf, site.scale, old + sign * by.value, (a, b))


def _both(a: float | None, b: float | None, operation: Callable[..., Any]) -> float | None:
    """The result of an operation on known numbers; None if it does not exist."""
    if a is None or b is None or (b == 0 and operation is operator.truediv):
        return None
    return operation(a, b)


def _number(name: str, cells: list[Cell]) -> float | None:
    """The result of an operation on known numbers, where it is needed."""
    values = [c.known for c in cells]
    if any(v is None for v in values):
        return None
    match name, values:
        case (("convert_element_type" | "copy" | "copy_p" | "broadcast_in_dim"), [float(a)]):
            return a
        case "neg", [float(a)]:
            return -a
        case (("add" | "add_any"), [float(a), float(b)]):
            return a + b
        case "sub", [float(a), float(b)]:
            return a - b
        case "mul", [float(a), float(b)]:
            return a * b
        case "div", [float(a), float(b)] if b:
            return a / b
    return None


def _is_log_det(equation: jex.JaxprEqn) -> bool:
    """Whether this is a call of `jnp.linalg.slogdet`, and not another function of its name."""
    if equation.params.get("name") != "slogdet" or len(equation.invars) != 1:
        return False
    aval: Any = equation.invars[0].aval
    own = jax.make_jaxpr(jnp.linalg.slogdet)(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    return str(own.eqns[0].params["jaxpr"]) == str(equation.params["jaxpr"])
