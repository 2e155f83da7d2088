"""Modes: a picture restored by graph cut, and the time beyond that of SciPy's maximum flow."""

import time

import numpy as np

import energydsl as ed
from benchmarks.measure import Row, limit
from energydsl.mode import flow

SIDE = 512


def rows() -> list[Row]:
    rng = np.random.default_rng(0)
    clean = _disc()
    noisy = np.where(rng.random(clean.shape) < 0.1, -clean, clean)
    x, y = ed.spin("x", clean.shape), ed.spin("y", clean.shape)
    agreement = (x[1:] * x[:-1]).sum() + (x[:, 1:] * x[:, :-1]).sum()
    ebm = ed.compile(ed.Model(-0.6 * agreement - 1.1 * (x * y).sum()).condition(y=noisy))
    seconds, library = [], _Timed(flow.maximum_flow)
    flow.maximum_flow = library
    try:
        for _ in range(4):
            library.seconds, began = 0.0, time.perf_counter()
            found = ed.map_configuration(ebm)
            seconds.append((time.perf_counter() - began, library.seconds))
    finally:
        flow.maximum_flow = library.function
    assert found.proven
    whole, own = min(seconds[1:])
    said = f"{whole - own:.2f} s, then {own:.2f} s of SciPy's flow"
    return [Row(f"mode of {SIDE} x {SIDE} pixels", said, "1 s", limit(whole - own, 1.0))]


class _Timed:
    """A function that adds up how long it takes."""

    def __init__(self, function):
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments):
        began = time.perf_counter()
        result = self.function(*arguments)
        self.seconds += time.perf_counter() - began
        return result


def _disc() -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2
    return np.where(rows**2 + columns**2 < (SIDE / 3) ** 2, 1, -1)
