r"""Estimates and brackets of log Z on five models whose log Z is exact.

$$\log Z = \log \sum_x e^{-E(x)}$$

of a random Ising grid, a restricted Boltzmann machine, a mixture of Gaussian wells (a label and a
point of the plane), a cycle of Potts labels, and a hard-core gas, in which neighbours of a particle
are empty. The compiler finds each exactly, by the rule shown. Beside it stand four estimates that
use only energies and samplers: annealed importance sampling and sequential Monte Carlo, each with a
95 % interval; the bracket of annealing in both directions, each end of which is wrong with
probability 2.5 % at most, however badly the chains mix; and proven bounds by mean field and trees,
for pairwise models of finite sites. All ends are shown relative to the exact value, so that
brackets and bounds hold where they include 0.

Teaches: exact log Z beside annealed importance sampling, sequential Monte Carlo, brackets and
proven bounds, and what each of their errors means.

Source: Neal (2001), Statistics and Computing 11, 125-139; Del Moral, Doucet & Jasra (2006),
J. R. Statist. Soc. B 68, 411-436; Grosse, Ghahramani & Adams (2015), arXiv:1511.02543; Wainwright,
Jaakkola & Willsky (2005), IEEE Transactions on Information Theory 51, 2313-2335.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed

WELLS = np.array([[-2.0, 0.0], [2.0, 0.5], [0.0, 3.0]])


def ising(rng: np.random.Generator, side: int = 6) -> ed.Model:
    """A grid of spins with normal couplings and a weak field."""
    s, across = ed.spin("s", (side, side)), rng.normal(size=(side, side - 1)).astype(np.float32)
    down = rng.normal(size=(side - 1, side)).astype(np.float32)
    return ed.Model(
        -(0.7 * across * s[:, 1:] * s[:, :-1]).sum()
        - (0.7 * down * s[1:] * s[:-1]).sum()
        - 0.1 * s.sum()
    )


def rbm(rng: np.random.Generator, visible: int = 20, hidden: int = 8) -> ed.Model:
    """A restricted Boltzmann machine with normal weights."""
    x, h = ed.binary("x", visible), ed.binary("h", hidden, latent=True)
    weights = rng.normal(size=(visible, hidden)).astype(np.float32)
    return ed.Model(-(x @ (0.7 * weights) @ h) + 0.5 * x.sum() + 0.5 * h.sum())


def wells(rng: np.random.Generator) -> ed.Model:
    """A point y near the centre of the well with the label k."""
    del rng
    k, y = ed.categorical("k", levels=len(WELLS)), ed.real("y", 2)
    centres = [sum(float(c) * (k == j) for j, c in enumerate(WELLS[:, d])) for d in range(2)]
    return ed.Model(((y[0] - centres[0]) ** 2 + (y[1] - centres[1]) ** 2) / (2 * 0.5**2))


def potts(rng: np.random.Generator, length: int = 12, levels: int = 4) -> ed.Model:
    """A cycle of labels that prefer equal neighbours, each with its own preferences."""
    c = ed.categorical("c", length, levels=levels)
    fields = rng.normal(size=(length, levels)).astype(np.float32)
    alike = (c == ed.roll(c, 1)).sum()
    return ed.Model(-1.2 * alike + sum((fields[:, j] * (c == j)).sum() for j in range(levels)))


def gas(rng: np.random.Generator, side: int = 6) -> ed.Model:
    """Particles on a grid of which no two are neighbours."""
    del rng
    g = ed.binary("g", (side, side))
    pair = ed.Table(log_potential=np.array([[0, 0], [0, -np.inf]]))
    return ed.Model(pair(g[1:], g[:-1]).sum() + pair(g[:, 1:], g[:, :-1]).sum() - 0.5 * g.sum())


MODELS: dict[str, Callable[[np.random.Generator], ed.Model]] = {
    "ising": ising,
    "rbm": rbm,
    "wells": wells,
    "potts": potts,
    "gas": gas,
}


WORDS = {
    "log Z": "{log_z:.4f}, exact by {rule}",
    "AIS minus exact": "{AIS_gap ± AIS_error}",
    "SMC minus exact": "{SMC_gap ± SMC_error}",
    "bracket minus exact": "{bracket_lower:+.3f} to {bracket_upper:+.3f}",
    "bounds minus exact": "{bounds_lower:+.3f} to {bounds_upper:+.3f}",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(name: str = "ising", seed: int = 0) -> ed.Model:
    """One of the models, with its random couplings."""
    return MODELS[name](np.random.default_rng(seed))


def main(
    seed: Seed = 0,
    out: Out = Path("out/partition_functions"),
    chains: Annotated[int, typer.Option(min=16, help="Of AIS and the bracket.")] = 64,
    temperatures: Annotated[int, typer.Option(min=1, help="Of AIS and the bracket.")] = 200,
) -> dict[str, Any]:
    """Compare four kinds of estimates of log Z with the exact value on each model."""
    out.mkdir(parents=True, exist_ok=True)
    methods = {
        "AIS": ed.AIS(chains=chains, temperatures=temperatures),
        "SMC": ed.SMC(particles=chains),
        "bracket": ed.Bracket(chains=chains, temperatures=temperatures),
        "bounds": ed.Bounds(),
    }
    numbers, found = {}, {}
    for name in MODELS:
        ebm = ed.compile(declare(name, seed))
        found[name] = estimates(ebm, methods, seed)
        numbers[name] = summary(ebm, found[name])
    draw(numbers, found, out / "intervals.png")
    return numbers


def estimates(
    ebm: ed.EBM, methods: dict[str, ed.AbstractEstimator], seed: int
) -> dict[str, ed.LogZ]:
    """Log Z by each method that applies to the model."""
    found = {}
    for k, (name, method) in enumerate(methods.items()):
        key = jr.fold_in(jr.key(seed), k)
        try:
            found[name] = ed.estimate_log_partition(ebm, method, key=key)
        except TypeError:  # proven bounds of a model that is not finite and pairwise
            continue
    return found


def summary(ebm: ed.EBM, found: dict[str, ed.LogZ]) -> dict[str, Any]:
    """The exact value with its rule, and the intervals relative to it."""
    assert isinstance(ebm.normalizer, ed.Exact)
    exact = float(ed.log_partition(ebm))
    row: dict[str, Any] = {"log_z": exact, "rule": ebm.normalizer.plans[0].rule.name}
    for name, one in found.items():
        if one.kind == "estimate":
            row[f"{name}_gap"], row[f"{name}_error"] = one.value - exact, one.standard_error
        else:
            row[f"{name}_lower"], row[f"{name}_upper"] = one.lower - exact, one.upper - exact
    row["held"] = all(one.lower <= exact <= one.upper for name, one in found.items() if _sure(name))
    return row


def _sure(name: str) -> bool:
    """Whether the ends of a method need no trust in the chains' mixing."""
    return name in ("bracket", "bounds")


def draw(numbers: dict[str, Any], found: dict[str, dict[str, ed.LogZ]], path: Path) -> None:
    """Plot the interval of each estimate around the exact value, on a scale linear near 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axis = figure.subplots()
    colours = {"AIS": "C0", "SMC": "C2", "bracket": "C1", "bounds": "C3"}
    for row, (model, results) in enumerate(found.items()):
        exact = numbers[model]["log_z"]
        for k, (name, colour) in enumerate(colours.items()):
            height = row + 0.18 * (k - 1.5)
            if name not in results:
                axis.text(0.012, height, "no proven bounds: not finite", color=colour, va="center")
                continue
            one = results[name]
            ends = one.lower - exact, one.upper - exact
            axis.plot(ends, (height, height), "|-", color=colour, lw=4 if _sure(name) else 2, ms=9)
            if one.kind == "estimate":
                axis.plot(one.value - exact, height, "o", color=colour, ms=5)
        axis.axhline(row + 0.5, color="0.9", lw=1, zorder=0)
    axis.axvline(0, color="k", lw=1, zorder=0)
    labels = [f"{m}\n{numbers[m]['log_z']:.3f}\n{numbers[m]['rule']}" for m in found]
    axis.set_yticks(range(len(found)), labels)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.invert_yaxis()
    for name, colour in colours.items():
        text = (
            "95 %" if not _sure(name) else ("95 %, any mixing" if name == "bracket" else "proven")
        )
        axis.plot([], [], "-", color=colour, lw=3, label=f"{name} ({text})")
    axis.set(xlabel="distance from the exact log Z, in nats (linear between -0.01 and 0.01)")
    figure.legend(loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=120)
