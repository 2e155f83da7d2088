"""Pictures of chains: traces of the energy, and sheets of samples."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from energydsl.report.canvas import COLOURS, figure_of, saved
from energydsl.run.sampling import Chains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP_COLOUR = "#D5DEEC"

MAX_ROWS = 8
"""The largest number of chains that a sheet shows."""


def plot_energy(chains: Chains, path: str | PathLike | None = None) -> Figure:
    """Plot the energy of each chain against the draws, with a histogram.

    Args:
        chains: the result of `energydsl.sample`.
        path: the file to which the picture is written, if any.
    """
    energy = chains.stats["energy"]
    figure = figure_of(9, 3.5)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    bins = np.histogram_bin_edges(energy[np.isfinite(energy)], bins=40)
    for number, trace in enumerate(energy):
        colour = COLOURS[number % len(COLOURS)]
        left.plot(trace, color=colour, lw=0.7, label=f"chain {number}")
        right.hist(trace, bins, orientation="horizontal", color=colour, histtype="step")
    left.set(xlabel="draw", ylabel="energy  ($k_B T$)")
    left.margins(x=0)
    right.set(xlabel="draws")
    right.tick_params(left=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    if 1 < len(energy) <= len(COLOURS):
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside upper right", ncols=6, frameon=False
        )
    return saved(figure, path)


def plot_samples(
    samples: Chains | Any,
    name: str | None = None,
    path: str | PathLike | None = None,
    *,
    columns: int = 8,
    shape: tuple[int, int] | None = None,
) -> Figure:
    """Plot samples of a two-dimensional variable as a sheet of images.

    Args:
        samples: chains, where each row shows one chain (at most eight) at evenly spaced draws; or
            an array of images, which are shown in reading order.
        name: the variable's name; it may be left out if the chains have a single variable.
        path: the file to which the picture is written, if any.
        columns: the number of images in a row.
        shape: the shape of one image, if the variable is stored flat.

    Raises:
        ValueError: an unknown name, or a variable that is not an image.
    """
    rows, across = [], []
    if isinstance(samples, Chains):
        array = _drawn(samples, name)[:MAX_ROWS]
        picks = np.unique(np.linspace(0, array.shape[1] - 1, columns).round().astype(int))
        images, columns = array[:, picks].reshape(-1, *array.shape[2:]), len(picks)
        rows, across = [f"chain {k}" for k in range(len(array))], [f"draw {k}" for k in picks]
    else:
        images = np.asarray(samples)
    if shape is not None:
        images = images.reshape(-1, *shape)
    if images.ndim != 3:
        raise ValueError(
            f"plot_samples got samples of shape {images.shape[1:]}; expected images of two axes. "
            "Where they are stored flat, give shape=(height, width)."
        )
    return saved(_draw_sheet(images, columns, rows, across), path)


def _drawn(chains: Chains, name: str | None) -> np.ndarray:
    names = list(chains.draws)
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        raise ValueError(
            f"The chains hold {names}; say which to plot: plot_samples(chains, {names[0]!r})."
        )
    if name not in names:
        raise ValueError(f"plot_samples got the name {name!r}; expected one of {names}.")
    if not chains.draws[name].shape[1]:
        raise ValueError(f"The chains have no draws of {name!r}: there is nothing to plot.")
    return chains.draws[name]


def _draw_sheet(
    images: np.ndarray, columns: int, rows: Sequence[str], across: Sequence[str]
) -> Figure:
    """A figure of images in reading order, with names for rows and columns if given."""
    from matplotlib import colormaps

    sheet = _sheet(images, columns)
    width = min(1.5 * columns + 0.5, 12)
    figure = figure_of(width, width * sheet.shape[0] / sheet.shape[1] + 0.2)
    # Every pixel of an image gets at least one pixel of the picture.
    figure.set_dpi(np.clip(1.1 * sheet.shape[1] / width, 150, 300))
    axes = figure.subplots()
    axes.imshow(sheet, cmap=colormaps["gray"].with_extremes(bad=GAP_COLOUR))
    axes.set_xticks(_centres(images.shape[2], len(across)), across)
    axes.set_yticks(_centres(images.shape[1], len(rows)), rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def _sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """One array of all images in reading order, with NaN between them."""
    count, height, width = images.shape
    rows, down, right = -(-count // columns), height + _gap(height), width + _gap(width)
    tiles = np.full((rows * columns, down, right), np.nan)
    tiles[:count, :height, :width] = images
    sheet = tiles.reshape(rows, columns, down, right).swapaxes(1, 2)
    return sheet.reshape(rows * down, columns * right)[: -_gap(height), : -_gap(width)]


def _gap(size: int) -> int:
    """The number of pixels between images."""
    return 1 + size // 32


def _centres(size: int, count: int) -> np.ndarray:
    return np.arange(count) * (size + _gap(size)) + (size - 1) / 2
