"""Moves of many sites at once, compared by effective draws of a quantity per second."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size

import energydsl as ed
from benchmarks.measure import Row

SIDE = 64


def rows() -> list[Row]:
    """Trees on critical lattices of equal and of unequal couplings."""
    equal = float(np.log(1 + np.sqrt(2)) / 2)
    # The critical line is sinh(2 a) sinh(2 b) = 1.
    along = 1.5
    across = float(np.arcsinh(1 / np.sinh(2 * along)) / 2)
    return [_trees("equal couplings", equal, equal), _trees("couplings 1.5, 0.05", along, across)]


def rate(ebm, kernel, keep, **options) -> float:
    """The least effective draws per second of any quantity, in a run that is compiled already."""
    options = {"chains": 4, "warmup": 1000, "draws": 20_000, "progress": False} | options
    ed.sample(ebm, kernel, key=jax.random.key(0), keep=keep, **options)
    chains = ed.sample(ebm, kernel, key=jax.random.key(1), keep=keep, **options)
    return least_effective(chains.draws) / chains.seconds


def least_effective(draws: dict[str, np.ndarray]) -> float:
    """The least effective number of draws of any quantity."""
    return min(float(np.min(effective_sample_size(x.astype(float)))) for x in draws.values())


def _trees(name: str, along: float, across: float) -> Row:
    s = ed.spin("s", (SIDE, SIDE))
    bonds = along * (s[:, 1:] * s[:, :-1]).sum() + across * (s[1:] * s[:-1]).sum()
    ebm, keep = ed.compile(ed.Model(-bonds)), {"size": lambda x: jnp.abs(x["s"].mean())}
    ours, single = (rate(ebm, kernel, keep) for kernel in (ed.Gibbs(blocks="trees"), ed.Gibbs()))
    return Row(
        f"Trees, critical Ising 64 x 64, {name}",
        f"{ours:.3g} draws of |m| a second",
        f"{single:.3g} (single sites), 5 x",
        f"{ours / single:.2f} x: {'ok' if ours >= 5 * single else 'MISSED'}",
    )
