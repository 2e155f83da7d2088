"""Random scalar energies: tables, couplings, densities, lattices, and sums of expressions."""

from __future__ import annotations

import math

import numpy as np

from tests.fuzz import densities
from tests.fuzz.arrays import ELEMENTS, Arrays
from tests.fuzz.growth import degree
from tests.fuzz.recipe import (
    Binary,
    Constant,
    Density,
    Lookup,
    Move,
    Node,
    Numbers,
    Potential,
    Power,
    Reduce,
    Sparse,
    Unary,
    View,
    domain_of,
    site_of,
)
from tests.fuzz.sites import Site


class Energies(Arrays):
    """Draws scalar energies, each as small as keeps the whole model in bounds."""

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
            # Poisson's n log n alone does not outweigh a negative square.
            square = Binary.of("multiply", Constant.of(0.2), total(Power.of(view, 2)))
            return Binary.of("add", square, self.of_family("Poisson", view))
        if site.domain == "positive_definite":
            return Binary.of("multiply", Constant.of(0.4), total(Power.of(view, 2)))
        return None
