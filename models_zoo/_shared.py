"""What zoo models share: their common options, a mean with its error bar, chains to a file."""

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
    """A mean over chains, its Monte Carlo standard error, and what ArviZ says of its chains."""

    mean: float
    error: float
    ess: float
    rhat: float

    def z(self, exact: float) -> float:
        """How many standard errors the mean is off; NaN where no draw differs."""
        return (self.mean - exact) / self.error if self.error else math.nan


def estimate(draws: np.ndarray) -> Estimate:
    """Estimate a scalar's mean from draws, (chain, draw), however correlated they are."""
    import arviz as az

    draws = np.asarray(draws, np.float64)
    ess, rhat = az.ess(draws, method="mean"), az.rhat(draws)
    return Estimate(float(draws.mean()), float(az.mcse(draws)), float(ess), float(rhat))


def write_chains(chains: ed.Chains, path: Path, **labels: Any) -> None:
    """Write chains as netCDF; where the disk takes none, say so and let the numbers be saved."""
    try:
        ed.to_netcdf(chains, path, **labels)
    except OSError as error:
        warnings.warn(f"The chains were not saved in {str(path)!r}: {error}.", stacklevel=2)
