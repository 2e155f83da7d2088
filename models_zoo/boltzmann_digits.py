r"""A fully visible Boltzmann machine of digits, learnt by three objectives.

$$E(x) = -x^\top W x - b^\top x, \qquad x \in \{0, 1\}^d,$$

with $W$ symmetric and zero on its diagonal. Of the 16 pixels in the middle of each digit, exact
maximum likelihood is possible, and pseudo-likelihood and contrastive divergence are compared with
it. Of all 64 pixels log Z is out of reach: the two others learn, and annealed importance sampling
estimates log Z.

Teaches: constraints of parameters (symmetric, zero diagonal), biases from data, three objectives
for one model, and a log-likelihood with an estimated log Z.

Sources: Ackley, Hinton & Sejnowski (1985), Cognitive Science 9(1), 147-169; pseudo-likelihood:
Besag (1975), The Statistician 24(3), 179-195, for this model Hyvarinen (2006), Neural Computation
18(10), 2283-2292.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed, digits, independent, sheet
from models_zoo.boltzmann import conditional_gap

WORDS = {
    "test digits, 16 pixels, maximum likelihood": "{exact:.3f} nats per digit (exact)",
    "pseudo-likelihood": "{pseudo:.3f} nats per digit (exact)",
    "contrastive divergence": "{divergence:.3f} nats per digit (exact)",
    "independent pixels": "{pixels:.3f} nats per digit",
    "largest error of p(pixel is off | the others)": "{conditional_gap:.2g}",
    "test digits, 64 pixels, pseudo-likelihood": "{pseudo_64:.2f} nats per digit (estimate)",
    "64 pixels, contrastive divergence": (
        "{divergence_64:.2f} nats per digit (estimate, standard error {error_64:.2f})"
    ),
    "64 independent pixels": "{pixels_64:.2f} nats per digit",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(weights: np.ndarray | None = None, bias: np.ndarray | None = None) -> ed.Model:
    """A Boltzmann machine with weights W and biases b; 16 units with zeros by default."""
    weights = np.zeros((16, 16)) if weights is None else weights
    bias = np.zeros(len(weights)) if bias is None else bias
    x = ed.binary("x", len(weights))
    W = ed.parameter("W", weights, symmetric=True, zero_diagonal=True)
    return ed.Model(-(x @ W @ x) - ed.parameter("b", bias) @ x)


def middle(images: np.ndarray) -> np.ndarray:
    """The 4 x 4 pixels in the middle of each image."""
    return images.reshape(-1, SIDE, SIDE)[:, 2:6, 2:6].reshape(-1, 16)


def begin(train: np.ndarray) -> ed.EBM:
    """The machine with the means of the data and without interactions."""
    pixels = train.shape[1]
    bias = ed.bias_from(ed.binary("x", pixels), train)
    return ed.compile(declare(np.zeros((pixels, pixels)), bias))


def learn(
    ebm: ed.EBM,
    objective: ed.AbstractObjective,
    train: Any,
    steps: int,
    seed: int,
    **run: Any,
) -> ed.EBM:
    """Learn with a rate that falls to 0."""
    rate = run.pop("rate")
    optimizer = optax.adam(optax.linear_schedule(rate, 0.0, steps))
    learnt, _ = ed.fit(
        ebm, objective, train, key=jr.key(seed), optimizer=optimizer, steps=steps, **run
    )
    return learnt


def main(
    seed: Seed = 0,
    out: Out = Path("out/boltzmann_digits"),
    steps: Annotated[int, typer.Option(min=1, help="Of contrastive divergence.")] = 3000,
    exact_steps: Annotated[
        int, typer.Option(min=1, help="Of the two objectives without sampling.")
    ] = 200,
) -> dict[str, Any]:
    """Learn Boltzmann machines of 16 and of 64 pixels by each objective that applies."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    sampled = ed.ContrastiveDivergence(start="persistent")

    small, held_out = begin(middle(train)), middle(test)
    ways = {
        "exact": (ed.MaximumLikelihood(), exact_steps, dict(rate=0.1)),
        "pseudo": (ed.PseudoLikelihood(), exact_steps, dict(rate=0.1)),
        "divergence": (sampled, steps, dict(rate=0.01, batch=100)),
    }
    learnt = {
        name: learn(small, objective, middle(train), count, seed, **run)
        for name, (objective, count, run) in ways.items()
    }
    numbers: dict[str, Any] = {
        name: float(ed.log_likelihood(ebm, held_out).value) for name, ebm in learnt.items()
    }
    numbers["pixels"] = independent(middle(train), held_out)
    numbers["conditional_gap"] = conditional_gap(learnt["exact"], held_out[:50])

    large = begin(train)
    pseudo = learn(large, ed.PseudoLikelihood(), train, 2 * exact_steps, seed, rate=0.03, batch=100)
    divergence = learn(large, sampled, train, steps, seed, rate=0.01, batch=100)
    for name, ebm in {"pseudo_64": pseudo, "divergence_64": divergence}.items():
        log_z = ed.estimate_log_partition(ebm, ed.AIS(), key=jr.key(seed + 1))
        numbers[name] = float(ed.log_likelihood(ebm, test, log_z=log_z).value)
        numbers["error_64"] = log_z.standard_error
    numbers["pixels_64"] = independent(train, test)
    drawn = ed.sample(divergence, key=jr.key(seed + 2), chains=40, warmup=1000, draws=1)
    draw(learnt, divergence, test, drawn, out / "boltzmann_digits.png")
    return numbers


def draw(
    learnt: dict[str, ed.EBM], large: ed.EBM, test: np.ndarray, drawn: ed.Chains, path: Path
) -> None:
    """Plot learnt weights against exact ones, those of four pixels, and digits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    scatter, fields, real, dreamt = figure.subplots(1, 4, width_ratios=(3, 3, 4, 4))

    upper = np.triu_indices(16, 1)
    pairs = {name: np.asarray(ebm.parameters["W"])[upper] for name, ebm in learnt.items()}
    ends = [pairs["exact"].min(), pairs["exact"].max()]
    scatter.plot(ends, ends, "k-", lw=1, label="equal")
    scatter.plot(pairs["exact"], pairs["pseudo"], "o", ms=4, label="pseudo-likelihood")
    scatter.plot(pairs["exact"], pairs["divergence"], "x", ms=4, label="contrastive divergence")
    scatter.set(
        title="weights of 16 pixels",
        xlabel="by maximum likelihood",
        ylabel="by the objective of the legend",
    )
    scatter.legend()

    weights = np.asarray(large.parameters["W"])
    marked = [18, 21, 42, 45]
    limit = np.abs(weights[marked]).max()
    image = fields.imshow(sheet(weights[marked], columns=2), cmap="RdBu", vmin=-limit, vmax=limit)
    for k, site in enumerate(marked):
        row, column = np.divmod(site, SIDE) + (SIDE + 1) * np.array(divmod(k, 2))
        fields.plot(column, row, "ks", ms=7, mfc="none")
    fields.set_title("weights of four pixels (squares)\nto the others, 64 pixels")
    figure.colorbar(image, ax=fields, shrink=0.8, label="weight")

    real.imshow(sheet(test[:40], columns=8), cmap="gray_r", vmin=0, vmax=1)
    real.set_title("held-out digits")
    digits_drawn = np.asarray(drawn.last["x"]).reshape(-1, SIDE**2)
    dreamt.imshow(sheet(digits_drawn, columns=8), cmap="gray_r", vmin=0, vmax=1)
    dreamt.set_title("drawn, one per chain")
    for axis in (fields, real, dreamt):
        axis.axis("off")
    figure.savefig(path, dpi=150)
