"""Measurements: medians of interleaved runs, or time and memory of whole processes."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax


class Row(NamedTuple):
    """One line of the table: the measured value, and the limit or the other library's value."""

    name: str
    ours: str
    other: str
    verdict: str


def in_turn(runs: dict[str, Callable[[], object]], repeats: int = 7) -> dict[str, list[float]]:
    """Seconds of each run after one that compiles; runs alternate, as machine speed varies."""
    for run in runs.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def process(code: str) -> tuple[float, float]:
    """Wall time in seconds and peak memory in GB of a new Python process that runs `code`."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"A benchmark's process failed:\n{code}")
    return seconds, usage.ru_maxrss / 1e6


def median_process(code: str, repeats: int = 3) -> tuple[float, float]:
    """Medians of `process` over new processes, after one that fills the disk cache."""
    process(code)
    runs = [process(code) for _ in range(repeats)]
    return statistics.median(s for s, _ in runs), max(m for _, m in runs)


def limit(value: float, bound: float) -> str:
    """The text "ok" or "MISSED": whether a value is within its limit."""
    return "ok" if value <= bound else "MISSED"


def table(rows: list[Row]) -> str:
    """The table's text, with aligned columns."""
    rows = [Row("benchmark", "ours", "limit or peer", ""), *rows]
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
