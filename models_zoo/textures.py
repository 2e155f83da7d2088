r"""Textures by maximum entropy: the most random images with the correlations of one example.

$$E(s) = \sum_k \theta_k \sum_i s_i s_{i + o_k} + b \sum_i s_i, \qquad s_i \in \{-1, 1\},$$

on a torus of 64 x 64 pixels. The example is a photograph of grass or of bricks in black and white,
at an eighth of its size for bricks and a fourth for grass. The moments are the mean of the image
and its correlations at the offsets $o_k$ within 12 pixels at which they are strongest. Of all
distributions with these moments, the one of highest entropy has this energy, and
`ed.MaximumEntropy` finds $\theta$ and b from the one example by chains of Gibbs. Images drawn from
it anew have the correlations of the grass up to 0.02, and can hardly be told from it. Those of the
bricks, whose chains mix slowly, are up to 0.13 off: the images have the columns of the bricks,
their width and slant, but few joints, which pairs of pixels do not determine.

Teaches: maximum entropy with the moments of one example, an energy linear in its parameters, and
homogeneous interactions by index arrays.

Source: Jaynes (1957), Physical Review 106(4), 620-630; Zhu, Wu & Mumford (1998), International
Journal of Computer Vision 27(2), 107-126; pairs of pixels: Cross & Jain (1983), IEEE Transactions
on Pattern Analysis and Machine Intelligence 5(1), 25-39.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import optax
import typer
from scipy.ndimage import gaussian_filter

import energydsl as ed
from models_zoo._shared import Out, Seed

SIDE, REACH = 64, 12
SHRINK = {"brick": 8, "grass": 4}
"""The textures, and how many pixels of the photograph are averaged along each axis."""


WORDS = {
    "largest gap between matched moments": "{largest_gap:.3f}",
    "the same of independent pixels": "{largest_independent:.3f}",
    "time of learning": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def example(name: str) -> np.ndarray:
    """A photograph in black and white: each pixel against the mean of its surroundings."""
    from skimage import data

    photograph = np.asarray(getattr(data, name)(), float)
    by = SHRINK[name]
    small = photograph.reshape(len(photograph) // by, by, -1, by).mean(axis=(1, 3))[:SIDE, :SIDE]
    # Light that changes slowly over the photograph is no part of the texture.
    return np.where(small > gaussian_filter(small, 12, mode="wrap"), 1, -1).astype(np.int8)


def correlations(images: np.ndarray) -> np.ndarray:
    """The mean of s_i s_(i + o) on the torus for every offset o, averaged over images."""
    spectrum = np.abs(np.fft.fft2(np.asarray(images, float), axes=(-2, -1))) ** 2
    each = np.fft.ifft2(spectrum, axes=(-2, -1)).real / SIDE**2
    return each.reshape(-1, SIDE, SIDE).mean(axis=0)


def candidates() -> np.ndarray:
    """One of each pair of opposite offsets within reach, (offset, axis)."""
    rows, columns = np.mgrid[0 : REACH + 1, -REACH : REACH + 1].reshape(2, -1)
    return np.stack([rows, columns], axis=1)[(rows > 0) | (columns > 0)]


def strongest(image: np.ndarray, count: int) -> np.ndarray:
    """The offsets with the strongest correlations."""
    offsets = candidates()
    beyond_chance = correlations(image)[tuple(offsets.T)] - image.mean() ** 2
    return offsets[np.argsort(-np.abs(beyond_chance))[:count]]


def declare(offsets: np.ndarray | None = None) -> ed.Model:
    """The energy with a weight for each offset, 0 at first; by default for the four neighbours."""
    offsets = np.array([(0, 1), (1, 0), (1, 1), (1, -1)]) if offsets is None else offsets
    s = ed.spin("s", (SIDE, SIDE))
    theta, b = ed.parameter("theta", np.zeros(len(offsets))), ed.parameter("b", 0.0)
    rows, columns = np.mgrid[:SIDE, :SIDE].reshape(2, -1)
    other = (np.stack([rows, columns])[:, None] + offsets.T[:, :, None]) % SIDE
    first = np.broadcast_to([[rows], [columns]], other.shape)
    return ed.Model((theta[:, None] * s[tuple(first)] * s[tuple(other)]).sum() + b * s.sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/textures"),
    offsets: Annotated[int, typer.Option(min=1, help="Offsets whose correlation is matched.")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Of learning, for each texture.")] = 400,
    chains: Annotated[int, typer.Option(min=3, help="Images that are drawn side by side.")] = 6,
    rate: Annotated[float, typer.Option(help="The first step of each weight.")] = 0.003,
) -> dict[str, Any]:
    """Learn each texture from one example, and draw it anew."""
    out.mkdir(parents=True, exist_ok=True)
    numbers, sheets = {}, {}
    for name in SHRINK:
        image = example(name)
        chosen = strongest(image, offsets)
        learnt, history = ed.fit(
            ed.compile(declare(chosen)),
            ed.MaximumEntropy(k=1, chains=chains),
            image[None],
            key=jr.key(seed),
            optimizer=optax.adam(optax.cosine_decay_schedule(rate, steps)),
            steps=steps,
        )
        drawn = ed.sample(
            learnt, ed.Gibbs(), key=jr.key(seed + 1), chains=chains, warmup=100, draws=5, thin=5
        )
        numbers[name] = compared(image, drawn.draws["s"], chosen) | {"seconds": history.seconds}
        sheets[name] = [image, *drawn.last["s"][:3]]
    draw(sheets, numbers, out / "textures.png")
    return numbers


def compared(image: np.ndarray, drawn: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """The moments of draws against those of the example, and those of independent pixels."""
    wanted, found = (correlations(images)[tuple(chosen.T)] for images in (image, drawn))
    gaps = np.append(found - wanted, drawn.mean() - image.mean())
    return {
        "largest_gap": float(np.abs(gaps).max()),
        "largest_independent": float(np.abs(image.mean() ** 2 - wanted).max()),
    }


def draw(sheets: dict[str, list[np.ndarray]], numbers: dict[str, Any], path: Path) -> None:
    """Plot each example beside images drawn anew."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(len(sheets), 4)
    for row, (name, images) in zip(axes, sheets.items(), strict=True):
        for k, (axis, image) in enumerate(zip(row, images, strict=True)):
            axis.imshow(image, cmap="gray", interpolation="nearest")
            axis.set(xticks=[], yticks=[], title=f"{name}: drawn anew" if k else f"{name}: example")
        row[0].set_xlabel(f"largest gap of moments {numbers[name]['largest_gap']:.3f}")
    figure.savefig(path, dpi=130)
