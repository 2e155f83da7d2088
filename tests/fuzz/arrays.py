"""Random variables, views of them, and array-valued expressions over those."""

from __future__ import annotations

import math

import numpy as np

from tests.fuzz import optional
from tests.fuzz.recipe import (
    Apply,
    Binary,
    Constant,
    MatMul,
    Move,
    Node,
    Numbers,
    Power,
    Reduce,
    Scene,
    Unary,
    View,
    Where,
    compute,
)
from tests.fuzz.rounded import Ties
from tests.fuzz.sites import Site

STATES, MIXED_STATES = 2**11, 2**6
"""Joint levels of the finite sites at most: alone, and beside continuous ones."""

SAMPLES = 32
LARGEST = 6.0
"""Values within an energy stay about this small."""

ELEMENTS = 36
ORDERED = "less", "less_equal", "greater", "greater_equal"
COMPARISONS = "equal", "not_equal", *ORDERED


class Arrays:
    """Draws expressions; what was drawn so far decides what still fits."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng([20261121, seed])
        self.counter = 0
        self.sites = self._sites()
        # Real sites then enter products of two at most, so that the oracle has their law.
        self.quadratic = self.chance(0.5)
        batch = {s.name: s.draw(self.rng, SAMPLES) for s in self.sites}
        self.scene = Scene(batch, {}, Ties(SAMPLES))
        self.memo: dict = {}
        unit = (("low", 0.0), ("high", 1.0))
        self.unit = {s.name for s in self.sites if s.domain == "interval" and s.settings == unit}

    # Small draws.

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, options):
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def normal(self, shape=()) -> np.ndarray:
        return np.round(self.rng.normal(size=shape), 2) + 0.003

    def numbers(self, shape: tuple[int, ...], owned: bool = False, scale: float = 1.0) -> Numbers:
        self.counter += 1
        return Numbers.of(f"W{self.counter}", scale * self.normal(shape), owned)

    def constant(self) -> Constant:
        return Constant.of(self.pick([0.5, -0.3, 2.0, 1.0, -1.0, round(self.rng.normal(), 2)]))

    # Variables.

    def _sites(self) -> list[Site]:
        menu = ["spin", "binary", "categorical", "integer"] * 2
        kind = self.rng.random()
        if kind < 0.45:
            menu += ["real"] * 7 + ["positive", "interval", "simplex"] * 2
            menu += ["count", "positive_definite"]
        sites: list[Site] = []
        states, most = 1.0, STATES if kind >= 0.45 else MIXED_STATES
        for name in "abcd"[: int(self.rng.integers(1, 5))]:
            domain = self.pick(menu)
            site = self._site(name, domain if optional.has(domain) else "real")
            counts = len(site.levels) ** site.size if site.finite else 1
            if states * counts <= most:
                states *= counts
                sites.append(site)
        return sites or [Site("a", "spin", (3,))]

    def _site(self, name: str, domain: str) -> Site:
        settings: tuple = ()
        if domain == "categorical":
            settings = (("levels", int(self.pick([1, 2, 3, 3, 4]))),)
        elif domain == "integer":
            low = int(self.pick([-3, -1, 0, 2]))
            settings = (("low", low), ("high", low + int(self.pick([0, 1, 2, 3]))))
        elif domain == "interval":
            low = float(self.pick([0.0, -1.5, 2.0]))
            settings = (("low", low), ("high", low + (1.0 if low == 0 else 2.5)))
        shapes = [(), (1,), (2,), (3,), (3,), (4,), (5,), (1, 1), (2, 2), (3, 1), (1, 3), (2, 3)]
        if domain in ("spin", "binary"):
            shapes += [(6,), (7,), (3, 3), (2, 1, 3)]
        elif domain in ("positive", "interval", "count"):
            shapes = [(), (1,), (2,), (1, 2)]
        elif domain == "real":
            shapes = [(), (1,), (2,), (3,), (1, 1), (2, 2), (1, 3)]
        elif domain == "simplex":
            shapes = [(2,), (3,), (2, 3), (1, 2), (1,)]
        elif domain == "positive_definite":
            shapes = [(2, 2), (1, 1), (1, 2, 2)]
        return Site(name, domain, self.pick(shapes), settings, latent=self.chance(0.15))

    # Views.

    def view(self, site: Site) -> Node:
        node: Node = View.of(site)
        for _ in range(int(self.pick([0, 0, 1, 1, 2]))):
            node = self.move(node)
        return node

    def move(self, a: Node) -> Node:
        """The operand, its elements elsewhere."""
        n = len(a.shape)
        if not n:
            return Move.of(a, self.pick(["{a}[None]", "{a}.reshape(1)", "{a}"]))
        axis = int(self.rng.integers(n))
        length = a.shape[axis]
        before = ":, " * axis
        index = self.rng.integers(-length, length, self.pick([1, 2, 3]))
        mask = self.rng.random(length) < 0.6
        mask[int(self.rng.integers(length))] = True
        start = int(self.rng.integers(length))
        texts = [
            "{a}[" + before + "::-1]",
            "{a}[" + before + f"{start}:]",
            "{a}[" + before + f"{start}]",
            "{a}[" + before + f"{-1 - start}]",
            "{a}[" + before + "::2]",
            "{a}[" + before + f"{start}::-1]",
            "{a}[" + before + "None]",
            "{a}[..., None]",
            "{a}.T",
            "{roll}({a}, " + f"{int(self.rng.integers(-3, 4))}, {axis})",
            "{a}.reshape(-1)",
            "{a}[" + before + f"np.array({index.tolist()})]",
            "{a}[" + before + f"np.array({mask.tolist()})]",
        ]
        if n > 1:
            texts += ["{a}" + f".reshape({a.shape[-1]}, -1)"] * 2
            whole = self.rng.random(a.shape) < 0.6
            whole.flat[int(self.rng.integers(a.size))] = True
            texts += ["{a}[" + f"np.array({whole.tolist()})]"]
        return Move.of(a, self.pick(texts))

    # Arrays.

    def largest(self, node: Node) -> float:
        with np.errstate(all="ignore"):
            return float(np.abs(compute(node, self.scene, self.memo).value).max())

    def array(self, depth: int) -> Node:
        """An expression of any shape, of moderate size and moderate values."""
        node = self._array(depth)
        if node.size > ELEMENTS:
            node = Reduce.of(node, "sum", (int(np.argmax(node.shape)),))
        if node.size > ELEMENTS:
            node = Reduce.of(node)
        top = self.largest(node)
        if not top < LARGEST:
            shrunk = Constant.of(float(f"{LARGEST / top:.2g}")) if math.isfinite(top) else None
            node = Binary.of("multiply", shrunk, node) if shrunk else Constant.of(0.5)
        return node

    def _array(self, depth: int) -> Node:
        if depth <= 0 or self.chance(0.1):
            return self.leaf()
        a = self.array(depth - 1)
        kind = self.rng.random()
        if kind < 0.2:
            return self.unary(a)
        if kind < 0.3:
            return self.move(a)
        if kind < 0.38 and a.shape:
            axes = tuple(k for k in range(len(a.shape)) if self.chance(0.5)) or (0,)
            return Reduce.of(a, self.pick(["sum", "mean"]), axes)
        if kind < 0.45:
            return self.apply(a)
        if kind < 0.55 and 1 <= len(a.shape) <= 2:
            return self.product(a, depth)
        b = self.leaf() if self.chance(0.5) else self.array(depth - 1)
        return self.binary(a, self.fitted(b, a))

    def leaf(self) -> Node:
        finite = [s for s in self.sites if s.finite]
        return self.view(self.pick(finite if self.quadratic and finite else self.sites))

    def unary(self, a: Node) -> Node:
        one = Constant.of(1.0)
        size = Unary.of("abs", a)
        match self.pick(["negative", "abs", "square", "tanh", "softplus", "exp", "log", "sqrt",
                         "sin", "cos", "cube", "affine", "compare"]):  # fmt: skip
            case "square":
                return Power.of(a, 2)
            case "cube":
                return Power.of(Unary.of("tanh", a), 3)
            case "exp":
                return Unary.of("exp", Binary.of("multiply", Constant.of(0.5), Unary.of("tanh", a)))
            case "log":
                return Unary.of("log", Binary.of("add", one, size))
            case "sqrt":
                return Unary.of("sqrt", Binary.of("add", one, Power.of(a, 2)))
            case "affine":
                scaled = Binary.of("multiply", self.constant(), a)
                return Binary.of("add", scaled, self.constant())
            case "compare":
                return self.compared(a, self.constant())
            case name:
                return Unary.of(name, a)

    def binary(self, a: Node, b: Node) -> Node:
        name = self.pick(["add", "subtract", "multiply", "multiply", "multiply", "divide",
                          "compare", "where", "maximum", "minimum", "logaddexp",
                          "power_of"])  # fmt: skip
        if name == "compare":
            return self.compared(a, b)
        if name == "divide":
            return Binary.of("divide", a, Binary.of("add", Constant.of(2.0), Power.of(b, 2)))
        if name == "power_of":
            base = Binary.of("add", Constant.of(0.5), Unary.of("softplus", a))
            return Binary.of("power_of", base, Unary.of("tanh", b))
        if name == "where":
            test = self.compared(a, self.constant())
            return Where.of(test, b, self.pick([a, self.constant()]))
        return Binary.of(name, *((a, b) if self.chance(0.7) else (b, a)))

    def compared(self, a: Node, b: Node) -> Node:
        """A comparison; no equality with numbers, which may be none of a variable's levels."""
        known = isinstance(a, Constant | Numbers) or isinstance(b, Constant | Numbers)
        return Binary.of(self.pick(ORDERED if known else COMPARISONS), a, b)

    def fitted(self, b: Node, a: Node) -> Node:
        """`b`, or something of it, that broadcasts with `a`."""
        if self.chance(0.3):
            shape = tuple(n if self.chance(0.7) else 1 for n in a.shape)
            return self.numbers(shape[int(self.rng.integers(len(shape) + 1)) :])
        try:
            if math.prod(np.broadcast_shapes(a.shape, b.shape)) <= ELEMENTS:
                return b
        except ValueError:
            pass
        if self.chance(0.3):
            return Reduce.of(b, self.pick(["sum", "mean"]))
        flat = Move.of(b, "{a}.reshape(-1)")
        if self.chance(0.3) and len(a.shape) <= 2 and a.size * b.size <= ELEMENTS:
            return Move.of(flat, "{a}[" + ":, " + "None, " * len(a.shape) + "]")
        index = self.rng.integers(0, b.size, a.shape)
        return Move.of(flat, "{a}[" + f"np.array({index.tolist()})]")

    def product(self, a: Node, depth: int) -> Node:
        n = a.shape[-1]
        other = self.leaf()
        if other.shape and len(other.shape) <= 2 and other.shape[0] == n and self.chance(0.7):
            return MatMul.of(a, other)
        if self.chance(0.3):
            return MatMul.of(self.numbers((self.pick([1, 2]), a.shape[0]), scale=0.5), a)
        shape = (n,) if self.chance(0.3) else (n, int(self.pick([1, 2, 3])))
        return MatMul.of(a, self.numbers(shape, scale=0.5))

    def apply(self, a: Node) -> Node:
        name = self.pick(["reverse_times_sum", "largest", "soft_largest", "running_sum",
                          "neighbours", "weighted"])  # fmt: skip
        # An unbounded function of many free sites is one large factor.
        if name == "weighted":
            return Apply.of(name, a, self.numbers(a.shape))
        return Apply.of(name, a)
