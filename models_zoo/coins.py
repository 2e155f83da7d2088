r"""Segmentation of a picture of coins by a Potts model, by alpha-expansion.

Each pixel i of grey level $g_i$ has one of three labels, from dark to light, and

$$E(c) = \sum_i \left[\frac{(g_i - \mu_{c_i})^2}{2 \sigma_{c_i}^2} + \log \sigma_{c_i}\right]
+ J \sum_{\langle ij \rangle} [c_i \ne c_j].$$

The means $\mu$ and the deviations $\sigma$ are those of a mixture of normals, fitted to the grey
levels alone. The lightest label is that of the coins. It is compared with a segmentation that
shares nothing with the model: a watershed on the picture's edges, as in scikit-image's own
tutorial. The measure is the intersection of both over their union. Labels that are chosen for each
pixel by itself leave holes and specks; the Potts model removes nearly all of them. A light corner
of the background stays taken for a coin: grey levels alone do not tell it from one.

Alpha-expansion finds a labelling of low energy, and dual decomposition bounds all of them from
below: the gap says how far from the best it can be at most.

Teaches: a label field with tables, a mode without a proof, and a bound that says how good it is.

Source: Boykov, Veksler & Zabih (2001), IEEE PAMI 23(11), 1222-1239.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import ndimage

import energydsl as ed
from models_zoo._shared import Out, Seed

WORDS = {
    "overlap with the watershed": "{overlap_alone:.1%} pixel by pixel, {overlap:.1%} by the model",
    "pieces of coin": "{pieces_alone} pixel by pixel, {pieces} by the model, "
    "{pieces_reference} in the watershed",
    "energy": "{energy:.1f}, at most {gap:.2f} ({gap_share:.3%}) above the lowest, by {method}",
    "energy pixel by pixel": "{energy_alone:.1f}",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(own: np.ndarray, coupling: float = 2.0) -> ed.Model:
    """The Potts model of labels with an energy of their own, (row, column, label)."""
    c = ed.categorical("c", own.shape[:-1], levels=own.shape[-1])
    unlike = (c[1:] != c[:-1]).sum() + (c[:, 1:] != c[:, :-1]).sum()
    return ed.Model(ed.Table(own)(c).sum() + coupling * unlike)


def main(
    seed: Seed = 0,
    out: Out = Path("out/coins"),
    coupling: Annotated[float, typer.Option(help="J.")] = 4.0,
    labels: Annotated[int, typer.Option(min=2, help="Labels, from dark to light.")] = 3,
) -> dict[str, Any]:
    """Segment the coins. Nothing is random, so that the seed has no effect."""
    del seed
    out.mkdir(parents=True, exist_ok=True)
    grey, reference = picture(), watershed()
    own = energies(grey, *mixture(grey.ravel(), labels))
    ebm = ed.compile(declare(own, coupling))
    best = ed.map_configuration(ebm)
    found, alone = np.asarray(best.configuration["c"]), own.argmin(axis=-1)
    gap = best.energy - best.bound
    numbers = {
        "overlap_alone": overlap(alone == labels - 1, reference),
        "overlap": overlap(found == labels - 1, reference),
        "pieces_alone": pieces(alone == labels - 1),
        "pieces": pieces(found == labels - 1),
        "pieces_reference": pieces(reference),
        "energy": best.energy,
        "energy_alone": float(ebm.energy({"c": alone})),
        "gap": gap,
        "gap_share": gap / abs(best.energy),
        "method": best.method,
    }
    draw(grey, alone, found, reference, numbers, out / "segments.png")
    return numbers


def picture() -> np.ndarray:
    """The coins in grey levels between 0 and 1."""
    from skimage import data

    return data.coins() / 255.0


def watershed() -> np.ndarray:
    """The coins of a watershed on the edges, from markers of very dark and very light pixels."""
    from skimage import data, filters, segmentation

    coins = data.coins()
    markers = np.where(coins < 30, 1, np.where(coins > 150, 2, 0))
    return ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(coins), markers) == 2)


def mixture(grey: np.ndarray, labels: int, steps: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """The means and deviations of a mixture of normals, by expectation maximisation."""
    means = np.quantile(grey, (np.arange(labels) + 0.5) / labels)
    deviations, weights = np.full(labels, 0.1), np.full(labels, 1 / labels)
    for _ in range(steps):
        logs = np.log(weights) - energies(grey, means, deviations)
        share = np.exp(logs - logs.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        weights, total = share.mean(axis=0), share.sum(axis=0)
        means = grey @ share / total
        deviations = np.sqrt((share * (grey[:, None] - means) ** 2).sum(axis=0) / total)
    return means, deviations


def energies(grey: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """The energy of each label at each pixel, up to a constant."""
    return (grey[..., None] - means) ** 2 / (2 * deviations**2) + np.log(deviations)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The intersection of two sets of pixels over their union."""
    return float((one & other).sum() / (one | other).sum())


def pieces(coins: np.ndarray) -> int:
    """The connected pieces of a set of pixels."""
    return int(ndimage.label(coins)[1])


def draw(
    grey: np.ndarray,
    alone: np.ndarray,
    found: np.ndarray,
    reference: np.ndarray,
    numbers: dict[str, Any],
    path: Path,
) -> None:
    """Plot the picture, the labels of single pixels, those of the model, and the watershed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    shown = {
        "picture": grey,
        f"pixel by pixel: overlap {numbers['overlap_alone']:.1%}": alone,
        f"Potts model: overlap {numbers['overlap']:.1%}": found,
        "watershed": reference,
    }
    for axis, (title, values) in zip(figure.subplots(2, 2).ravel(), shown.items(), strict=True):
        axis.imshow(values, cmap="gray", interpolation="nearest")
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
