r"""A deep Boltzmann machine of digits: layers learnt one by one, and then together.

$$E(x, h, g) = -x^\top W_1 h - h^\top W_2 g - b^\top x - c^\top h - d^\top g.$$

Each layer is first learnt as a restricted Boltzmann machine. In the deep machine $h$ has neighbours
below and above, so that layers learnt alone would drive it twice as strongly. Its first layer is
therefore learnt with two copies of $x$, and its second with two copies of $g$, which share their
weights. Then all weights are learnt together, by persistent chains of $(x, h, g)$ and, for the
data, either chains of $(h, g)$ given them or mean field: a guide in which the units of both layers
are independent given the data. Given $h$, all other units are independent, so that the
log-likelihood is summed exactly over the states of $h$, and judges each stage.

Teaches: a parameter used twice, learning in stages, contrastive divergence with dependent latents,
drawn or by a guide, exact log Z of alternate layers.

Source: Salakhutdinov & Hinton (2009), Deep Boltzmann machines, AISTATS, 448-455.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import typer
from scipy.special import expit

import energydsl as ed
from models_zoo._shared import Out, Seed, digits, independent, sheet
from models_zoo.boltzmann_digits import learn

WORDS = {
    "test digits, both layers learnt together": "{together:.3f} nats per digit (exact)",
    "the same by mean field for the data": "{mean_field:.3f} nats per digit (exact)",
    "layers learnt one by one": "{one_by_one:.3f} nats per digit (exact)",
    "learnt together from small weights": "{without:.3f} nats per digit (exact)",
    "one layer": "{one_layer:.3f} nats per digit (exact)",
    "independent pixels": "{pixels:.3f} nats per digit",
}
"""The numbers in words, as `energydsl run` prints them."""

PIXELS = 64


def declare(
    weights: np.ndarray | None = None,
    deeper: np.ndarray | None = None,
    biases: dict[str, np.ndarray] | None = None,
) -> ed.Model:
    """A deep Boltzmann machine; with zeros, and 10 units in each hidden layer, by default."""
    weights = np.zeros((PIXELS, 10)) if weights is None else weights
    deeper = np.zeros((weights.shape[1], 10)) if deeper is None else deeper
    sizes = dict(b=len(weights), c=len(deeper), d=deeper.shape[1])
    start = {n: np.zeros(size) for n, size in sizes.items()} | (biases or {})
    x = ed.binary("x", sizes["b"])
    h, g = ed.binary("h", sizes["c"], latent=True), ed.binary("g", sizes["d"], latent=True)
    W, V = ed.parameter("W", weights), ed.parameter("V", deeper)
    b, c, d = (ed.parameter(n, start[n]) for n in "bcd")
    return ed.Model(-(x @ W @ h) - (h @ V @ g) - b @ x - c @ h - d @ g)


def first_layer(train: np.ndarray, hidden: int, rng: np.random.Generator) -> ed.EBM:
    """A restricted Boltzmann machine of two copies of the pixels, which share W and b."""
    x, y = ed.binary("x", PIXELS), ed.binary("y", PIXELS)
    h = ed.binary("h", hidden, latent=True)
    W = ed.parameter("W", 0.1 * rng.normal(size=(PIXELS, hidden)))
    b, c = ed.parameter("b", ed.bias_from(x, train)), ed.parameter("c", np.zeros(hidden))
    return ed.compile(ed.Model(-(x + y) @ W @ h - b @ (x + y) - c @ h))


def second_layer(bits: np.ndarray, hidden: int, rng: np.random.Generator) -> ed.EBM:
    """A restricted Boltzmann machine of the first hidden layer, with two copies of its own."""
    h = ed.binary("h", bits.shape[1])
    g, k = ed.binary("g", hidden, latent=True), ed.binary("k", hidden, latent=True)
    V = ed.parameter("V", 0.1 * rng.normal(size=(bits.shape[1], hidden)))
    c, d = ed.parameter("c", ed.bias_from(h, bits)), ed.parameter("d", np.zeros(hidden))
    return ed.compile(ed.Model(-(h @ V @ (g + k)) - c @ h - d @ (g + k)))


def mean_field(hidden: int, weights: np.ndarray) -> ed.Model:
    """A guide: both hidden layers given the pixels, at first with these weights to the first."""
    x = ed.binary("x", PIXELS, given=True)
    h, g = ed.binary("h", hidden, latent=True), ed.binary("g", hidden, latent=True)
    R, S = ed.parameter("R", weights), ed.parameter("S", np.zeros((PIXELS, hidden)))
    r, s = ed.parameter("r", np.zeros(hidden)), ed.parameter("s", np.zeros(hidden))
    return ed.Model(-(x @ R @ h) - (x @ S @ g) - r @ h - s @ g)


def pretrain(
    train: np.ndarray, hidden: int, steps: int, seed: int, objective: ed.AbstractObjective
) -> ed.EBM:
    """A deep machine composed of two layers that were learnt one after the other."""
    rng, run = np.random.default_rng(seed), dict(rate=0.012, batch=100)
    pairs = {"x": train, "y": train}
    lower = learn(first_layer(train, hidden, rng), objective, pairs, steps, seed, **run)
    W, b, c = (np.asarray(lower.parameters[n]) for n in "Wbc")
    bits = (rng.random((len(train), hidden)) < expit(2 * train @ W + c)).astype(np.int8)
    upper = learn(second_layer(bits, hidden, rng), objective, bits, steps, seed, **run)
    V, d = np.asarray(upper.parameters["V"]), np.asarray(upper.parameters["d"])
    return ed.compile(declare(W, V, {"b": b, "c": c, "d": d}))


def main(
    seed: Seed = 0,
    out: Out = Path("out/deep_boltzmann_machine"),
    hidden: Annotated[int, typer.Option(min=1, max=12, help="Units of a hidden layer.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Of each stage of learning.")] = 2000,
) -> dict[str, Any]:
    """Learn a deep Boltzmann machine in stages, and one without them, and compare."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    rng = np.random.default_rng(seed)
    objective = ed.ContrastiveDivergence(start="persistent", settle=3)
    run = dict(rate=0.01, batch=100)
    b = np.asarray(ed.bias_from(ed.binary("x", PIXELS), train))
    weights, deeper = (0.1 * rng.normal(size=(n, hidden)) for n in (PIXELS, hidden))

    stages = {"one_by_one": pretrain(train, hidden, steps, seed, objective)}
    stages["together"] = learn(stages["one_by_one"], objective, train, steps, seed, **run)
    W = np.asarray(stages["one_by_one"].parameters["W"])
    guided = ed.ContrastiveDivergence(start="persistent", guide=mean_field(hidden, W))
    stages["mean_field"] = learn(stages["one_by_one"], guided, train, steps, seed, **run)
    small = ed.compile(declare(weights, deeper, {"b": b}))
    stages["without"] = learn(small, objective, train, steps, seed, **run)
    flat = ed.compile(declare(weights, np.zeros((hidden, 1)), {"b": b})).freeze("V", "d")
    stages["one_layer"] = learn(flat, objective, train, steps, seed, **run)

    numbers = {n: float(ed.log_likelihood(ebm, test).value) for n, ebm in stages.items()}
    numbers["pixels"] = independent(train, test)
    deep = stages["together"]
    drawn = ed.sample(deep, key=jr.key(seed + 2), chains=40, warmup=2000, draws=1)
    draw(deep, numbers, test, drawn, out / "deep_boltzmann_machine.png")
    return numbers


def draw(
    deep: ed.EBM, numbers: dict[str, float], test: np.ndarray, drawn: ed.Chains, path: Path
) -> None:
    """Plot the stages' likelihoods, what each layer's units prefer, and digits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    stages, lower, upper, dreamt = figure.subplots(1, 4, width_ratios=(4, 4, 4, 4))

    names = ["one_layer", "without", "one_by_one", "mean_field", "together"]
    labels = ["one layer", "two, from\nsmall\nweights", "two, one\nby one"]
    labels += ["together,\nmean field", "together,\nchains"]
    stages.plot(labels, [numbers[n] for n in names], "o", ms=10)
    stages.grid(axis="y")
    stages.margins(x=0.2, y=0.2)
    stages.set(title="test digits", ylabel="exact log-likelihood, nats per digit")
    stages.tick_params(axis="x", labelsize=8)

    W, V = (np.asarray(deep.parameters[n]) for n in "WV")
    for axis, fields, said in (
        (lower, W.T, "first layer: weights to pixels"),
        (upper, (W @ V).T, "second layer: W V, through the first"),
    ):
        limit = np.abs(fields).max()
        image = axis.imshow(sheet(fields, columns=4), cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_title(said)
        axis.axis("off")
        figure.colorbar(image, ax=axis, shrink=0.6)

    images = np.asarray(drawn.last["x"]).reshape(-1, PIXELS)
    dreamt.imshow(sheet(images, columns=8), cmap="gray_r", vmin=0, vmax=1)
    dreamt.set_title("drawn, one per chain")
    dreamt.axis("off")
    figure.savefig(path, dpi=150)
