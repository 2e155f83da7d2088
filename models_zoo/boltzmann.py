r"""A fully visible Boltzmann machine: Gibbs sampling against exact enumeration.

$$E(x) = -x^\top W x, \qquad x \in \{0, 1\}^d,$$

with $W$ symmetric and zero on its diagonal. A unit given all others is a logistic neuron,
$p(x_i = 0 \mid x_{-i}) = \sigma(\Delta E_i)$ with
$\Delta E_i = E(x_i = 1) - E(x_i = 0) = -2 \sum_j W_{ij} x_j$.

Teaches: matrix products of variables, exact log Z by enumeration, conditional distributions of
single sites, and how draws are tested against an exact law.

Source: Ackley, Hinton & Sejnowski (1985), Cognitive Science 9(1), 147-169.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import typer
from scipy.stats import binom, chi2

import energydsl as ed
from models_zoo._shared import Out, Seed, write_chains

WORDS = {
    "log Z": "{log_z:.6f}",
    "distance of the draws' law from the exact one": "{total_variation:.4f} (total variation)",
    "chance of a larger distance": "{p_value:.3g} (chi-squared test)",
    "largest error of a conditional probability": "{conditional_gap:.2g}",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(weights: np.ndarray | None = None) -> ed.Model:
    """A Boltzmann machine with a symmetric matrix of weights, random by default."""
    weights = random_weights() if weights is None else weights
    x = ed.binary("x", len(weights))
    return ed.Model(-(x @ weights @ x))


def random_weights(units: int = 10, scale: float = 0.5, seed: int = 0) -> np.ndarray:
    """A symmetric matrix of normal weights with a zero diagonal."""
    half = np.triu(scale * np.random.default_rng(seed).normal(size=(units, units)), k=1)
    return (half + half.T).astype(np.float32)


def main(
    seed: Seed = 0,
    out: Out = Path("out/boltzmann"),
    units: Annotated[int, typer.Option(min=2, max=16, help="d.")] = 10,
    scale: Annotated[float, typer.Option(min=0.0, help="Spread of the weights.")] = 0.5,
    chains: Annotated[int, typer.Option(min=1, help="Chains.")] = 64,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each chain.")] = 1000,
    thin: Annotated[int, typer.Option(min=1, help="Sweeps a draw.")] = 20,
) -> dict[str, Any]:
    """Sample a random Boltzmann machine, and compare the frequencies of states with exact ones."""
    out.mkdir(parents=True, exist_ok=True)
    weights = random_weights(units, scale, seed)
    ebm = ed.compile(declare(weights))

    states = (np.arange(2**units)[:, None] >> np.arange(units)) % 2
    log_z = float(ed.log_partition(ebm))
    exact = np.exp(-np.asarray(jax.vmap(ebm.energy)({"x": states})) - log_z)
    drawn = ed.sample(
        ebm, ed.Gibbs(), key=jr.key(seed), chains=chains, warmup=200, draws=draws, thin=thin
    )
    number_of = drawn.draws["x"].reshape(-1, units) @ (1 << np.arange(units))
    seen = np.bincount(number_of, minlength=2**units)

    if not seen.any():  # interrupted before the first draw
        return {"log_z": log_z}
    write_chains(drawn, out / "chains.nc", dims={"x": ["unit"]})
    draw(weights, exact, seen, out / "states.png")
    return {
        "log_z": log_z,
        "total_variation": float(np.abs(seen / seen.sum() - exact).sum() / 2),
        "p_value": p_value(seen, exact),
        "conditional_gap": conditional_gap(ebm, states),
        "seconds": drawn.seconds,
    }


def conditional_gap(ebm: ed.EBM, states: np.ndarray) -> float:
    """The largest difference of p(x_i = 0 | rest) and sigma(dE), over all sites and states."""

    def gap(x: jax.Array, i: jax.Array) -> jax.Array:
        rise = ebm.energy({"x": x.at[i].set(1)}) - ebm.energy({"x": x.at[i].set(0)})
        off = jnp.exp(ebm.conditional("x", {"x": x}).log_prob(jnp.zeros_like(x)))
        return abs(off[i] - jax.nn.sigmoid(rise))

    sites = jnp.arange(states.shape[1])
    gaps = jax.vmap(jax.vmap(gap, (None, 0)), (0, None))(jnp.asarray(states), sites)
    return float(gaps.max())


def p_value(seen: np.ndarray, probs: np.ndarray) -> float:
    """The p-value of a likelihood-ratio test that independent draws have the distribution `probs`.

    States with an expected number of draws below 10 are merged into one.
    """
    expected = seen.sum() * np.asarray(probs, float) / probs.sum()
    common = expected >= 10
    seen, expected = (np.append(a[common], a[~common].sum()) for a in (seen, expected))
    seen, expected = seen[expected > 0], expected[expected > 0]
    deviance = 2 * np.sum(seen * np.log(np.maximum(seen, 1) / expected))
    return float(chi2.sf(deviance, len(seen) - 1))


def draw(weights: np.ndarray, exact: np.ndarray, seen: np.ndarray, path: Path) -> None:
    """Plot the weights, the most likely states, and sampled against exact probabilities."""
    from matplotlib.figure import Figure

    count, share = seen.sum(), seen / seen.sum()
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    matrix, bars, scatter = figure.subplots(1, 3)

    limit = np.abs(weights).max() or 1.0
    image = matrix.imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit)
    matrix.set(title="weights W", xlabel="unit", ylabel="unit")
    figure.colorbar(image, ax=matrix, label="weight")

    top = np.argsort(-exact)[:20]
    bars.bar(np.arange(len(top)), exact[top], color="0.8", label="exact")
    bars.errorbar(
        np.arange(len(top)), share[top], np.sqrt(exact[top] / count), fmt="o", ms=3, capsize=2,
        label="Gibbs, one standard error",
    )  # fmt: skip
    labels = [f"{state:0{int(np.log2(len(exact)))}b}"[::-1] for state in top]
    bars.set_xticks(np.arange(len(top)), labels, rotation=90, family="monospace", fontsize=7)
    bars.set(title="the likeliest states", xlabel="state, unit 0 first", ylabel="probability")
    bars.legend()

    grid = np.geomspace(0.01 / count, 1, 500)
    low, high = np.array(binom.interval(0.99, count, grid)) / count
    scatter.fill_between(grid, np.maximum(low, 0.5 / count), high, color="0.85")
    scatter.plot(grid, grid, "k-", lw=1)
    scatter.plot(exact[seen > 0], share[seen > 0], ".", ms=4)
    scatter.set(xscale="log", yscale="log", xlabel="exact probability", ylabel="share of the draws")
    scatter.set(
        xlim=(grid[0], 1), ylim=(0.5 / count, 1), title="states that were drawn; band: 99 %"
    )
    figure.savefig(path, dpi=150)
