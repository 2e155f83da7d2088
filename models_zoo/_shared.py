"""What zoo models share: their common options, a mean with its error bar, chains to a file."""

import math
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
    """Write chains as deflated netCDF; `labels` go to `energydsl.to_arviz`."""
    tree = ed.to_arviz(chains, **labels)
    deflated = {"zlib": True, "complevel": 1}
    encoding = {node.path: dict.fromkeys(node.data_vars, deflated) for node in tree.leaves}
    tree.to_netcdf(path, engine="h5netcdf", encoding=encoding)
