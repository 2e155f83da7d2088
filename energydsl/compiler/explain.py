"""What the compiler concluded and chose, as a table and as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from energydsl._types import Refusal
from energydsl.analysis import graph
from energydsl.analysis.conditional import conditionals
from energydsl.analysis.structure import Structure
from energydsl.analysis.value_checks import has_zero_field, is_attractive, no_growth
from energydsl.compiler.conclusions import Conclusions
from energydsl.compiler.slow import slow_parts
from energydsl.language.model import Model
from energydsl.normalizer import Intractable, Normalizer
from energydsl.sweep import AbstractSweep

FORMS = ("multilinear", "quadratic", "pairwise", "forest", "bipartite")
"""Properties that may be proven of a component."""

MEANING = {
    "attractive": "attractive (every pair prefers equal levels)",
    "zero field": "zero field (flipping all sites leaves the energy as it is)",
}
"""What is concluded from the model's present values, explained in a printed table."""

LISTED = 5
"""How many components are described; the others are only counted."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What the compiler concluded, printed as a table; `as_dict` returns plain data."""

    conclusions: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The conclusions as strings, numbers, lists and dicts."""
        return json.loads(json.dumps(self.conclusions))

    def __str__(self) -> str:
        f = self.conclusions
        rows = [("energy", f["energy"]), *(("", v) for v in f["variables"])]
        arrays = f" in {', '.join(f['parameters'])}" if f["parameters"] else ""
        rows.append(("parameters", _count(f["parameter_count"], "number", "numbers") + arrays))
        rows.append(("sites", f"{f['free_sites']:,} free of {f['sites']:,}"))
        rows.append(("factors", f"{f['factors']:,} in {_count(f['batches'], 'batch', 'batches')}"))
        rows.append(("interactions", f"{f['interactions']:,} (pairs of sites)"))
        rows += [("component", _component_text(part)) for part in f["components"]]
        if f["more_components"]:
            rows.append(("", f"and {f['more_components']:,} more, none larger"))
        if f["values"]:
            words = "; ".join(str(MEANING.get(v, v)) for v in f["values"])
            rows.append(("values", f"concluded from the present values: {words}"))
        rows.append(("log Z", f["normalizer"]))
        rows += [("", f"not {name}: {why}") for name, why in f["rules_refused"].items()]
        rows += [("slow", said) for said in f["slow"]]
        rows.append(("sweep", f["sweep"]))
        rows += [("", f"not {name}: {why}") for name, why in f["lowerings_refused"].items()]
        first, *others = [f"{name}: {why}" for name, why in f["samplers"].items()] or ["none"]
        rows += [("sampler", first), *(("", f"or {said}") for said in others)]
        rows += [("", f"not {name}: {why}") for name, why in f["samplers_refused"].items()]
        rows.append(("compiled in", f"{f['seconds']:.2f} s"))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def explain(
    model: Model,
    sweep: AbstractSweep | None,
    normalizer: Normalizer,
    conclusions: Conclusions,
    samplers: Mapping[str, str | Refusal],
) -> Explanation:
    """The explanation of a compiled model."""
    structure = conclusions.structure
    sizes = structure.component_sizes
    largest = np.argsort(-sizes, kind="stable")[:LISTED]
    components = _grouped(
        [
            {**_component(structure, int(c)), "rule": conclusions.survey.cheapest(int(c))}
            for c in largest
        ]
    )
    known = not isinstance(normalizer, Intractable)
    return Explanation(
        {
            "energy": str(model.expression),
            "variables": [line.strip() for line in str(model).splitlines()[1:-1]],
            "parameters": model.parameter_extents,
            "parameter_count": model.parameter_count,
            "sites": structure.sites,
            "free_sites": int(structure.free.sum()),
            "factors": sum(f.size for f in structure.factors),
            "batches": len(structure.factors),
            "interactions": len(structure.edges),
            "components": components,
            "values": _values(structure, model),
            "more_components": len(sizes) - len(largest),
            "normalizer": str(normalizer) if known else "intractable",
            "rules_refused": conclusions.survey.refused(int(largest[0])),
            "slow": slow_parts(structure, model, normalizer),
            "sweep": _sweep(sweep, conclusions),
            "lowerings_refused": _lowerings_refused(sweep, conclusions),
            "samplers": {n: said for n, said in samplers.items() if isinstance(said, str)},
            "samplers_refused": {
                n: said.reason for n, said in samplers.items() if isinstance(said, Refusal)
            },
            "seconds": conclusions.seconds,
        }
    )


def _sweep(sweep: AbstractSweep | None, conclusions: Conclusions) -> str:
    if sweep is None:
        return "none"
    cost = dict(conclusions.lowerings)[sweep.lowering]
    return f"{sweep.lowering}, {sweep.note}: {cost:.3g} operations"


def _lowerings_refused(sweep: AbstractSweep | None, conclusions: Conclusions) -> dict[str, str]:
    """Why no sweep updates certain variables, and why the other lowerings were not chosen."""
    laws = conditionals(conclusions.structure)
    said = {f"of {n}": law.reason for n, law in laws.items() if isinstance(law, Refusal)}
    for name, found in conclusions.lowerings:
        if isinstance(found, Refusal):
            said[name] = found.reason
        elif sweep is None or name != sweep.lowering:
            said[name] = f"{found:.3g} operations"
    return said


def _values(structure: Structure, model: Model) -> list[str]:
    """What is proven from the present values of the parameters, in addition to the structure."""
    found = {"attractive": is_attractive, "zero field": has_zero_field}
    words = [word for word, test in found.items() if test(structure, model)]
    return words + [said for said in (no_growth(structure, model),) if said]


def _component(structure: Structure, number: int) -> dict[str, Any]:
    """The properties of one connected component."""
    inside = structure.component_of == number
    local = np.cumsum(inside) - 1
    edges = local[structure.edges[inside[structure.edges[:, 0]]]]
    nodes = int(inside.sum())
    names = {
        str(v.domain)
        for v in structure.variables
        if inside[structure.offset[v.name] : structure.offset[v.name] + v.size].any()
    }
    wide = structure.crowded
    return {
        "sites": nodes,
        "domains": sorted(names),
        "pairwise": structure.pairwise,
        "multilinear": structure.multilinear,
        "quadratic": structure.quadratic,
        "forest": not wide and len(edges) == nodes - 1,
        "bipartite": not wide and graph.two_colouring(nodes, edges) is not None,
        "planar": None if wide else graph.is_planar(nodes, edges),
        "width_bound": nodes - 1 if wide else graph.width_bound(nodes, edges),
        "colours": len(np.unique(structure.colours[inside])),
    }


def _grouped(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Consecutive components with equal properties as one entry with their count."""
    groups: list[dict[str, Any]] = []
    for part in parts:
        if groups and {**groups[-1], "count": 1} == {**part, "count": 1}:
            groups[-1]["count"] += 1
        else:
            groups.append({**part, "count": 1})
    return groups


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _component_text(part: dict[str, Any]) -> str:
    words = [f"{_count(part['sites'], 'site', 'sites')} of {', '.join(part['domains'])}"]
    if part["count"] > 1:
        words[0] = f"{part['count']:,} alike, each of {words[0]}"
    words += [w for w in FORMS if part[w]]
    planar = {True: "planar", False: "not planar", None: "planarity not tested"}[part["planar"]]
    words += [
        planar,
        f"treewidth <= {part['width_bound']:,}",
        _count(part["colours"], "colour", "colours"),
    ]
    if part["rule"] is not None:
        words.append(f"log Z by {part['rule']}")
    return "; ".join(words)
