"""Pictures of chains and of learning: traces, sheets of samples that may move, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from energydsl._messages import brief, described
from energydsl.language.expression.operation import is_real
from energydsl.learning.history import HeldOut, History
from energydsl.reporting.canvas import COLOURS, figure_of, saved
from energydsl.run.sampling import Chains, check_chains

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP_COLOUR, GAP_GREY = "#D5DEEC", 220

HEADLINE, FRAME = 16, 100
"""The pixels above an animation, and the milliseconds that a frame takes."""

MAX_ROWS = 8
"""The largest number of chains that a sheet shows."""

ACROSS, SIDE = 4, 160
"""The chains in one row of an animation, and the least pixels along the longer side of each."""

WIDE = 30
"""The ratio of the largest and the smallest value from which a learning curve is logarithmic."""

STEPS_PER_MEAN = 50
"""A learning curve's mean is over this share of its steps."""


@described
def plot_energy(chains: Chains, path: str | PathLike | None = None) -> Figure:
    """Plot the energy of each chain against the draws, with a histogram.

    Args:
        chains: the result of `energydsl.sample`.
        path: the file to which the picture is written, if any.
    """
    check_chains(chains, "plot_energy")
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


@described
def plot_history(history: History, path: str | PathLike | None = None) -> Figure:
    """Plot what was recorded of learning: the loss and the other scalars at each step.

    A pale line shows each step, a dark one the mean over the last 2 % of all steps, in which the
    noise of batches and chains is smaller. The measure of held-out data, if there are any, stands
    beside the loss if it is a loss itself, and otherwise below it; a mark shows its lowest value.

    Args:
        history: the history that `energydsl.fit` returns with the learnt EBM.
        path: the file to which the picture is written, if any.

    Raises:
        TypeError: this is no history.
        ValueError: the history has no steps.
    """
    if not isinstance(history, History):
        raise TypeError(
            f"plot_history got {brief(history)}; expected the history that ed.fit returns: "
            "learnt, history = ed.fit(ebm, objective, data, key=key)."
        )
    count = len(next(iter(history.values()), ()))
    if not count:
        raise ValueError("The history has no steps: there is nothing to plot.")
    names, held_out = list(history), history.held_out
    beside = held_out is not None and held_out.name == "loss"
    if held_out is not None and not beside:
        names.insert(1, f"held-out\n{held_out.name}")
    figure = figure_of(9, 2.4 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        if name in history:
            _plot_steps(axes, history[name])
        if held_out is not None and (name == "loss" if beside else name not in history):
            _plot_held_out(axes, held_out)
        if name == "loss" and _spans(history[name]):
            axes.set_yscale("log")
        axes.set_ylabel(name.replace("_", " "))
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    if beside:
        panels[0].legend(frameon=False)
    panels[-1].set_xlabel("step")
    return saved(figure, path)


def _spans(values: np.ndarray) -> bool:
    """Whether values are best seen on a logarithmic axis: all above 0, and of several sizes."""
    return bool(values.min() > 0 and values.max() > WIDE * values.min())


def _plot_steps(axes: Axes, values: np.ndarray) -> None:
    window, label = max(1, len(values) // STEPS_PER_MEAN), "data learnt from"
    if window == 1:
        axes.plot(values, color=COLOURS[0], lw=0.8, label=label)
        return
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    steps = np.arange(window - 1, len(values))
    axes.plot(values, color=COLOURS[0], lw=0.8, alpha=0.35)
    axes.plot(steps, mean, color=COLOURS[0], lw=1.4, label=label)


def _plot_held_out(axes: Axes, held_out: HeldOut) -> None:
    axes.plot(
        held_out.steps, held_out.values, ".-", color=COLOURS[1], lw=1.2, label="held-out data"
    )
    best = held_out.best
    if best is not None:
        low = held_out.values[held_out.steps == best]
        axes.plot([best], low, "o", mfc="none", ms=9, color=COLOURS[1])
        axes.annotate(
            f"lowest after {best} steps", (best, low[0]), xytext=(0, 10),
            textcoords="offset points", ha="center", color=COLOURS[1],
        )  # fmt: skip


@described
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
        picks = _spaced(array.shape[1], columns)
        images, columns = array[:, picks].reshape(-1, *array.shape[2:]), len(picks)
        rows, across = [f"chain {k}" for k in range(len(array))], [f"draw {k}" for k in picks]
    else:
        images = _images(samples)
    if shape is not None:
        images = images.reshape(-1, *shape)
    _check_images(images)
    return saved(_draw_sheet(images, columns, rows, across), path)


@described
def animate_samples(
    chains: Chains,
    path: str | PathLike,
    name: str | None = None,
    *,
    frames: int = 100,
    shape: tuple[int, int] | None = None,
) -> Path:
    """Write a moving picture of a two-dimensional variable: all chains side by side, draw by draw.

    Args:
        chains: the result of `energydsl.sample`; at most eight chains are shown.
        path: the file to write, with the ending ``.gif``; ten frames take a second.
        name: the variable's name; it may be left out if the chains have a single variable.
        frames: the largest number of frames; the draws are spaced evenly.
        shape: the shape of one image, if the variable is stored flat.

    Returns:
        The path of the file.

    Raises:
        TypeError: these are no chains.
        ValueError: an unknown name, a variable that is not an image, or a file of another kind.
    """
    check_chains(chains, "animate_samples")
    target = Path(path)
    if target.suffix.lower() != ".gif":
        raise ValueError(
            f"animate_samples got the path {str(path)!r}; expected one of a .gif file."
        )
    target.write_bytes(moving_picture(chains, name, frames, shape))
    return target


def moving_picture(
    chains: Chains, name: str | None, frames: int, shape: tuple[int, int] | None = None
) -> bytes:
    """An animated GIF of chains, with the number of the draw above each frame."""
    from PIL import Image, ImageDraw

    draws = _drawn(chains, name)[:MAX_ROWS]
    if shape is not None:
        draws = draws.reshape(*draws.shape[:2], *shape)
    _check_images(draws[0])
    low, high = draws.min(), draws.max()
    scale = -(-SIDE // max(draws.shape[2:]))
    pictures = []
    for k in _spaced(draws.shape[1], frames):
        sheet = _sheet(draws[:, k], min(ACROSS, len(draws)))
        grey = np.nan_to_num(255 * (sheet - low) / max(high - low, 1e-30), nan=GAP_GREY)
        large = np.kron(grey.round().astype(np.uint8), np.ones((scale, scale), np.uint8))
        page = Image.new("L", (large.shape[1], large.shape[0] + HEADLINE), 255)
        page.paste(Image.fromarray(large), (0, HEADLINE))
        ImageDraw.Draw(page).text((4, 3), f"draw {k}", fill=0)
        pictures.append(page)
    buffer = BytesIO()
    first, *others = pictures
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=FRAME, loop=0)
    return buffer.getvalue()


def _spaced(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, evenly spaced, the first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _check_images(images: np.ndarray) -> None:
    if images.ndim != 3:
        raise ValueError(
            f"Got samples of shape {images.shape[1:]}; expected images of two axes. Where they are "
            "stored flat, give shape=(height, width)."
        )


def _images(samples: object) -> np.ndarray:
    """An array of images, as users may give it."""
    images = np.asarray(samples)
    if not is_real(images.dtype):
        raise TypeError(
            f"plot_samples got {brief(samples)}; expected the chains that ed.sample returns, or an "
            "array of images."
        )
    return images


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
    if images.size:
        axes.set_xlabel(f"black: {images.min():.4g}, white: {images.max():.4g}")
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
