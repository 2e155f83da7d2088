"""Random cases from a seed."""

from __future__ import annotations

import math

import numpy as np

from tests.fuzz import densities, optional
from tests.fuzz.case import Algebra, Case
from tests.fuzz.recipe import (
    Apply,
    Binary,
    Constant,
    Density,
    Lookup,
    MatMul,
    Move,
    Node,
    Numbers,
    Potential,
    Power,
    Reduce,
    Scene,
    Sparse,
    Unary,
    View,
    Where,
    compute,
    domain_of,
    site_of,
    walk,
)
from tests.fuzz.rounded import Ties
from tests.fuzz.sites import Site

STATES, MIXED_STATES = 2**11, 2**6
"""Joint levels of the finite sites at most: alone, and beside continuous ones."""

SAMPLES = 32
LARGEST = 6.0
"""Values within an energy stay about this small."""

ELEMENTS = 36
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def generate(seed: int) -> Case:
    """The case of a seed: the same for ever, in one version of this file and of NumPy."""
    return Generator(seed).case()


class Generator:
    """Draws one case; what it has drawn so far decides what still fits."""

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
        self.unit = {s.name for s in self.sites if s.settings == (("low", 0.0), ("high", 1.0))}

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
                return Binary.of(self.pick(COMPARISONS), a, self.constant())
            case name:
                return Unary.of(name, a)

    def binary(self, a: Node, b: Node) -> Node:
        name = self.pick(["add", "subtract", "multiply", "multiply", "multiply", "divide",
                          "compare", "where", "maximum", "minimum", "logaddexp",
                          "power_of"])  # fmt: skip
        if name == "compare":
            return Binary.of(self.pick(COMPARISONS), a, b)
        if name == "divide":
            return Binary.of("divide", a, Binary.of("add", Constant.of(2.0), Power.of(b, 2)))
        if name == "power_of":
            base = Binary.of("add", Constant.of(0.5), Unary.of("softplus", a))
            return Binary.of("power_of", base, Unary.of("tanh", b))
        if name == "where":
            test = Binary.of(self.pick(COMPARISONS), a, self.constant())
            return Where.of(test, b, self.pick([a, self.constant()]))
        return Binary.of(name, *((a, b) if self.chance(0.7) else (b, a)))

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

    # Energies.

    def term(self) -> Node:
        """A scalar energy that no continuous site can run away along."""
        kind = self.rng.random()
        builders = [
            self.table,
            self.sparse,
            self.density,
            self.potential,
            self.neighbours,
            self.one_by_one,
        ]
        node = self.pick(builders)() if kind < 0.55 else None
        return node if node is not None else self.closed(self.array(int(self.pick([1, 2, 3]))))

    def closed(self, a: Node) -> Node:
        """A scalar of moderate size."""
        growth = degree(a)
        if growth > 2 or (growth > 1 and not self.quadratic and self.chance(0.5)):
            a = Unary.of("tanh", a)
            growth = 0
        if a.shape:
            a = Reduce.of(a, self.pick(["sum", "sum", "mean"]))
        top = self.largest(a)
        limit = 0.1 if growth > 1 else self.pick([0.5, 1.0, 2.0])
        weight = float(f"{self.pick([-1, 1]) * limit / (1 + top):.3g}")
        if self.chance(0.3):
            return Binary.of("multiply", self.numbers((), scale=abs(weight)), a)
        return Binary.of("multiply", Constant.of(weight), a)

    def finite_view(self) -> Node | None:
        sites = [s for s in self.sites if s.finite]
        return self.view(self.pick(sites)) if sites else None

    def table(self) -> Node | None:
        views = [v for v in (self.finite_view() for _ in range(int(self.pick([1, 2, 2, 3])))) if v]
        if not views:
            return None
        if len(views) > 1 and self.chance(0.15):
            views[1] = views[0]
        shape = views[0].shape
        for k, view in enumerate(views[1:], 1):
            views[k] = self._alike(view, shape)
            shape = np.broadcast_shapes(shape, views[k].shape)
        levels = tuple(len(site_of(v).levels) for v in views)
        batch = np.broadcast_shapes(*(v.shape for v in views))
        if math.prod(levels) > 64 or math.prod(batch) > ELEMENTS:
            return None
        own = batch if self.chance(0.3) else ()
        kind = self.pick(["energy", "log_potential"])
        table = self.numbers((*own, *levels), owned=True, scale=0.7)
        if kind == "log_potential" and self.chance(0.4):
            zeros = self.rng.random(table.shape) < 0.15
            table = Numbers.of(table.name, np.where(zeros, -np.inf, table.array), True)
        node = Lookup.of(table, kind, tuple(views))
        return Reduce.of(node) if node.shape else node

    def _alike(self, view: Node, shape: tuple[int, ...]) -> Node:
        """A view that broadcasts with another of `shape`."""
        try:
            if math.prod(np.broadcast_shapes(view.shape, shape)) <= ELEMENTS:
                return view
        except ValueError:
            pass
        index = self.rng.integers(0, view.size, shape)
        return Move.of(Move.of(view, "{a}.reshape(-1)"), "{a}[" + f"np.array({index.tolist()})]")

    def vector(self) -> Node | None:
        sites = [s for s in self.sites if s.shape]
        if not sites:
            return None
        node = self.view(self.pick(sites))
        return node if len(node.shape) == 1 else Move.of(node, "{a}.reshape(-1)")

    def weighed(self, energy: Node) -> Node:
        """Small enough where it could pull two real sites away without bound."""
        return self.closed(energy) if degree(energy) > 0 or self.largest(energy) > 4 else energy

    def sparse(self) -> Node | None:
        x, y = self.vector(), self.vector()
        if x is None or y is None or x.size * y.size > 64:
            return None
        matrix = self.normal((x.size, y.size)) * (self.rng.random((x.size, y.size)) < 0.4)
        matrix.flat[int(self.rng.integers(matrix.size))] = 0.5
        named = Numbers.of(self.numbers(()).name, matrix, owned=True)
        return self.weighed(Sparse.of(x, named, y))

    def potential(self) -> Node | None:
        x, y = self.vector(), self.vector()
        if x is None or y is None:
            return None
        kinds = ["Coupling", "Linear", "Quadratic", "Neural"]
        kind = self.pick(kinds[:3] if self.quadratic else kinds)
        n = x.size
        if kind == "Coupling":
            arrays, views = (self.numbers((n, y.size), True, 0.4),), (x, y)
        elif kind == "Linear":
            x = self.leaf()
            arrays, views = (self.numbers(x.shape, True),), (x,)
        elif kind == "Quadratic":
            arrays, views = (self.numbers((n, n), True, 0.4), self.numbers((n,), True)), (x,)
        else:
            first = self.numbers((n, 3), True, 0.6)
            arrays, views = (first, self.numbers((3,), True, 0.8)), (x,)
        return self.weighed(Potential.of(kind, views, arrays))

    def neighbours(self) -> Node | None:
        """A lattice: each site with the next along one axis, on a torus or with open ends."""
        sites = [s for s in self.sites if s.shape and s.finite]
        if not sites:
            return None
        view: Node = View.of(self.pick(sites))
        axis = int(self.rng.integers(len(view.shape)))
        if self.chance(0.5):
            other: Node = Move.of(view, "{roll}({a}, " + f"{self.pick([1, -1, 2])}, {axis})")
            one = view
        elif view.shape[axis] > 1:
            before = ":, " * axis
            one = Move.of(view, "{a}[" + before + "1:]")
            other = Move.of(view, "{a}[" + before + ":-1]")
        else:
            return None
        together = Binary.of(
            "equal" if domain_of(view) == "categorical" else "multiply", one, other
        )
        if self.chance(0.3):
            together = Binary.of("multiply", self.numbers(together.shape), together)
        return self.closed(together)

    def one_by_one(self) -> Node:
        """A sum as a Python loop writes it: a term an edge, each of single sites."""
        a, b = self.pick(self.sites), self.pick(self.sites)
        total = None
        for _ in range(int(self.pick([2, 3, 5, 8]))):
            edge = Binary.of("multiply", self.entry(a), self.entry(b))
            edge = Binary.of("multiply", self.pick([Constant.of, self._number])(0.3), edge)
            total = edge if total is None else Binary.of("add", total, edge)
        return self.weighed(total)

    def _number(self, scale: float) -> Numbers:
        return self.numbers((), scale=scale)

    def entry(self, site: Site) -> Node:
        """One site of a variable."""
        if not site.shape:
            return View.of(site)
        index = ", ".join(str(int(self.rng.integers(-n, n))) for n in site.shape)
        return Move.of(View.of(site), "{a}[" + index + "]")

    def density(self) -> Node | None:
        view = self.leaf()
        families = [n for n, f in densities.FAMILIES.items() if f.domain == self.kind(view)]
        if not families or (self.kind(view) == "simplex" and not isinstance(view, View)):
            return None
        return self.of_family(self.pick(families), view)

    def kind(self, view: Node) -> str:
        site = site_of(view)
        return "unit" if site.name in self.unit else site.domain

    def of_family(self, name: str, view: Node) -> Node:
        family = densities.FAMILIES[name]
        form = self.pick(["instance", "family", "family"])
        batch = view.shape[: len(view.shape) - family.event_ndims[0]]
        parameters = []
        for need in family.parameters:
            shape = batch if self.chance(0.4) else ()
            if need == "levels":
                levels = view.shape[-1] if name == "Dirichlet" else len(site_of(view).levels)
                values = self.normal((*shape, levels))
                values = np.exp(0.4 * values) + 0.5 if name == "Dirichlet" else values
                parameters.append(Numbers.of(self.numbers(()).name, values, form == "instance"))
            elif form == "family" and self.chance(0.4):
                parameters.append(self.parameter(need, view))
            elif self.chance(0.5):
                value = float(np.round(self.rng.uniform(0.7, 2.0), 2))
                parameters.append(Constant.of(value))
            else:
                values = self.normal(shape)
                values = np.exp(0.4 * values) if need == "positive" else values
                parameters.append(Numbers.of(self.numbers(()).name, values, form == "instance"))
        return Density.of(name, view, tuple(parameters), form)

    def parameter(self, need: str, view: Node) -> Node:
        """A parameter of a density that is an expression of other variables."""
        others = [s for s in self.sites if s is not site_of(view)]
        a = self._alike(self.view(self.pick(others)), view.shape) if others else self.constant()
        if len(a.shape) > len(view.shape):
            a = self._alike(Reduce.of(a), view.shape) if a.size else a
        a = Binary.of("multiply", Constant.of(0.5), a)
        if need == "positive":
            return Unary.of("exp", Binary.of("multiply", Constant.of(0.5), Unary.of("tanh", a)))
        return a if degree(a) == 0 or self.chance(0.5) else Unary.of("tanh", a)

    def anchor(self, site: Site) -> Node | None:
        """What keeps a continuous variable from running away, or nothing where it cannot."""
        view = View.of(site)
        total = Reduce.of if site.shape else (lambda a: a)
        if site.domain == "real":
            match self.pick(["square", "normal", "shifted", "quadratic"]):
                case "normal":
                    scale = Numbers.of(
                        self.numbers(()).name, self.rng.uniform(0.6, 1.5, site.shape)
                    )
                    return Density.of("Normal", view, (self.constant(), scale), "family")
                case "shifted":
                    gap = Binary.of("subtract", view, self.numbers(site.shape))
                    return total(Power.of(gap, 2))
                case "quadratic" if len(site.shape) == 1:
                    root = self.rng.normal(size=(site.size, site.size)) * 0.4
                    a = Numbers.of(self.numbers(()).name, root @ root.T + np.eye(site.size), True)
                    b = self.numbers(site.shape, True)
                    return Potential.of("Quadratic", (view,), (a, b))
            return Binary.of(
                "multiply", Constant.of(self.pick([0.5, 1.0])), total(Power.of(view, 2))
            )
        if site.domain == "positive":
            square = Binary.of("multiply", Constant.of(0.4), total(Power.of(view, 2)))
            if self.chance(0.5):
                log = Binary.of("multiply", Constant.of(-0.7), total(Unary.of("log", view)))
                return Binary.of("add", square, log)
            return Binary.of("add", square, self.of_family("Gamma", view))
        if site.domain == "interval":
            return Binary.of("multiply", Constant.of(0.2), total(view))
        if site.domain == "simplex" and (len(site.shape) > 1 or self.chance(0.7)):
            return self.of_family("Dirichlet", view)
        if site.domain == "count":
            return self.of_family("Poisson", view)
        if site.domain == "positive_definite":
            return total(view)
        return None

    # Models.

    def case(self) -> Case:
        body = self.model(2)
        terms = body.terms
        used = {n.site.name for n in walk(*terms) if isinstance(n, View)}
        self.sites = [s for s in self.sites if s.name in used]
        anchors = [t for s in self.sites if (t := self.anchor(s)) is not None]
        if anchors:
            body = Algebra("sum", (body, Algebra("terms", tuple(anchors))))
        if not used:
            site = self.sites[0] if self.sites else Site("a", "spin", (3,))
            body = Algebra("terms", (self.closed(View.of(site)),))
        held = self.held() if self.chance(0.4) else ()
        view = self.view(self.pick(self.sites)) if self.sites else None
        budget = int(self.pick([2, 4, 6, 9])) if self.chance(0.15) else None
        return Case(self.seed, body, held, view, budget)

    def model(self, depth: int) -> Algebra:
        kind = self.rng.random()
        if depth == 0 or kind < 0.6:
            count = int(self.pick([1, 1, 2, 3]))
            return Algebra("terms", tuple(self.term() for _ in range(count)))
        one = self.model(depth - 1)
        number = float(np.float32(round(float(self.rng.uniform(0.4, 1.6)), 2)))
        if kind < 0.68:
            return Algebra("scaled", (one,), (number,))
        if kind < 0.76:
            return Algebra("over", (one,), (number,))
        other = self.model(depth - 1)
        if kind < 0.84 and not _has_infinity(other) and not _has_density(other):
            return Algebra("minus", (one, other), (0.5,))
        if kind < 0.92 and _names(one) == _names(other):
            return Algebra("mixture", (one, other), (number, 0.75))
        return Algebra("sum", (one, other))

    def held(self) -> tuple[tuple[Node, np.ndarray], ...]:
        found = []
        for site in self.sites:
            if not self.chance(0.6):
                continue
            event = {"simplex": 1, "positive_definite": 2}.get(site.domain, 0)
            view: Node = View.of(site)
            if not event and self.chance(0.7):
                view = self.move(view)
            at = np.arange(site.size) if isinstance(view, View) else view.positions  # type: ignore
            values = site.draw(self.rng, 1).reshape(-1)[np.asarray(at)].reshape(view.shape)
            if not site.finite and site.domain != "count":
                values = values.astype(np.float32)
            found.append((view, values))
        nothing_free = all(
            any(site_of(v) is s and v.size == s.size for v, _ in found) for s in self.sites
        )
        return () if nothing_free and self.chance(0.9) else tuple(found)


def _names(model: Algebra) -> set[str]:
    return {n.site.name for n in walk(*model.terms) if isinstance(n, View)}


def _has_infinity(model: Algebra) -> bool:
    nodes = walk(*model.terms)
    return any(isinstance(n, Lookup) and np.isinf(n.table.array).any() for n in nodes)


def _has_density(model: Algebra) -> bool:
    return any(isinstance(n, Density) for n in walk(*model.terms))


def degree(root: Node) -> float:
    """A bound on how fast a value grows with the real and positive sites, as a power."""
    done: dict[int, float] = {}
    for node in walk(root):
        below = [done[id(c)] for c in node.args]
        done[id(node)] = _degree(node, below)
    return done[id(root)]


def _degree(node: Node, below: list[float]) -> float:
    top = max(below, default=0.0)
    match node:
        case View(site=site):
            return float(site.domain in ("real", "positive", "positive_definite", "count"))
        case Binary(name="multiply") | MatMul() | Sparse():
            return sum(below)
        case Binary(name="divide"):
            return below[0]
        case Binary(name=name) if name in COMPARISONS:
            return 0.0
        case Binary(name="power_of"):
            return top
        case Power(exponent=k):
            return k * top
        case Unary(name="tanh" | "sin" | "cos"):
            return 0.0
        case Unary(name="exp"):
            return math.inf if top else 0.0
        case Apply(name="neighbours" | "weighted"):
            return 0.0
        case Apply(name="reverse_times_sum"):
            return 2 * top
        case Potential(kind="Quadratic"):
            return 2 * top
        case Potential(kind="Coupling"):
            return sum(below)
        case Potential(kind="Neural"):
            return 0.0
        case Density():
            return 2 * top
    return top
