r"""A deep Boltzmann machine whose visible units are Gaussian: grey digits.

$$E(x, h, g) = \sum_i \frac{(x_i - b_i)^2}{2 \sigma_i^2} - \frac{x}{\sigma^2} W h - h^\top V g
- c^\top h - d^\top g.$$

The pixels are real: grey levels with a little noise, so that they have a density. The layers are
learnt one by one, with two copies of the neighbours that each will have on the other side; then all
weights are learnt together, by persistent chains of the whole machine and by mean field for the
data: a guide in which the units of both hidden layers are independent given the pixels. Given $h$,
pixels and $g$ are independent, so that the log-likelihood is exact: a sum over the states of $h$.

Teaches: real visible units, a positive parameter, learning in stages, a guide in contrastive
divergence, exact log Z with one layer summed and another integrated out.

Source: Salakhutdinov & Hinton (2009), Deep Boltzmann machines, AISTATS, 448-455; Gaussian units:
Welling, Rosen-Zvi & Hinton (2005), Exponential family harmoniums, NeurIPS 17.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import typer
from scipy.special import expit
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_digits

import energydsl as ed
from models_zoo._shared import Out, Seed, sheet
from models_zoo.boltzmann_digits import learn
from models_zoo.deep_boltzmann_machine import second_layer

WORDS = {
    "test digits, both layers learnt together": "{together:.2f} nats per digit (exact)",
    "layers learnt one by one": "{one_by_one:.2f} nats per digit (exact)",
    "one layer": "{one_layer:.2f} nats per digit (exact)",
    "independent normal pixels": "{pixels:.2f} nats per digit",
    "a normal distribution of all pixels": "{normal:.2f} nats per digit",
}
"""The numbers in words, as `energydsl run` prints them."""

PIXELS, NOISE = 64, 0.1
"""The number of pixels, and the standard deviation of the noise; white is 0 and black is 1."""


def declare(
    weights: np.ndarray | None = None,
    deeper: np.ndarray | None = None,
    known: dict[str, np.ndarray] | None = None,
) -> ed.Model:
    """The deep machine; without weights, and with 10 units in each hidden layer, by default."""
    weights = np.zeros((PIXELS, 10)) if weights is None else weights
    deeper = np.zeros((weights.shape[1], 10)) if deeper is None else deeper
    blank = {"b": np.zeros(PIXELS), "c": np.zeros(len(deeper)), "d": np.zeros(deeper.shape[1])}
    start = blank | {"sigma": np.full(PIXELS, 0.3)} | (known or {})
    x = ed.real("x", PIXELS)
    h, g = (ed.binary(n, len(start[m]), latent=True) for n, m in (("h", "c"), ("g", "d")))
    W, V = ed.parameter("W", weights), ed.parameter("V", deeper)
    b, c, d = (ed.parameter(n, start[n]) for n in "bcd")
    sigma = ed.parameter("sigma", start["sigma"], positive=True)
    pixels = ((x - b) ** 2 / (2 * sigma**2)).sum() - (x / sigma**2) @ W @ h
    return ed.Model(pixels - h @ V @ g - c @ h - d @ g)


def first_layer(train: np.ndarray, hidden: int, rng: np.random.Generator) -> ed.EBM:
    """The pixels and their units, which see the pixels twice, as units with two neighbours do."""
    x, h = ed.real("x", PIXELS), ed.binary("h", hidden, latent=True)
    W = ed.parameter("W", 0.01 * rng.normal(size=(PIXELS, hidden)))
    b, c = ed.parameter("b", train.mean(axis=0)), ed.parameter("c", np.zeros(hidden))
    sigma = ed.parameter("sigma", train.std(axis=0), positive=True)
    y = ed.real("y", PIXELS)
    both = ((x - b) ** 2 / (2 * sigma**2) + (y - b) ** 2 / (2 * sigma**2)).sum()
    return ed.compile(ed.Model(both - ((x + y) / sigma**2) @ W @ h - c @ h))


def mean_field(hidden: int) -> ed.Model:
    """A guide: the units of both hidden layers are independent given the pixels."""
    x = ed.real("x", PIXELS, given=True)
    h, g = ed.binary("h", hidden, latent=True), ed.binary("g", hidden, latent=True)
    R, S = (ed.parameter(n, np.zeros((PIXELS, hidden))) for n in "RS")
    r, s = (ed.parameter(n, np.zeros(hidden)) for n in "rs")
    return ed.Model(-(x @ R @ h) - (x @ S @ g) - r @ h - s @ g)


def grey_digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Digits with noise, split into 1,437 for learning and 360 for tests."""
    rng = np.random.default_rng(seed)
    images = load_digits().data / 16
    images = images + rng.normal(0.0, NOISE, images.shape)
    images = images[rng.permutation(len(images))].astype(np.float32)
    return images[:1437], images[1437:]


def main(
    seed: Seed = 0,
    out: Out = Path("out/deep_grey_digits"),
    hidden: Annotated[int, typer.Option(min=1, max=12, help="Units of a hidden layer.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Of each stage of learning.")] = 3000,
) -> dict[str, Any]:
    """Learn a machine of grey digits in stages, and compare with one layer and with normals."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = grey_digits(seed)
    rng, run = np.random.default_rng(seed), dict(rate=0.003, batch=100)
    chains = ed.ContrastiveDivergence(start="persistent", settle=3)

    lower = learn(
        first_layer(train, hidden, rng), chains, {"x": train, "y": train}, steps, seed, **run
    )
    known = {n: np.asarray(lower.parameters[n]) for n in ("W", "b", "c", "sigma")}
    W = known.pop("W")
    means = expit(2 * (train / known["sigma"] ** 2) @ W + known["c"])
    bits = (rng.random(means.shape) < means).astype(np.int8)
    upper = learn(second_layer(bits, hidden, rng), chains, bits, steps, seed, **run)
    V, known["d"] = np.asarray(upper.parameters["V"]), np.asarray(upper.parameters["d"])

    stages = {"one_by_one": ed.compile(declare(W, V, known))}
    guided = ed.ContrastiveDivergence(start="persistent", guide=mean_field(hidden))
    stages["together"] = learn(stages["one_by_one"], guided, train, steps, seed, **run)
    alone = {"b": train.mean(axis=0), "sigma": train.std(axis=0)}
    small = 0.01 * rng.normal(size=(PIXELS, hidden))
    flat = ed.compile(declare(small, np.zeros((hidden, 1)), alone)).freeze("V", "d")
    stages["one_layer"] = learn(flat, chains, train, steps, seed, **run)

    numbers = {n: float(ed.log_likelihood(ebm, test).value) for n, ebm in stages.items()}
    means, widths = train.mean(axis=0), train.std(axis=0)
    numbers["pixels"] = float(norm(means, widths).logpdf(test).sum(axis=1).mean())
    whole = multivariate_normal(means, np.cov(train.T))
    numbers["normal"] = float(whole.logpdf(test).mean())
    deep = stages["together"]
    drawn = ed.sample(deep, key=jr.key(seed + 2), chains=40, warmup=2000, draws=1)
    draw(deep, test, drawn, out / "deep_grey_digits.png")
    return numbers


def draw(deep: ed.EBM, test: np.ndarray, drawn: ed.Chains, path: Path) -> None:
    """Plot digits, what each layer's units prefer, and draws of the machine without their noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    seen, lower, upper, dreamt = figure.subplots(1, 4)
    W, V, b = (np.asarray(deep.parameters[n]) for n in "WVb")
    clear = b + drawn.last["h"].reshape(-1, len(V)) @ W.T
    for axis, images, said in (
        (seen, test[:40], "test digits"),
        (dreamt, clear, "drawn, one per chain: means given h"),
    ):
        axis.imshow(sheet(images, columns=8), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(said)
        axis.axis("off")
    for axis, fields, said in (
        (lower, W.T, "first layer: what a unit adds to the pixels"),
        (upper, (W @ V).T, "second layer: W V, through the first"),
    ):
        limit = np.abs(fields).max()
        image = axis.imshow(sheet(fields, columns=4), cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_title(said)
        axis.axis("off")
        figure.colorbar(image, ax=axis, shrink=0.6)
    figure.savefig(path, dpi=150)
