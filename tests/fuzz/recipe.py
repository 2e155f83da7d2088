"""Recipes: the tree of a random energy, read as energydsl source and as NumPy arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz import densities, functions
from tests.fuzz.rounded import (
    BINARY,
    EPSILON,
    UNARY,
    Number,
    Ties,
    exact,
    matmul,
    moved,
    multiply,
    power,
    total,
    where,
)
from tests.fuzz.sites import Site

SYMBOLS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power_of": "**",
    "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=",
}  # fmt: skip


class Scene(NamedTuple):
    """What a recipe is computed in: configurations, arrays that stand in for its own, ties."""

    values: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    ties: Ties


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operation over others; `shape` is that of one configuration's value."""

    args: tuple[Node, ...]
    shape: tuple[int, ...]

    is_view = False

    def source(self, *texts: str) -> str:
        raise NotImplementedError

    def compute(self, scene: Scene, *numbers: Number) -> Number:
        raise NotImplementedError

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))


@dataclasses.dataclass(frozen=True, eq=False)
class View(Node):
    site: Site
    is_view = True

    @staticmethod
    def of(site: Site) -> View:
        return View((), site.shape, site)

    def source(self, *texts):
        return self.site.name

    def compute(self, scene, *numbers):
        return exact(scene.values[self.site.name])


@dataclasses.dataclass(frozen=True, eq=False)
class Constant(Node):
    value: float

    @staticmethod
    def of(value: float) -> Constant:
        return Constant((), (), float(np.float32(value)))

    def source(self, *texts):
        return repr(self.value)

    def compute(self, scene, *numbers):
        return exact(np.array([self.value]))


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers(Node):
    """A named array; `owned` by a potential, which is given it as it is, or declared to learn."""

    name: str
    array: np.ndarray
    owned: bool = False

    @staticmethod
    def of(name: str, array: np.ndarray, owned: bool = False) -> Numbers:
        array = np.asarray(array, np.float32)
        return Numbers((), array.shape, name, array, owned)

    def source(self, *texts):
        return self.name

    def compute(self, scene, *numbers):
        return exact(scene.arrays.get(self.name, self.array)[None])


@dataclasses.dataclass(frozen=True, eq=False)
class Unary(Node):
    name: str

    @staticmethod
    def of(name: str, a: Node) -> Unary:
        return Unary((a,), a.shape, name)

    def source(self, *texts):
        if self.name in ("negative", "abs"):
            return f"(-{texts[0]})" if self.name == "negative" else f"abs({texts[0]})"
        return f"ed.{self.name}({texts[0]})"

    def compute(self, scene, *numbers):
        return UNARY[self.name](*numbers, scene.ties)


@dataclasses.dataclass(frozen=True, eq=False)
class Binary(Node):
    name: str

    @staticmethod
    def of(name: str, a: Node, b: Node) -> Binary:
        return Binary((a, b), np.broadcast_shapes(a.shape, b.shape), name)

    def source(self, *texts):
        if self.name in SYMBOLS:
            return f"({texts[0]} {SYMBOLS[self.name]} {texts[1]})"
        return f"ed.{self.name}({', '.join(texts)})"

    def compute(self, scene, *numbers):
        return BINARY[self.name](*numbers, scene.ties)


@dataclasses.dataclass(frozen=True, eq=False)
class Power(Node):
    exponent: float

    @staticmethod
    def of(a: Node, exponent: float) -> Power:
        return Power((a,), a.shape, exponent)

    def source(self, *texts):
        return f"({texts[0]} ** {self.exponent!r})"

    def compute(self, scene, *numbers):
        return power(numbers[0], self.exponent)


@dataclasses.dataclass(frozen=True, eq=False)
class Where(Node):
    @staticmethod
    def of(c: Node, a: Node, b: Node) -> Where:
        return Where((c, a, b), np.broadcast_shapes(c.shape, a.shape, b.shape))

    def source(self, *texts):
        return f"ed.where({', '.join(texts)})"

    def compute(self, scene, *numbers):
        return where(*numbers, scene.ties)


@dataclasses.dataclass(frozen=True, eq=False)
class Reduce(Node):
    kind: str
    axes: tuple[int, ...]

    @staticmethod
    def of(a: Node, kind: str = "sum", axes: tuple[int, ...] | None = None) -> Node:
        axes = tuple(range(len(a.shape))) if axes is None else axes
        shape = tuple(n for k, n in enumerate(a.shape) if k not in axes)
        return Reduce((a,), shape, kind, axes)

    def source(self, *texts):
        if len(self.axes) == len(self.args[0].shape):
            return f"{texts[0]}.{self.kind}()"
        return f"{texts[0]}.{self.kind}({self.axes[0] if len(self.axes) == 1 else self.axes})"

    def compute(self, scene, *numbers):
        summed = total(numbers[0], self.axes)
        if self.kind == "sum":
            return summed
        share = exact(np.array([self.size / self.args[0].size]))
        return multiply(summed, Number(share.value, share.value), scene.ties)


@dataclasses.dataclass(frozen=True, eq=False)
class Move(Node):
    """The operand's elements elsewhere: `text` is the move as NumPy and energydsl write it."""

    text: str
    positions: np.ndarray

    @staticmethod
    def of(a: Node, text: str) -> Move:
        """`text` has {a} for the operand, and {roll} for the function that rolls."""
        numbers = np.arange(a.size).reshape(a.shape)
        positions = np.asarray(eval(text.format(a="a", roll="np.roll"), {"a": numbers, "np": np}))
        return Move((a,), positions.shape, text, positions)

    @property
    def is_view(self):  # type: ignore[override]
        return self.args[0].is_view

    def source(self, *texts):
        return self.text.format(a=texts[0], roll="ed.roll")

    def compute(self, scene, *numbers):
        return moved(numbers[0], self.positions)


@dataclasses.dataclass(frozen=True, eq=False)
class MatMul(Node):
    @staticmethod
    def of(a: Node, b: Node) -> MatMul:
        return MatMul((a, b), a.shape[:-1] + b.shape[1:])

    def source(self, *texts):
        return f"({texts[0]} @ {texts[1]})"

    def compute(self, scene, *numbers):
        return matmul(*numbers)


@dataclasses.dataclass(frozen=True, eq=False)
class Sparse(Node):
    """x @ S @ y with a SciPy matrix of the entries of `table`, whose zeros are no edges."""

    matrix: Numbers

    @staticmethod
    def of(x: Node, matrix: Numbers, y: Node) -> Sparse:
        return Sparse((x, y), (), matrix)

    def source(self, *texts):
        return f"({texts[0]} @ sp.coo_array({self.matrix.name}) @ {texts[1]})"

    def compute(self, scene, *numbers):
        product = matmul(numbers[0], self.matrix.compute(scene))
        return matmul(product, numbers[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup(Node):
    """A table over levels, given as energies or as log-potentials; its batch axes come first."""

    table: Numbers
    kind: str

    @staticmethod
    def of(table: Numbers, kind: str, views: tuple[Node, ...]) -> Lookup:
        batch = table.shape[: len(table.shape) - len(views)]
        shape = np.broadcast_shapes(batch, *(v.shape for v in views))
        return Lookup(views, shape, table, kind)

    def source(self, *texts):
        return f"ed.Table({self.kind}={self.table.name})({', '.join(texts)})"

    def compute(self, scene, *numbers):
        table = self.table.compute(scene).value[0]
        batch = table.shape[: table.ndim - len(self.args)]
        rows = max(len(n.value) for n in numbers)
        where_: list[np.ndarray] = list(np.indices(self.shape)[len(self.shape) - len(batch) :])
        where_ = [np.where(n == 1, 0, w) for n, w in zip(batch, where_, strict=True)]
        for view, number in zip(self.args, numbers, strict=True):
            levels = number.value - lowest(view)
            step = 2 if domain_of(view) == "spin" else 1
            levels = (levels / step).astype(int)
            pad = (1,) * (len(self.shape) - len(view.shape))
            levels = levels.reshape(len(levels), *pad, *view.shape)
            where_.append(np.broadcast_to(levels, (len(levels), *self.shape)))
        found = table[tuple(np.broadcast_to(w, (rows, *self.shape)) for w in where_)]
        return exact(found if self.kind == "energy" else -found)


@dataclasses.dataclass(frozen=True, eq=False)
class Apply(Node):
    """One of `functions.FUNCTIONS`, a JAX function and the same in NumPy."""

    name: str

    @staticmethod
    def of(name: str, *args: Node) -> Apply:
        return Apply(args, functions.shape_of(name, args[0].shape), name)

    def source(self, *texts):
        return f"ed.apply(functions.{self.name}, {', '.join(texts)})"

    def compute(self, scene, *numbers):
        rows = max(len(n.value) for n in numbers)
        full = [np.broadcast_to(n.value, (rows, *n.value.shape[1:])) for n in numbers]
        function = functions.FUNCTIONS[self.name]
        value = function(*full)
        # Each is one at most in slope to the largest of its arguments' own sizes.
        size = sum(np.abs(f).reshape(rows, -1).sum(1) for f in full) + 1
        error = sum(
            np.broadcast_to(n.error, f.shape).reshape(rows, -1).sum(1)
            for n, f in zip(numbers, full, strict=True)
        )
        spread = ((size + error) * (1 + size)).reshape(rows, *(1,) * (value.ndim - 1))
        return Number(value, np.broadcast_to(spread, value.shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Density(Node):
    """Minus a log-density, summed; the first operand is the view, the others parameters."""

    family: str
    form: str

    @staticmethod
    def of(family: str, view: Node, parameters: tuple[Node, ...], form: str) -> Density:
        return Density((view, *parameters), (), family, form)

    def source(self, *texts):
        inner = ", ".join(texts[1:])
        if self.form == "instance":
            return f"ed.LogDensity(dist.{self.family}({inner}))({texts[0]})"
        return f"ed.LogDensity(dist.{self.family})({', '.join(texts)})"

    def compute(self, scene, *numbers):
        family = densities.FAMILIES[self.family]
        ndim = max(n.value.ndim - k for n, k in zip(numbers, family.event_ndims, strict=True))
        spread = []
        for n, k in zip(numbers, family.event_ndims, strict=True):
            cut = n.value.ndim - k
            pad = (1,) * (ndim - cut)
            spread.append(n.value.reshape(n.value.shape[:1] + pad + n.value.shape[1:]))
        value = -family.log_density(*spread)
        rows = len(value)
        error = sum(
            EPSILON**-1
            * np.abs(
                family.log_density(*spread)
                - family.log_density(*spread[:k], _nudged(s, n, k == 0), *spread[k + 1 :])
            )
            for k, (s, n) in enumerate(zip(spread, numbers, strict=True))
        )
        scale = np.abs(value) + 20 + error * 4
        return Number(value.reshape(rows, -1).sum(1), scale.reshape(rows, -1).sum(1) * 2)


def _nudged(spread: np.ndarray, number: Number, whole: bool) -> np.ndarray:
    """A parameter moved by its error and one rounding; a discrete value stays."""
    error = number.error.reshape(spread.shape)
    step = (error + np.abs(spread) * (not whole)) * EPSILON
    return spread + step


@dataclasses.dataclass(frozen=True, eq=False)
class Potential(Node):
    """A potential of the library: its arrays come after its views among the operands."""

    kind: str
    views: int

    @staticmethod
    def of(kind: str, views: tuple[Node, ...], arrays: tuple[Node, ...]) -> Potential:
        return Potential((*views, *arrays), (), kind, len(views))

    def source(self, *texts):
        views, arrays = texts[: self.views], texts[self.views :]
        if self.kind == "Neural":
            return f"ed.Neural(functions.Network({', '.join(arrays)}))({', '.join(views)})"
        return f"ed.{self.kind}({', '.join(arrays)})({', '.join(views)})"

    def compute(self, scene, *numbers):
        none = Ties(1)
        if self.kind == "Coupling":
            x, y, w = numbers
            return UNARY["negative"](matmul(matmul(x, w), y), none)
        if self.kind == "Linear":
            x, b = numbers
            return total(multiply(b, x, none), tuple(range(x.value.ndim - 1)))
        if self.kind == "Quadratic":
            x, a, b = numbers
            form = multiply(exact(np.array([0.5])), matmul(matmul(x, a), x), none)
            return BINARY["subtract"](form, total(multiply(b, x, none), (0,)), none)
        x, first, second = numbers
        return matmul(UNARY["tanh"](matmul(x, first), none), second)


def site_of(view: Node) -> Site:
    while not isinstance(view, View):
        view = view.args[0]
    return view.site


def domain_of(view: Node) -> str:
    return site_of(view).domain


def lowest(view: Node) -> float:
    return float(site_of(view).levels[0])


def positions_of(view: Node) -> np.ndarray:
    """Which sites of its variable a view shows, by their flat numbers."""
    if isinstance(view, View):
        return np.arange(view.size).reshape(view.shape)
    assert isinstance(view, Move)
    return positions_of(view.args[0]).ravel()[view.positions]


def walk(*roots: Node) -> Iterator[Node]:
    """Every node once, operands first."""
    seen: set[int] = set()

    def visit(node: Node) -> Iterator[Node]:
        if id(node) in seen:
            return
        seen.add(id(node))
        for child in node.args:
            yield from visit(child)
        yield node

    for root in roots:
        yield from visit(root)


def compute(root: Node, scene: Scene, memo: dict[Node, Number]) -> Number:
    """The value of a tree; `memo` keeps what was computed, of nodes used twice for one."""
    for node in walk(root):
        if node not in memo:
            memo[node] = node.compute(scene, *(memo[c] for c in node.args))
    return memo[root]


def arrays_of(*roots: Node) -> list[Numbers]:
    """The named arrays of a recipe, each once."""
    found: dict[str, Numbers] = {}
    for node in walk(*roots):
        for held in (node, getattr(node, "matrix", None), getattr(node, "table", None)):
            if isinstance(held, Numbers):
                found[held.name] = held
    return list(found.values())


def sites_of(*roots: Node) -> list[Site]:
    found: dict[str, Site] = {}
    for node in walk(*roots):
        if isinstance(node, View):
            found.setdefault(node.site.name, node.site)
    return list(found.values())


def text_of(root: Node, names: dict[int, str]) -> str:
    """The source of a node; those in `names` are written by name."""
    done: dict[int, str] = {}
    for node in walk(root):
        done[id(node)] = names.get(id(node)) or node.source(*(done[id(c)] for c in node.args))
    return done[id(root)]


def replaced(root: Node, old: Node, new: Node) -> Node:
    """The tree with one node in another's place."""
    done: dict[int, Any] = {}
    for node in walk(root):
        if node is old:
            done[id(node)] = new
            continue
        args = tuple(done[id(c)] for c in node.args)
        same = all(a is b for a, b in zip(args, node.args, strict=True))
        done[id(node)] = node if same else dataclasses.replace(node, args=args)
    return done[id(root)]
