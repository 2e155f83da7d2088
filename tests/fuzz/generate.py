"""Random cases from a seed."""

from __future__ import annotations

import numpy as np

from tests.fuzz.case import Algebra, Case
from tests.fuzz.energies import Energies
from tests.fuzz.recipe import (
    Density,
    Lookup,
    Node,
    View,
    site_of,
    walk,
)
from tests.fuzz.sites import Site


def generate(seed: int) -> Case:
    """The case of a seed: the same for ever, in one version of this file and of NumPy."""
    return Generator(seed).case()


class Generator(Energies):
    """Draws one case."""

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
