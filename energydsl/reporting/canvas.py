"""Matplotlib figures without a window; Matplotlib is imported when first used."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
"""Paul Tol's bright colours, which colour-blind readers can distinguish."""


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=150, layout="constrained")
    # Lets notebooks display the figure, which they do by themselves only for figures of pyplot.
    setattr(figure, "_repr_png_", partial(_png, figure))  # noqa: B010
    return figure


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of invisible axes."""
    figure = figure_of(width, height)
    axes = figure.subplots()
    axes.set_axis_off()
    return figure, axes


def saved(figure: Figure, path: str | PathLike | None) -> Figure:
    """The figure, which is also written to `path` if one is given."""
    if path is not None:
        figure.savefig(path)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
