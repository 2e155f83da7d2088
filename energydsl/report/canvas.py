"""Matplotlib figures that belong to no window; Matplotlib loads when first used."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
"""Paul Tol's bright scheme, which colour-blind readers can tell apart."""


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, of a size in inches."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=150, layout="constrained")
    # Notebooks ask for it; they know by themselves only the figures that pyplot made.
    setattr(figure, "_repr_png_", partial(_png, figure))  # noqa: B010
    return figure


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, which are not drawn."""
    figure = figure_of(width, height)
    axes = figure.subplots()
    axes.set_axis_off()
    return figure, axes


def saved(figure: Figure, path: str | PathLike | None) -> Figure:
    """The figure, written to `path` where one is given."""
    if path is not None:
        figure.savefig(path)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
