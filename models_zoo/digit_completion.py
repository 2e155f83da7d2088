r"""Digits of which one half is hidden, completed by a model that was learnt from whole digits.

A restricted Boltzmann machine of 64 pixels and 12 hidden units is a distribution of whole digits.
Any part of a digit may be clamped, and the rest has the distribution
$$p(x_\text{hidden} \mid x_\text{shown}) = \frac{p(x)}{p(x_\text{shown})},$$
here computed exactly, because both $\log Z$ and its value with the shown pixels clamped are sums
over the states of the hidden units. Completions are independent exact draws. The log-likelihood of
hidden pixels given the shown ones is a difference of two log-likelihoods: of whole digits, and of
digits in which pixels are missing. For the lower half it is about -0.28 nats a pixel, where
independent pixels have -0.41.

Teaches: conditional generation by clamping any subset, missing values, exact draws.

Source: Smolensky (1986), Parallel Distributed Processing 1, ch. 6.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo import rbm_digits
from models_zoo._shared import SIDE, Out, Seed, digits

HALVES = {
    "lower": np.arange(SIDE**2) >= SIDE**2 // 2,
    "right": np.arange(SIDE**2) % SIDE >= SIDE // 2,
}
"""The pixels that are hidden, True in a flat digit."""

UNITS = 12
"""The hidden units: few, so that sums over all of their states are quick."""

WORDS = {
    "hidden pixels given the others": "{conditional:.4f} nats per pixel (exact)",
    "hidden pixels, independent": "{independent:.4f} nats per pixel",
    "wrong pixels, each at its likelier value": "{wrong:.1%} (independent {wrong_independent:.1%})",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(hidden: int = UNITS) -> ed.Model:
    """The model of whole digits, before it is learnt."""
    return rbm_digits.declare(units=np.zeros(hidden))


def main(
    seed: Seed = 0,
    out: Out = Path("out/digit_completion"),
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 5000,
    shown: Annotated[int, typer.Option(min=1, help="Digits in the picture.")] = 8,
) -> dict[str, Any]:
    """Learn a model of digits, hide halves of held-out ones, and complete them."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    ebm = ed.compile(rbm_digits.begin(train, UNITS, np.random.default_rng(seed)))
    optimizer = optax.adam(optax.linear_schedule(0.012, 0.0, steps))
    ebm, _ = ed.fit(
        ebm, ed.ContrastiveDivergence(start="persistent"), train,
        key=jr.key(seed), optimizer=optimizer, steps=steps, batch=100,
    )  # fmt: skip
    share = (train.sum(axis=0) + 1) / (len(train) + 2)
    numbers = {name: score(ebm, test, hidden, share) for name, hidden in HALVES.items()}
    draw(ebm, test[:shown], seed, out / "completions.png")
    return numbers


def score(ebm: ed.EBM, test: np.ndarray, hidden: np.ndarray, share: np.ndarray) -> dict[str, float]:
    """The exact log-likelihood of hidden pixels given the others, and errors of predictions."""
    part = np.ma.array(test, mask=np.broadcast_to(hidden, test.shape))
    gained = ed.log_likelihood(ebm, test).value - ed.log_likelihood(ebm, part).value
    alone = np.where(test, np.log(share), np.log1p(-share))[:, hidden].mean()
    likely = np.stack([probabilities(ebm, image, hidden) for image in test[:100]]) > 0.5
    return {
        "conditional": float(gained / hidden.sum()),
        "independent": float(alone),
        "wrong": float((likely != test[:100, hidden]).mean()),
        "wrong_independent": float(((share > 0.5) != test[:100])[:, hidden].mean()),
    }


def clamped(ebm: ed.EBM, image: np.ndarray, hidden: np.ndarray) -> ed.EBM:
    """The model of the hidden pixels of a digit, given the others."""
    x = ed.binary("x", SIDE**2)
    return ed.compile(ebm.model.condition({x[np.flatnonzero(~hidden)]: image[~hidden]}))


def probabilities(ebm: ed.EBM, image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The exact probability that each hidden pixel is on, given the others."""
    return np.asarray(ed.marginals(clamped(ebm, image, hidden))["x"].probabilities)[hidden, 1]


def draw(ebm: ed.EBM, images: np.ndarray, seed: int, path: Path) -> None:
    """Plot digits, what is shown of them, probabilities of hidden pixels, and three completions."""
    from matplotlib.figure import Figure

    titles = ("held out", "shown", "p(pixel is on)", "drawn", "drawn", "drawn")
    figure = Figure(figsize=(13, 1.05 * len(images)))
    parts = figure.subfigures(1, len(HALVES))
    for part, (name, hidden) in zip(parts, HALVES.items(), strict=True):
        part.suptitle(f"{name} half hidden")
        panels = part.subplots(len(images), len(titles))
        for row, image in zip(panels, images, strict=True):
            half = clamped(ebm, image, hidden)
            drawn = ed.sample(
                half, ed.ExactDraws(), key=jr.key(seed), chains=3, warmup=0, draws=1, progress=False
            )
            grey, likely = np.where(hidden, 0.35, image), image.astype(float)
            likely[hidden] = probabilities(ebm, image, hidden)
            for axes, pixels in zip(row, (image, grey, likely, *drawn.last["x"]), strict=True):
                axes.imshow(np.reshape(pixels, (SIDE, SIDE)), cmap="gray_r", vmin=0, vmax=1)
                axes.set_axis_off()
        for axes, title in zip(panels[0], titles, strict=True):
            axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=130)
