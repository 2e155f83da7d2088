"""Pictures of factor graphs."""

from __future__ import annotations

import math
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.csgraph as csgraph
from scipy.linalg import orthogonal_procrustes

from energydsl.analysis.factor import Factor
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.reporting.canvas import COLOURS, blank, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS, MAX_NAMED = "ijklmnpq", 4
"""The names of running indices, and the most sites of a factor that are named."""

MAX_SITES, MAX_LINES = 60, 180
"""The most sites, and lines from factors to sites, that are shown; of others, batches are."""

FACTOR, CLAMPED, LINE = "#333333", "#C8C8C8", "#AAAAAA"

APART = 0.75
"""The least distance between nodes, where neighbours are about 1 apart."""

SIDE, LINE_LENGTH = 6.4, 66
"""The size of the picture in inches, and the letters that fit beside each other below it."""


def draw_factor_graph(model: Model, path: str | PathLike | None = None) -> Figure:
    """Draw variables as circles and factors as squares, joined where a factor contains a site.

    Clamped sites are grey, latent ones hollow. For a small model every site and every factor is
    shown; for a larger one there is one circle per variable and one square per batch of factors.

    Args:
        model: the model.
        path: the file to which the picture is written, if any.
    """
    structure = Structure(model)
    lines = sum(f.size * structure.scope_size(f) for f in structure.factors)
    small = structure.sites <= MAX_SITES and lines <= MAX_LINES
    return saved(_draw_sites(structure) if small else _draw_batches(structure), path)


def _draw_sites(structure: Structure) -> Figure:
    """A picture with a circle for every site and a square for every factor."""
    from matplotlib.collections import LineCollection

    scopes = [set(row) for f in structure.factors for row in structure.scope(f).tolist()]
    edges = np.array(
        [(site, structure.sites + k) for k, scope in enumerate(scopes) for site in scope]
    ).reshape(-1, 2)
    places = _upright(_layout(structure.sites + len(scopes), edges), structure)
    radius = np.abs(places).max() + 0.5
    # The diameter in points is a little smaller than the length of an edge.
    diameter = np.clip(0.8 * 72 * SIDE / (2 * radius), 9, 30)
    figure, axes = blank(SIDE, SIDE)
    axes.set(xlim=(-radius, radius), ylim=(-radius, radius), aspect="equal")
    axes.add_collection(LineCollection(list(places[edges]), color=LINE, lw=0.8, zorder=1))
    axes.scatter(
        *places[structure.sites :].T, marker="s", s=diameter**2 / 9, color=FACTOR, zorder=2
    )
    for number in range(len(structure.variables)):
        _draw_variable(axes, structure, number, places, diameter)
    if not structure.free.all():
        axes.scatter([], [], s=80, color=CLAMPED, label="clamped")
    longest = max(len(str(v)) for v in structure.variables)
    columns = int(np.clip(LINE_LENGTH // (longest + 6), 1, 3))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _draw_variable(
    axes: Axes, structure: Structure, number: int, places: np.ndarray, diameter: float
) -> None:
    """Draw the circles of one variable, with their indices, and its line in the legend."""
    v = structure.variables[number]
    sites = np.arange(v.size) + structure.offset[v.name]
    style = _style(number, v, ~structure.free[sites])
    axes.scatter(*places[sites].T, s=diameter**2, zorder=3, **style)
    axes.scatter([], [], s=80, label=str(v), **_style(number, v, np.zeros(1, bool)))
    for index, place in zip(np.ndindex(v.shape), places[sites], strict=True):
        text = ",".join(map(str, index)) or v.name
        axes.annotate(text, place, size=0.3 * diameter, ha="center", va="center", zorder=4)


def _draw_batches(structure: Structure) -> Figure:
    """A picture with variables in one column and batches of factors in another."""
    variables, factors = structure.variables, structure.factors
    rows = max(len(variables), len(factors))
    left, right = _spaced(len(variables), rows), _spaced(len(factors), rows)
    figure, axes = blank(8, 0.8 * rows + 0.4)
    axes.set(xlim=(-1.2, 2.2), ylim=(rows, 0))
    for factor, y in zip(factors, right, strict=True):
        for k in {variables.index(leaf.variable) for leaf in factor.sites.values()}:
            axes.plot((0, 1), (left[k], y), color=LINE, lw=1.2, zorder=1)
        axes.scatter(1, y, marker="s", s=_area(factor.size), color=FACTOR, zorder=2)
        axes.annotate(
            _batch_text(structure, factor), (1, y), (18, 0), textcoords="offset points", va="center"
        )
    for number, (v, y) in enumerate(zip(variables, left, strict=True)):
        held = structure.skeleton.mask(v)
        style = _style(number, v, np.atleast_1d(held.all()))
        axes.scatter(0, y, s=_area(v.size), zorder=2, **style)
        note = "" if not held.any() else " clamped" if held.all() else f"\n{held.sum():,} clamped"
        axes.annotate(
            f"{v}{note}", (0, y), (-18, 0), textcoords="offset points", va="center", ha="right"
        )
    return figure


def _spaced(count: int, rows: int) -> np.ndarray:
    """The heights of `count` marks that are spread evenly over `rows` rows."""
    return (np.arange(count) + 0.5) * rows / max(count, 1)


def _batch_text(structure: Structure, factor: Factor) -> str:
    """The number of factors, and the sites of each: ``4,032 factors of s[i, j] and s[i+1, j]``."""
    count = f"{factor.size:,} factor{'s' * (factor.size > 1)} of "
    sites = structure.scope_size(factor)
    if sites <= MAX_NAMED:
        return count + " and ".join(_pattern(structure, factor))
    names = dict.fromkeys(leaf.variable.name for leaf in factor.sites.values())
    return f"{count}{sites:,} sites of {' and '.join(names)}"


def _pattern(structure: Structure, factor: Factor) -> list[str]:
    """The sites of each factor of a batch, with letters for the indices that run.

    An index that differs from an earlier one of the same range by a constant, around the end of the
    range if need be, is written with the letter of that one.
    """
    running: list[tuple[str, int, np.ndarray]] = []
    texts = []
    scope, columns = structure.scope(factor), 0
    for leaf in factor.sites.values():
        v = leaf.variable
        for _ in range(math.prod(leaf.index.shape[1:])):
            sites = scope[:, columns] - structure.offset[v.name]
            places = np.unravel_index(sites, v.shape) if v.shape else ()
            columns += 1
            inside = [_index(p, n, running) for p, n in zip(places, v.shape, strict=True)]
            texts.append(f"{v.name}[{', '.join(inside)}]" if inside else v.name)
    return list(dict.fromkeys(texts))


def _index(places: np.ndarray, size: int, running: list[tuple[str, int, np.ndarray]]) -> str:
    """The text of one index of a batch; a new letter is added to those that run."""
    if (places == places[0]).all():
        return str(places[0])
    for letter, range_of, values in running:
        gaps = (places - values) % size
        if range_of == size and (gaps == gaps[0]).all():
            gap = int(gaps[0] - size * (2 * gaps[0] > size))
            return f"{letter}{gap:+d}" if gap else letter
    letter = LETTERS[len(running) % len(LETTERS)]
    running.append((letter, size, places))
    return letter


def _area(count: int) -> float:
    """The area of a mark that represents `count` sites or factors."""
    return 60 + 40 * np.log10(count)


def _style(number: int, variable: Variable, clamped: np.ndarray) -> dict[str, Any]:
    """The colours of a variable's marks: white inside if latent, grey if clamped."""
    from matplotlib.colors import to_rgb

    colour = COLOURS[number % len(COLOURS)]
    tint = np.ones(3) if variable.latent else 0.7 + 0.3 * np.array(to_rgb(colour))
    face = np.where(clamped[:, None], to_rgb(CLAMPED), tint)
    return {"facecolor": face, "edgecolor": colour, "linewidth": 1.5}


def _layout(nodes: int, edges: np.ndarray) -> np.ndarray:
    """Positions of nodes whose distances approximate those in the graph, by stress majorisation.

    Source: Gansner, Koren & North (2005), Graph Drawing 2004, LNCS 3383, 239-250.
    """
    graph = sp.csr_array((np.ones(len(edges)), tuple(edges.T)), shape=(nodes, nodes))
    far = csgraph.shortest_path(graph, directed=False, unweighted=True)
    far[np.isinf(far)] = far[np.isfinite(far)].mean() + 2
    places = _principal(far) + 1e-3 * np.random.default_rng(0).normal(size=(nodes, 2))
    np.fill_diagonal(far, np.inf)
    weights = far**-2
    solve = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    for _ in range(200):
        gaps = np.linalg.norm(places[:, None] - places, axis=-1)
        pull = 1 / (far * np.maximum(gaps, 1e-6))
        places = solve @ (pull.sum(axis=1)[:, None] * places - pull @ places)
    return _apart(places)


def _apart(places: np.ndarray) -> np.ndarray:
    """Positions in which nodes are not drawn over each other, moved from those as little as needed.

    Nodes with the same neighbours have the same distances to all others, and would coincide.
    """
    for _ in range(100):
        steps = places[:, None] - places
        gaps = np.maximum(np.linalg.norm(steps, axis=-1), 1e-6)
        np.fill_diagonal(gaps, np.inf)
        if (gaps >= APART).all():
            break
        push = np.maximum(APART - gaps, 0.0) / gaps / 2
        places = places + (push[:, :, None] * steps).sum(axis=1)
    return places


def _principal(far: np.ndarray) -> np.ndarray:
    """Initial positions by classical multidimensional scaling."""
    centred = np.eye(len(far)) - 1 / len(far)
    values, vectors = np.linalg.eigh(-0.5 * centred @ far**2 @ centred)
    return vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))


def _upright(places: np.ndarray, structure: Structure) -> np.ndarray:
    """Positions rotated so that the first grid of sites has rows downwards, columns rightwards."""
    places = places - places.mean(axis=0)
    grids = [v for v in structure.variables if len(v.shape) == 2]
    if not grids:
        return places
    first = structure.offset[grids[0].name]
    rows, columns = np.indices(grids[0].shape).reshape(2, -1)
    rotation, _ = orthogonal_procrustes(
        places[first : first + grids[0].size],
        np.stack([columns - columns.mean(), rows.mean() - rows], axis=1),
    )
    return places @ rotation
