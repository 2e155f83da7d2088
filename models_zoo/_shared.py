"""Common parts of the zoo models: options, means with standard errors, and saved chains."""

import math
import warnings
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import energydsl as ed

Seed = Annotated[int, typer.Option(help="Of everything random.")]
Out = Annotated[Path, typer.Option(help="Folder for pictures and chains.")]


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
