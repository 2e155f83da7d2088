r"""A spin glass in three dimensions, whose ground state is found by replica exchange and proven.

$$E(s) = -\sum_{\langle ij \rangle} J_{ij} s_i s_j, \qquad J_{ij} = \pm 1$$

on a periodic cubic lattice, the model of Edwards and Anderson. Cubes of eight sites tile the
lattice such that each bond belongs to one of them (tile planting): the share `share` of the cubes
is fully frustrated, and in the others four of the six faces are frustrated. Chains of Gibbs at a
low temperature stay in the valley into which they fell. `ReplicaExchange` lets them climb out at
higher temperatures.

The proof does not use how the couplings were made. A model in which every cube has spins of its own
has a minimum that is not above that of the glass, and `map_configuration` finds it exactly, cube by
cube. A configuration of the glass with this energy is therefore a ground state.

Teaches: edge lists, kernels around kernels, energies of chains, and a bound by an exact rule on a
relaxed model.

Source: Edwards & Anderson (1975), J. Phys. F 5, 965; Hamze et al. (2018), Phys. Rev. E 97, 043303.
"""

import itertools
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax.random as jr
import numpy as np
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed, write_chains

COLDEST, HOTTEST = 0.5, 2.0
"""The temperature of the draws, and that of the hottest replica, in units of J."""

WORDS = {
    "lowest energy found": "{found:.0f} J",
    "proven bound": "{bound:.0f} J",
    "a ground state": "{proven}",
    "lowest energy by Gibbs alone": "{gibbs:.0f} J, by as many sweeps",
    "chains that reached it": "{reached} of {chains} by exchange, {reached_gibbs} by Gibbs",
    "least rate of exchanges": "{swap_rate:.0%}",
    "round trips of a chain": "{round_trips:.0f}",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""

CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
EDGES = [
    (a, b)
    for a, b in itertools.combinations(range(8), 2)
    if abs(CORNERS[a] - CORNERS[b]).sum() == 1
]
"""The pairs of a cube's corners that are joined by a bond."""


class Bonds(NamedTuple):
    """The couplings of a glass, cube by cube."""

    sites: np.ndarray
    """The sites at the corners of each cube, (cube, 8)."""
    weights: np.ndarray
    """The couplings of its edges, (cube, 12)."""

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The two sites of each bond, (cube, 12)."""
        first, last = np.array(EDGES).T
        return self.sites[:, first], self.sites[:, last]


def frustrated(count: int) -> list[tuple[int, ...]]:
    """Each set of `count` edges of a cube of which no two lie in the same face."""
    faces = [{(axis, CORNERS[a][axis]) for axis in range(3) if CORNERS[a][axis] == CORNERS[b][axis]}
             for a, b in EDGES]  # fmt: skip
    return [
        chosen
        for chosen in itertools.combinations(range(len(EDGES)), count)
        if len(set().union(*(faces[k] for k in chosen))) == 2 * count
    ]


def couplings(side: int = 8, share: float = 0.8, seed: int = 0) -> Bonds:
    """Bonds of +1 and -1 in which every face of `share` of the cubes is frustrated.

    The negative bonds lie in different faces, and then spins are flipped at random, which hides
    where they are.
    """
    if side < 4 or side % 2:
        raise ValueError(
            f"couplings got side={side}; cubes tile lattices of even sides, 4 or more."
        )
    rng = np.random.default_rng(seed)
    corners = [o for o in itertools.product(range(side), repeat=3) if len({k % 2 for k in o}) == 1]
    shape = (side, side, side)
    sites = np.array(
        [np.ravel_multi_index(tuple(((o + CORNERS) % side).T), shape) for o in np.array(corners)]
    )
    weights = np.ones((len(sites), len(EDGES)))
    hard, easy = frustrated(3), frustrated(2)
    for row in weights:
        sets = hard if rng.random() < share else easy
        row[list(sets[rng.integers(len(sets))])] = -1
    flips = rng.choice([-1, 1], size=side**3)
    bonds = Bonds(sites, weights)
    first, last = bonds.ends
    return Bonds(sites, weights * flips[first] * flips[last])


def declare(side: int = 8, share: float = 0.8, seed: int = 0) -> ed.Model:
    """The glass on a periodic cubic lattice, in units of J; its sites are numbered row by row."""
    bonds = couplings(side, share, seed)
    s = ed.spin("s", side**3)
    first, last = bonds.ends
    return ed.Model(-(bonds.weights.ravel() * s[first.ravel()] * s[last.ravel()]).sum())


def bound(bonds: Bonds) -> float:
    """The exact minimum of the model in which each cube has spins of its own."""
    apart = ed.spin("cubes", (len(bonds.sites), 8))
    first, last = np.array(EDGES).T
    mode = ed.map_configuration(
        ed.compile(ed.Model(-(bonds.weights * apart[:, first] * apart[:, last]).sum()))
    )
    assert mode.proven
    return mode.energy


def main(
    seed: Seed = 0,
    out: Out = Path("out/spin_glass"),
    side: Annotated[int, typer.Option(min=4, help="Side of the lattice, an even number.")] = 8,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of fully frustrated cubes.")] = 0.8,
    replicas: Annotated[int, typer.Option(min=2, help="Temperatures.")] = 16,
    chains: Annotated[int, typer.Option(min=2, help="Chains.")] = 4,
    draws: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 3000,
) -> dict[str, Any]:
    """Search for a ground state by replica exchange and by Gibbs alone, and prove it."""
    out.mkdir(parents=True, exist_ok=True)
    bonds = couplings(side, share, seed)
    ebm = ed.compile(declare(side, share, seed) / COLDEST)
    ladder = np.geomspace(1.0, HOTTEST / COLDEST, replicas)
    exchange = ed.ReplicaExchange(ed.Gibbs(), [1.0, *ladder[1:].tolist()])
    runs = {}
    for name, kernel, thin in (("exchange", exchange, 1), ("Gibbs", ed.Gibbs(), replicas)):
        # Without warmup, so that the pictures show how the chains descend.
        runs[name] = ed.sample(
            ebm, kernel, key=jr.key(seed), chains=chains, warmup=0, draws=draws, thin=thin
        )
        write_chains(runs[name], out / f"{name}.nc")
    energies = {name: run.stats["energy"] * COLDEST for name, run in runs.items()}
    least, run = bound(bonds), runs["exchange"]
    chain, row = np.unravel_index(energies["exchange"].argmin(), energies["exchange"].shape)
    ground = run.draws["s"][chain, row]
    first, last = bonds.ends
    found = -float((bonds.weights * ground[first] * ground[last]).sum())
    numbers = {
        "found": found,
        "bound": least,
        "proven": bool(found <= least + 0.5),  # energies are whole numbers
        "gibbs": float(energies["Gibbs"].min()),
        "reached": int((energies["exchange"].min(axis=1) <= least + 0.5).sum()),
        "reached_gibbs": int((energies["Gibbs"].min(axis=1) <= least + 0.5).sum()),
        "chains": chains,
        "swap_rate": float(run.stats["swap_rate"].mean(axis=(0, 1)).min()),
        "round_trips": float(run.stats["round_trips"][:, -1].mean()),
        "seconds": run.seconds,
    }
    draw(energies, run, ground.reshape(side, side, side), least, out / "spin_glass.png")
    return numbers


def draw(
    energies: dict[str, np.ndarray], run: ed.Chains, ground: np.ndarray, least: float, path: Path
) -> None:
    """Plot energies above the bound, the exchanges on the ladder, and the layers of the state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))
    left, right = upper.subplots(1, 2, width_ratios=(3, 2))
    for name, colour in (("Gibbs", "tab:orange"), ("exchange", "tab:blue")):
        lowest = np.minimum.accumulate(energies[name], axis=1) - least
        for k, trace in enumerate(lowest):
            label = f"{name}: lowest so far" if k == 0 else None
            left.step(np.arange(1, len(trace) + 1), trace, color=colour, label=label, alpha=0.8)
    left.axhline(0, color="k", lw=1, ls="--", label="proven bound")
    left.set(
        xscale="log",
        xlabel="steps; one is a sweep of every replica",
        ylabel="energy above the bound / J",
    )
    left.legend()

    ladder, rates = run.stats["ladder"][0, -1] * COLDEST, run.stats["swap_rate"].mean(axis=(0, 1))
    right.bar((ladder[1:] + ladder[:-1]) / 2, rates, 0.9 * np.diff(ladder), color="tab:blue")
    right.plot(ladder, np.zeros_like(ladder), "k|", ms=12, label="temperatures")
    right.set(xlabel="temperature / J", ylabel="rate of exchanges", ylim=(-0.05, 1))
    right.legend()

    for k, axis in enumerate(lower.subplots(1, len(ground))):
        axis.imshow(ground[k], cmap="gray", vmin=-1, vmax=1)
        axis.set(title=f"layer {k + 1}", xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
