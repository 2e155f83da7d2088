"""A case: a model over recipes, what is held of it, its source, and its energy in NumPy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.sparse as sp

import energydsl as ed
from tests.fuzz import functions, optional
from tests.fuzz.recipe import (
    Node,
    Numbers,
    Scene,
    View,
    arrays_of,
    compute,
    positions_of,
    site_of,
    sites_of,
    text_of,
    walk,
)
from tests.fuzz.rounded import Number, Ties, add, exact, logaddexp, multiply, subtract
from tests.fuzz.sites import Site

HEADER = """\
import numpy as np, scipy.sparse as sp, jax, jax.numpy as jnp, energydsl as ed
import numpyro.distributions as dist
from tests.fuzz import functions, optional
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Algebra:
    """A model made of models: `kind` is terms, sum, scaled, over, minus or mixture."""

    kind: str
    parts: tuple[Any, ...]
    number: tuple[float, ...] = ()

    @property
    def terms(self) -> list[Node]:
        """Every scalar energy in it."""
        if self.kind == "terms":
            return list(self.parts)
        return [term for part in self.parts for term in part.terms]

    def source(self, names: dict[int, str]) -> str:
        if self.kind == "terms":
            return f"ed.Model({', '.join(text_of(t, names) for t in self.parts)})"
        texts = [part.source(names) for part in self.parts]
        match self.kind:
            case "sum":
                return f"({' + '.join(texts)})"
            case "scaled":
                return f"({self.number[0]!r} * {texts[0]})"
            case "over":
                return f"({texts[0]} / {self.number[0]!r})"
            case "minus":
                return f"({texts[0]} - {self.number[0]!r} * {texts[1]})"
        return f"ed.mixture({', '.join(texts)}, weights={list(self.number)!r})"

    def energy(self, scene: Scene, memo: dict[Node, Number]) -> Number:
        ties = scene.ties
        if self.kind == "terms":
            values = [compute(t, scene, memo) for t in self.parts]
        else:
            values = [part.energy(scene, memo) for part in self.parts]
        total = values[0]
        numbers = [exact(np.array([n])) for n in self.number]
        match self.kind:
            case "scaled":
                return multiply(numbers[0], total, ties)
            case "over":
                return multiply(exact(1 / numbers[0].value), total, ties)
            case "minus":
                return subtract(total, multiply(numbers[0], values[1], ties), ties)
            case "mixture":
                with np.errstate(invalid="ignore"):
                    logs = [
                        subtract(Number(np.log(n.value), np.ones(1)), v, ties)
                        for n, v in zip(numbers, values, strict=True)
                    ]
                    total = logs[0]
                    for log in logs[1:]:
                        total = logaddexp(total, log, ties)
                return Number(-total.value, total.error)
        for value in values[1:]:
            total = add(total, value, ties)
        return total


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A random model, and what the checks may ask of it."""

    seed: int
    body: Algebra
    held: tuple[tuple[Node, np.ndarray], ...] = ()
    view: Node | None = None
    """A view whose conditional is asked for."""
    budget: int | None = None

    @property
    def sites(self) -> list[Site]:
        return sites_of(*self.body.terms)

    @property
    def arrays(self) -> list[Numbers]:
        return arrays_of(*self.body.terms)

    def evidence(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each variable, which sites are held, and at what."""
        found = {s.name: (np.zeros(s.shape, bool), np.zeros(s.shape)) for s in self.sites}
        for view, value in self.held:
            mask, held = found[site_of(view).name]
            at = positions_of(view).ravel()
            mask.reshape(-1)[at] = True
            held.reshape(-1)[at] = np.broadcast_to(value, view.shape).ravel()
        return found

    def energy(
        self, values: dict[str, np.ndarray], arrays: dict[str, np.ndarray] | None = None
    ) -> tuple[Number, Ties]:
        """The energy of configurations of all variables, batch first; evidence is put in place."""
        batch = max(len(v) for v in values.values())
        evidence = self.evidence()
        full = {s.name: np.where(*evidence[s.name], values[s.name]) for s in self.sites}
        ties = Ties(batch)
        with np.errstate(over="ignore", divide="ignore"):
            energy = self.body.energy(Scene(full, arrays or {}, ties), {})
        return Number(*(np.broadcast_to(a, batch) for a in energy)), ties

    def source(self) -> str:
        """Python that declares `model`, and `view` where there is one."""
        lines = [s.source() for s in self.sites]
        for a in self.arrays:
            text = f"np.array({a.array.tolist()!r}, 'f')".replace("inf", "np.inf")
            text = text if a.owned else f"optional.learnt({a.name!r}, {text})"
            lines.append(f"{a.name} = {text}")
        names = self._shared(lines)
        lines.append(f"model = {self.body.source(names)}")
        for view, value in self.held:
            whole = isinstance(view, View)
            where = repr(view.site.name) if whole else text_of(view, {})
            dtype = "int" if site_of(view).finite or site_of(view).domain == "count" else "'f'"
            text = f"np.array({np.asarray(value).tolist()!r}, {dtype})"
            lines.append(f"model = model.condition({{{where}: {text}}})")
        if self.view is not None:
            lines.append(f"view = {text_of(self.view, {})}")
        budget = "" if self.budget is None else f", budget={self.budget}"
        lines.append(f"ebm = ed.compile(model{budget})")
        return "\n".join(lines)

    def _shared(self, lines: list[str]) -> dict[int, str]:
        """Names for nodes that are used more than once, declared in `lines`."""
        terms = self.body.terms
        uses = Counter(id(c) for node in walk(*terms) for c in node.args)
        uses.update(id(t) for t in terms)
        names: dict[int, str] = {}
        for node in walk(*terms):
            if uses[id(node)] > 1 and node.args:
                text = text_of(node, names)
                names[id(node)] = f"t{len(names)}"
                lines.append(f"{names[id(node)]} = {text}")
        return names

    def build(self) -> dict[str, Any]:
        """Run the source up to the model: its names and values."""
        names = {
            "ed": ed, "np": np, "jnp": jnp, "sp": sp, "dist": dist,
            "functions": functions, "optional": optional,
        }  # fmt: skip
        exec(self.source().rsplit("\n", 1)[0], names)
        return names

    def compile(self, model: Any) -> Any:
        settings = {} if self.budget is None else {"budget": self.budget}
        return ed.compile(model, **settings)
