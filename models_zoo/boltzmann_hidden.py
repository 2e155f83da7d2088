r"""A Boltzmann machine with hidden units and all couplings, learnt by sampling both terms.

$$E(x, h) = -x^\top W h - x^\top L x - h^\top J h - b^\top x - c^\top h,$$

with $L$ and $J$ symmetric and zero on their diagonals, for 16 pixels $x$ and a few hidden units
$h$. The gradient of the log-likelihood is a difference of two means: one over $h$ given data, one
over $(x, h)$. As hidden units are coupled, neither has a closed form, and Gibbs sampling gives
both. With 24 units the log-likelihood can still be summed exactly, which judges the result: hidden
units explain what no coupling of pixels can.

Teaches: latent variables that depend on each other given the data, contrastive divergence that
draws them, exact log-likelihoods with a larger budget.

Source: Ackley, Hinton & Sejnowski (1985), Cognitive Science 9(1), 147-169.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import energydsl as ed
from models_zoo import boltzmann_digits
from models_zoo._shared import Out, Seed, digits, independent
from models_zoo.boltzmann_digits import learn, middle

WORDS = {
    "test digits, 16 pixels": "{log_likelihood:.3f} nats per digit (exact)",
    "training digits": "{log_likelihood_train:.3f} nats per digit (exact)",
    "before learning": "{before:.3f} nats per digit (exact)",
    "a machine without hidden units": "{visible_only:.3f} nats per digit (exact)",
    "independent pixels": "{pixels:.3f} nats per digit",
}
"""The numbers in words, as `energydsl run` prints them."""

BUDGET = 24
"""log2 of the terms of an exact sum over all units."""


def declare(hidden: int = 8, bias: np.ndarray | None = None, seed: int = 0) -> ed.Model:
    """A machine of 16 pixels with small random weights of the hidden units."""
    rng = np.random.default_rng(seed)
    x, h = ed.binary("x", 16), ed.binary("h", hidden, latent=True)
    W = ed.parameter("W", 0.1 * rng.normal(size=(16, hidden)))
    L = ed.parameter("L", np.zeros((16, 16)), symmetric=True, zero_diagonal=True)
    J = ed.parameter("J", np.zeros((hidden, hidden)), symmetric=True, zero_diagonal=True)
    b = ed.parameter("b", np.zeros(16) if bias is None else bias)
    c = ed.parameter("c", np.zeros(hidden))
    return ed.Model(-(x @ W @ h) - (x @ L @ x) - (h @ J @ h) - b @ x - c @ h)


def main(
    seed: Seed = 0,
    out: Out = Path("out/boltzmann_hidden"),
    hidden: Annotated[int, typer.Option(min=1, max=8, help="Hidden units.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 6000,
) -> dict[str, Any]:
    """Learn a machine with and one without hidden units, and compare their exact likelihoods."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = map(middle, digits())
    objective = ed.ContrastiveDivergence(start="persistent", settle=5)
    run = dict(rate=0.01, batch=100)

    bias = ed.bias_from(ed.binary("x", 16), train)
    begun = ed.compile(declare(hidden, np.asarray(bias), seed), budget=BUDGET)
    ebm = learn(begun, objective, train, steps, seed, **run)
    without = learn(boltzmann_digits.begin(train), objective, train, steps, seed, **run)
    score = ed.log_likelihood(ebm, test)
    draw(ebm, without, train, out / "boltzmann_hidden.png")
    return {
        "log_likelihood": float(score.value),
        "log_likelihood_train": float(ed.log_likelihood(ebm, train).value),
        "before": float(ed.log_likelihood(begun, test).value),
        "visible_only": float(ed.log_likelihood(without, test).value),
        "pixels": independent(train, test),
    }


def draw(ebm: ed.EBM, without: ed.EBM, train: np.ndarray, path: Path) -> None:
    """Plot the weights, and the probabilities of frequent images against their shares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    units, couplings, scatter = figure.subplots(1, 3, width_ratios=(4, 4, 5))

    weights = np.asarray(ebm.parameters["W"])
    _, hidden = weights.shape
    tiles = np.full((5 * -(-hidden // 4), 20), np.nan)
    for k, field in enumerate(weights.T):
        row, column = 5 * (k // 4), 5 * (k % 4)
        tiles[row : row + 4, column : column + 4] = field.reshape(4, 4)
    limit = np.abs(weights).max()
    image = units.imshow(tiles, cmap="RdBu", vmin=-limit, vmax=limit)
    units.set_title("W: each hidden unit's weights\nto the 4 x 4 pixels")
    figure.colorbar(image, ax=units, shrink=0.6, label="weight")

    pixels = np.asarray(ebm.parameters["L"])
    limit = np.abs(pixels).max()
    image = couplings.imshow(pixels, cmap="RdBu", vmin=-limit, vmax=limit)
    couplings.set(title="L: couplings of pixels", xlabel="pixel", ylabel="pixel")
    figure.colorbar(image, ax=couplings, shrink=0.8, label="coupling")
    units.axis("off")

    images, counts = np.unique(train, axis=0, return_counts=True)
    often = counts >= 5
    share = counts[often] / len(train)
    for model, label, mark in ((without, "without hidden units", "x"), (ebm, "with them", "o")):
        log_p = ed.log_likelihood(model, images[often]).examples
        scatter.plot(share, np.exp(np.asarray(log_p)), mark, ms=5, mfc="none", label=label)
    ends = [share.min(), share.max()]
    scatter.plot(ends, ends, "k-", lw=1, label="equal")
    scatter.set(xscale="log", yscale="log", title="images seen at least five times")
    scatter.set(xlabel="share of the training digits", ylabel="exact probability")
    scatter.legend()
    figure.savefig(path, dpi=150)
