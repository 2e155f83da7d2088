"""Log-likelihoods of single observations, as ArviZ's cross-validation needs them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from energydsl._types import Configuration
from energydsl.analysis.joint_states import Rows
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.normalizer.directed import doubts, normalised_densities
from energydsl.run.predictive import flat_draws
from energydsl.run.sampling import Chains

BATCH = 256
"""How many draws are evaluated at once."""


class Observed(NamedTuple):
    """Densities of observed values, in the order of the sites that they observe."""

    variable: Variable
    rows: Rows
    order: np.ndarray
    shape: tuple[int, ...]
    """The shape of the variable without the axes of one event, if each event has a density; else
    the number of densities."""


def log_likelihood(chains: Chains, found: Sequence[Observed]) -> dict[str, np.ndarray]:
    r"""$\log p(y_i \mid x)$ for each draw x and each of these observations.

    Returns:
        For each observed variable an array of shape (chain, draw, ...).
    """
    xs = flat_draws(chains, "log_likelihood")
    lead = chains.stats["energy"].shape
    logs = _terms(chains.ebm.model, tuple(o.rows for o in found), _as_declared(chains, xs))
    return {
        o.variable.name: -np.asarray(energies)[:, o.order].reshape(*lead, *o.shape)
        for o, energies in zip(found, logs, strict=True)
    }


def observations(model: Model) -> list[Observed]:
    """The observations of a conditioned model that have a density; one entry per variable.

    An observation has one where its factor is a normalised density of it given other variables,
    and whatever depends on it has one, too; the model need not be directed elsewhere.
    """
    if not model.observed:
        return []
    structure, found = Structure(model.unconditioned()), {}
    if reasons := doubts(structure, model.observed):
        warnings.warn(
            f"The tree has no log-likelihoods of some observations: {'; '.join(reasons)}.",
            stacklevel=5,
        )
    for rows, sites in normalised_densities(structure):
        variable, local = _owner(structure, sites)
        held = model.skeleton.mask(variable).ravel()[local].all(axis=1)
        if held.any():
            found.setdefault(variable.name, []).append((variable, rows, local, held))
    # Where several batches observe one variable, its observations have no common array.
    return [_observed(*parts[0]) for parts in found.values() if len(parts) == 1]


def _observed(variable: Variable, rows: Rows, local: np.ndarray, held: np.ndarray) -> Observed:
    chosen = np.flatnonzero(held)
    order = chosen[np.argsort(local[chosen, 0], kind="stable")]
    ndim = len(variable.shape) - _event_ndim(variable.shape, local.shape[1])
    shape = variable.shape[:ndim]
    whole = len(order) == int(np.prod(shape)) and len(order) * local.shape[1] == variable.size
    return Observed(variable, rows, order, shape if whole else (len(order),))


def _event_ndim(shape: tuple[int, ...], size: int) -> int:
    """The number of trailing axes with this many entries together."""
    return next((k for k in range(len(shape) + 1) if np.prod(shape[len(shape) - k :]) == size), 0)


def _owner(structure: Structure, sites: np.ndarray) -> tuple[Variable, np.ndarray]:
    """The variable to which sites belong, and their positions in its flat array."""
    first = int(sites.flat[0])
    owner = next(v for v in structure.variables if 0 <= first - structure.offset[v.name] < v.size)
    return owner, sites - structure.offset[owner.name]


def _as_declared(chains: Chains, xs: dict[str, np.ndarray]) -> Configuration:
    dtypes = {v.name: v.domain.dtype for v in chains.ebm.model.variables}
    return {name: jnp.asarray(x, dtypes[name]) for name, x in xs.items()}


@eqx.filter_jit
def _terms(model: Model, rows: tuple[Rows, ...], xs: Configuration) -> list[Array]:
    def one(x: Configuration) -> list[Array]:
        env = model.environment(model.blank() | model.placed(x))
        return [part.energies(env) for part in rows]

    return lax.map(one, xs, batch_size=BATCH)
