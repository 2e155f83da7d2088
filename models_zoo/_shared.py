"""Common parts of the zoo models: options, means with errors, saved chains, and digits."""

import math
import warnings
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import energydsl as ed

Seed = Annotated[int, typer.Option(help="Of everything random.")]
Out = Annotated[Path, typer.Option(help="Folder for pictures and chains.")]


THRESHOLD = 8
"""The grey level, of 16, from which a pixel of a digit is on."""
SIDE = 8
"""The pixels along each side of a digit."""


class Estimate(NamedTuple):
    """A mean over chains, with its Monte Carlo standard error and ArviZ's diagnostics."""

    mean: float
    error: float
    ess: float
    rhat: float

    def z(self, exact: float) -> float:
        """The error of the mean in standard errors; NaN if all draws are equal."""
        return (self.mean - exact) / self.error if self.error else math.nan


def estimate(draws: np.ndarray) -> Estimate:
    """Estimate the mean of a scalar from correlated draws, (chain, draw)."""
    import arviz as az

    draws = np.asarray(draws, np.float64)
    ess, rhat = az.ess(draws, method="mean"), az.rhat(draws)
    return Estimate(float(draws.mean()), float(az.mcse(draws)), float(ess), float(rhat))


def write_chains(chains: ed.Chains, path: Path, **labels: Any) -> None:
    """Write chains as netCDF; if that fails, warn, so that the numbers can still be saved."""
    try:
        ed.to_netcdf(chains, path, **labels)
    except OSError as error:
        warnings.warn(f"The chains were not saved in {str(path)!r}: {error}.", stacklevel=2)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits in black and white: four fifths for training, the rest for the test."""
    from sklearn.datasets import load_digits

    images = (np.asarray(load_digits(return_X_y=True)[0]) >= THRESHOLD).astype(np.int8)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:1437]], images[order[1437:]]


def independent(train: np.ndarray, test: np.ndarray) -> float:
    """The mean log-likelihood of bits in the test if each has its share in the training data."""
    share = (train.sum(axis=0) + 1) / (len(train) + 2)
    return float(np.where(test, np.log(share), np.log1p(-share)).sum(axis=1).mean())


def sheet(images: np.ndarray, columns: int = 10, side: int = SIDE) -> np.ndarray:
    """Square images side by side, with a gap of one pixel."""
    rows = -(-len(images) // columns)
    paper = np.full((rows * columns, side + 1, side + 1), np.nan)
    paper[: len(images), :side, :side] = images.reshape(-1, side, side)
    tiles = paper.reshape(rows, columns, side + 1, side + 1).swapaxes(1, 2)
    return tiles.reshape(rows * (side + 1), columns * (side + 1))[:-1, :-1]
