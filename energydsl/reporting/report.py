"""Reports: one HTML file about a model and what was sampled or learnt."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from energydsl._messages import brief, described
from energydsl.compiler.ebm import EBM, check_compiled
from energydsl.learning.history import History
from energydsl.reporting.arviz_tree import record_of
from energydsl.reporting.canvas import COLOURS, figure_of
from energydsl.reporting.diagnose import diagnose
from energydsl.reporting.page import Page
from energydsl.reporting.plot import moving_picture, plot_energy, plot_history, plot_samples
from energydsl.reporting.tex import energy_tex
from energydsl.run.files import write_whole
from energydsl.run.sampling import Chains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 40
"""The largest number of scalars that the table of a report lists."""

MIN_DRAWS = 4
"""The least number of draws of a chain from which ArviZ estimates errors."""

MAX_TRACED, MAX_CHAINS = 4, 8
"""The largest numbers of scalars and of chains whose traces and ranks a report shows."""

COLUMNS = (
    "sd: standard deviation. eti: the interval between these ends has 89 % of the draws. ess: the "
    "number of independent draws that would give the mean (bulk) and the ends (tail) as precisely. "
    "r_hat: near 1 if the chains agree. mcse: standard error of the mean and of sd."
)
"""What the columns of ArviZ's summary mean."""

FRAMES = 60
"""The largest number of frames of a moving picture in a report."""

IMAGE = 4
"""From this height and width on, a variable of two axes is shown as images."""

LIBRARIES = ("energydsl", "jax", "numpyro", "arviz", "equinox", "optax", "numpy")


@described
def report(ebm: EBM, result: Chains | History | None = None, path: str | PathLike = "") -> Path:
    """Write one HTML file about a model: what it is, what was found, and what came out.

    It contains the energy as a formula, the factor graph, `EBM.explain` and log Z; for chains the
    diagnosis, a table of means, traces, ranks and samples; for a history the learning curves; and
    versions and the random key. Pictures are inside the file, which needs no network.

    Args:
        ebm: a compiled model.
        result: what `energydsl.sample` or `energydsl.fit` returned for it, if anything.
        path: the file to write, usually with the ending ``.html``.

    Returns:
        The path of the file.

    Raises:
        TypeError: `ebm` is not compiled, or `result` is neither chains nor a history.
        ValueError: no path is given.
        OSError: the file cannot be written.
    """
    check_compiled(ebm, "report")
    if result is not None and not isinstance(result, Chains | History):
        raise TypeError(
            f"report got {brief(result)}; expected chains of ed.sample or the history of ed.fit, "
            "then the file: ed.report(ebm, chains, 'run.html'), or ed.report(ebm, path='run.html')."
        )
    if not str(path):
        raise ValueError("report got no path; name the file: ed.report(ebm, chains, 'run.html').")
    page = Page("Energy-based model", _made())
    add_model(page, ebm)
    if isinstance(result, Chains):
        add_chains(page, result)
    elif result is not None:
        add_history(page, result)
    add_versions(page)
    write_whole(Path(path), str(page).encode())
    return Path(path)


def add_model(page: Page, ebm: EBM) -> None:
    """The energy, the factor graph, and what the compiler found."""
    page.section("Energy")
    terms = energy_tex(str(ebm.model.expression))
    page.formulas([f"E = {terms[0]}", *(rf"\quad {t}" for t in terms[1:])] if terms else [])
    page.code(str(ebm.model))
    page.section("Factor graph")
    page.figure(ebm.model.graph(), "Variables are circles, factors are squares.")
    page.section("What the compiler found")
    page.code(str(ebm.explain()))


def add_chains(page: Page, chains: Chains) -> None:
    """The diagnosis of chains, their summary, and pictures of them."""
    record = record_of(chains)
    page.section("log Z")
    page.text(_log_z_text(record))
    page.section("Chains")
    page.text(
        f"{chains!r}, warmup of {chains.warmup} steps, {chains.thin} steps per draw, key "
        f"{record['key']}, {chains.seconds:.1f} s."
    )
    if not chains.stats["energy"].size:
        page.text("There are no draws.")
        return
    page.code(str(diagnose(chains)))
    page.figure(plot_energy(chains), "The model's energy of each draw, and its histogram.")
    add_draws(page, chains.draws)
    for name, array in chains.draws.items():
        if array.ndim == 4 and min(array.shape[2:]) >= IMAGE:
            page.section(f"Samples of {name}")
            page.figure(plot_samples(chains, name), "Each row shows one chain at even distances.")
            moving = moving_picture(chains, name, FRAMES)
            page.picture(moving, "All chains, draw by draw.", "gif")


def add_draws(page: Page, draws: Mapping[str, np.ndarray]) -> None:
    """A table of means, and traces, of draws of shape (chain, draw, ...)."""
    scalars = _scalars(draws)
    page.section("Means and traces")
    if scalars and next(iter(scalars.values())).shape[1] >= MIN_DRAWS:
        _add_summary(page, scalars)
    many = any(a.shape[0] > MAX_CHAINS for a in scalars.values())
    which = f"The first {MAX_CHAINS} chains. " if many else ""
    page.figure(
        _traces(scalars),
        f"{which}Left: draws, or their mean so far for a scalar of two values. Right: histograms "
        "of their ranks; flat ones mean chains that agree.",
    )


def add_history(page: Page, history: History) -> None:
    """The learning curves."""
    page.section("Learning")
    page.text(
        f"{len(next(iter(history.values())))} steps of {history.objective!r} in "
        f"{history.seconds:.1f} s" + (f"; {history.stopped}" if history.stopped else "") + "."
    )
    if len(next(iter(history.values()))):
        page.figure(plot_history(history), "The objective's scalars at each step, and their means.")


def add_versions(page: Page) -> None:
    """The versions of everything that took part."""
    page.section("Versions")
    rows = [(name, metadata.version(name)) for name in LIBRARIES]
    page.table(("library", "version"), [("Python", platform.python_version()), *rows])


def _log_z_text(record: Mapping[str, Any]) -> str:
    """Log Z with its kind and its rule, or why it is not here."""
    log_z, rule = record["log_z"], record["normalizer"].partition(":")[0]
    if log_z is None:
        return f"log Z is {rule}; what the compiler found, above, has the reasons and the costs."
    error = f", error at most {log_z['error']:.2g}" if log_z["error"] else ""
    return f"log Z = {log_z['value']:.10g} ({log_z['kind']}{error}), {rule}."


def _made() -> str:
    return f"A report by energydsl {metadata.version('energydsl')}"


def _scalars(draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first scalars that were drawn and that are not constant, by name: (chain, draw)."""
    found: dict[str, np.ndarray] = {}
    for name, array in draws.items():
        flat = array.reshape(*array.shape[:2], -1)
        moving = np.flatnonzero(flat.min((0, 1)) != flat.max((0, 1)))
        for k in moving[: MAX_ROWS - len(found)]:
            place = ", ".join(map(str, np.unravel_index(k, array.shape[2:])))
            found[f"{name}[{place}]" if array.ndim > 2 else name] = flat[..., k]
    return found


def _add_summary(page: Page, scalars: dict[str, np.ndarray]) -> None:
    import arviz as az

    with warnings.catch_warnings():
        # ArviZ divides by zero for a scalar that is constant in one chain; it reports NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        table: Any = az.summary(az.from_dict({"posterior": scalars}))
    if len(scalars) == MAX_ROWS:
        page.text(f"The first {MAX_ROWS} scalars that are not constant.")
    page.table(["", *table.columns], [(name, *row) for name, *row in table.itertuples()])
    page.text(COLUMNS)


def _traces(scalars: dict[str, np.ndarray]) -> Figure:
    """Traces of the first scalars, and histograms of the ranks of each chain's draws."""
    shown = dict(list(scalars.items())[:MAX_TRACED])
    figure = figure_of(9, 1.6 * max(len(shown), 1))
    if not shown:
        figure.text(0.5, 0.5, "All draws are equal.", ha="center", va="center")
        return figure
    panels = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(3, 2))
    for (name, draws), (left, right) in zip(shown.items(), panels, strict=True):
        ranks = _ranks(draws)
        # Ten draws of a chain in each bin, so that chance alone does not make them look uneven.
        bins = np.linspace(0, draws.size, min(20, max(2, draws.shape[1] // 10)) + 1)
        # A trace of two values would be a solid bar.
        many = len(np.unique(draws)) > 2
        for number, trace in enumerate(draws[:MAX_CHAINS]):
            colour = COLOURS[number % len(COLOURS)]
            left.plot(trace if many else _running_mean(trace), color=colour, lw=0.6)
            counts = np.histogram(ranks[number], bins)[0]
            right.stairs(counts, bins, baseline=None, color=colour)
        left.set_ylabel(name if many else f"mean of {name}")
        right.axhline(draws.shape[1] / (len(bins) - 1), color="0.6", lw=0.8)
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0)
    panels[-1, 0].set_xlabel("draw")
    panels[-1, 1].set_xlabel("rank among the draws of all chains")
    return figure


def _running_mean(trace: np.ndarray) -> np.ndarray:
    """The mean of all draws up to each."""
    return np.cumsum(trace) / np.arange(1, len(trace) + 1)


def _ranks(draws: np.ndarray) -> np.ndarray:
    """The ranks of draws among those of all chains; equal draws share their ranks evenly."""
    order = np.random.default_rng(0).permutation(draws.size)
    ranks = np.empty(draws.size)
    ranks[order[np.argsort(draws.ravel()[order], kind="stable")]] = np.arange(draws.size)
    return ranks.reshape(draws.shape)
