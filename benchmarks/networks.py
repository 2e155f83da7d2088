"""Random networks of the kinds that users bring as UAI files, each with its evidence."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import Delaunay


class Network(NamedTuple):
    """Tables over discrete variables, and the levels that some of them are observed at."""

    cards: list[int]
    scopes: list[tuple[int, ...]]
    tables: list[np.ndarray]
    evidence: dict[int, int]


def pedigree(people: int = 60, loci: int = 3, alleles: int = 3, seed: int = 0) -> Network:
    """Genetic linkage: who inherits which allele from whom, at some loci along a chromosome.

    Each person has two alleles a locus; which of a parent's two alleles a child inherits is chosen
    by a selector, and selectors of neighbouring loci are mostly equal. Every other one is typed.

    Source: Fishelson & Geiger (2002), Bioinformatics 18 Suppl. 1, S189-S198.
    """
    rng = np.random.default_rng(seed)
    parents = _parents(people, rng)
    inherits = np.zeros((alleles, alleles, 2, alleles))
    for first, second in np.ndindex(alleles, alleles):
        inherits[first, second, 0, first] = inherits[first, second, 1, second] = 1.0
    cards, scopes, tables, evidence = [], [], [], {}

    def add(levels: int, scope: tuple[int, ...], table: np.ndarray) -> int:
        cards.append(levels)
        scopes.append((*scope, len(cards) - 1))
        tables.append(table)
        return len(cards) - 1

    before: dict[tuple[int, int], int] = {}
    for _ in range(loci):
        frequency = rng.dirichlet(np.full(alleles, 3.0))
        recombines = rng.uniform(0.02, 0.2)
        linked = np.array([[1 - recombines, recombines], [recombines, 1 - recombines]])
        own, values = [], []
        for person, both in enumerate(parents):
            if both is None:
                values.append(rng.choice(alleles, 2, p=frequency))
                own.append([add(alleles, (), frequency) for _ in range(2)])
                continue
            mine, drawn = [], []
            for side, parent in enumerate(both):
                key = person, side
                linkage = ((), np.full(2, 0.5)) if key not in before else ((before[key],), linked)
                before[key] = add(2, *linkage)
                mine.append(add(alleles, (*own[parent], before[key]), inherits))
                drawn.append(values[parent][rng.integers(2)])
            own.append(mine)
            values.append(np.array(drawn))
        unordered = np.zeros((alleles, alleles, alleles * alleles))
        for a, b in np.ndindex(alleles, alleles):
            unordered[a, b, min(a, b) * alleles + max(a, b)] = 1.0
        for person in np.flatnonzero(rng.random(len(parents)) < 0.5):
            a, b = sorted(values[person].tolist())
            evidence[add(alleles**2, tuple(own[person]), unordered)] = a * alleles + b
    return Network(cards, scopes, tables, evidence)


def _parents(people: int, rng: np.random.Generator) -> list[tuple[int, int] | None]:
    """The parents of each person, of earlier number; None for a founder.

    Most marry somebody from elsewhere and have a few children; one in ten marries a relative.
    """
    found: list[tuple[int, int] | None] = [None, None]
    couples = [(0, 1)]
    while len(found) < people:
        couple = couples[int(rng.integers(max(0, len(couples) - 6), len(couples)))]
        for _ in range(int(rng.integers(1, 4))):
            found.append(couple)
            child = len(found) - 1
            if rng.random() < 0.1:
                couples.append((int(rng.integers(2, child)), child))
            elif rng.random() < 0.6:
                found.append(None)
                couples.append((child, child + 1))
    return found


def grid(side: int = 16, seed: int = 0) -> Network:
    """A square grid of binary variables with random couplings and fields."""
    sites = np.arange(side * side).reshape(side, side)
    down, right = (sites[1:], sites[:-1]), (sites[:, 1:], sites[:, :-1])
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in (down, right)])
    return _pairwise([2] * side**2, pairs.tolist(), 1.5, seed)


def segmentation(regions: int = 220, labels: int = 2, seed: int = 0) -> Network:
    """Regions of an image, each to be labelled: those that touch prefer the same label."""
    points = np.random.default_rng(seed).random((regions, 2))
    pairs = {
        tuple(sorted(pair))
        for corners in Delaunay(points).simplices.tolist()
        for pair in itertools.combinations(corners, 2)
    }
    return _pairwise([labels] * regions, sorted(pairs), 1.0, seed)


def detection(parts: int = 60, places: int = 11, seed: int = 0) -> Network:
    """Parts of an object, each at one of some places: a few parts bind each other closely."""
    rng = np.random.default_rng(seed)
    pairs = set(itertools.combinations(range(4), 2))
    for new in range(4, parts):
        near = [new - 1, *rng.choice(new - 1, 3, replace=False).tolist()] if new < 8 else None
        near = near or rng.choice(np.arange(max(0, new - 7), new), 4, replace=False).tolist()
        pairs |= {(old, new) for old in near}
    return _pairwise([places] * parts, sorted(pairs), 1.0, seed)


def dynamic(width: int = 10, slices: int = 30, seed: int = 0) -> Network:
    """A dynamic Bayesian network: each variable has three parents in the slice before.

    One variable in two is seen with noise at each time.
    """
    rng = np.random.default_rng(seed)
    around = [rng.choice(width, 3, replace=False).tolist() for _ in range(width)]
    laws = rng.dirichlet([0.5, 0.5], (width, 2, 2, 2))
    noise = np.array([[0.9, 0.1], [0.2, 0.8]])
    cards, scopes, tables, evidence = [], [], [], {}
    before: list[int] = []
    for _ in range(slices):
        now = list(range(len(cards), len(cards) + width))
        cards += [2] * width
        for k, site in enumerate(now):
            scopes.append((*(before[j] for j in around[k]), site) if before else (site,))
            tables.append(laws[k] if before else np.full(2, 0.5))
        for site in now[::2]:
            cards.append(2)
            scopes.append((site, len(cards) - 1))
            tables.append(noise)
            evidence[len(cards) - 1] = int(rng.integers(2))
        before = now
    return Network(cards, scopes, tables, evidence)


KINDS: dict[str, Callable[..., Network]] = {
    "pedigree": pedigree,
    "grid": grid,
    "segmentation": segmentation,
    "detection": detection,
    "dynamic": dynamic,
}
"""A generator of each kind, by name."""


def _pairwise(cards: list[int], pairs: list, strength: float, seed: int) -> Network:
    """Random tables of all pairs and of all single variables."""
    rng = np.random.default_rng(seed)
    scopes = [(k,) for k in range(len(cards))] + [(int(a), int(b)) for a, b in pairs]
    shapes = [[cards[i] for i in scope] for scope in scopes]
    # As float32, in which models hold their numbers, so that other libraries get the same.
    logs = [(strength * rng.normal(size=shape)).astype(np.float32) for shape in shapes]
    tables = [np.exp(each.astype(float)) for each in logs]
    return Network(cards, scopes, tables, {})


def write(network: Network, folder: Path) -> tuple[Path, Path]:
    """The network and its evidence as UAI files in a folder."""
    lines = ["MARKOV", str(len(network.cards)), " ".join(map(str, network.cards))]
    lines.append(str(len(network.scopes)))
    lines += [" ".join(map(str, (len(scope), *scope))) for scope in network.scopes]
    for table in network.tables:
        lines += [str(table.size), " ".join(map(repr, table.ravel().tolist()))]
    path, seen = folder / "network.uai", folder / "network.uai.evid"
    path.write_text("\n".join(lines) + "\n")
    pairs = itertools.chain.from_iterable(network.evidence.items())
    seen.write_text(" ".join(map(str, (len(network.evidence), *pairs))) + "\n")
    return path, seen
