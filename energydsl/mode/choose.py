"""The mode of a model: exact plans where there are some, and one method for all that is left."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._messages import described
from energydsl._types import Configuration, IntractableError, check_key
from energydsl.analysis.structure import Structure
from energydsl.compiler.ebm import EBM, check_ebm, check_numbers
from energydsl.mode.base import AbstractMethod, Mode, Problem, energy_of
from energydsl.mode.expansion import Expansion
from energydsl.mode.graph_cut import GraphCut
from energydsl.mode.search import Search
from energydsl.normalizer import Intractable, trouble
from energydsl.normalizer.base import Planned, planned
from energydsl.normalizer.evaluate import mode_of

METHODS: tuple[AbstractMethod, ...] = (GraphCut(), Expansion(), Search())
"""The methods that are tried in turn; the first that applies is used."""


@described
def map_configuration(ebm: EBM, *, key: Array | None = None) -> Mode:
    r"""A configuration of lowest energy, $\mathrm{argmin}_x\, E(x)$, with a bound of all energies.

    Connected components for which a rule of exact log Z gives the mode are solved by it. For the
    others together, the first of these applies:

    - graph cut, proven optimal: pairs of finite sites that are submodular after the order of the
      levels of some sites is reversed, such as spins without frustration, in any field;
    - alpha-expansion, with a bound: pairs that are metrics of their labels, as in Potts models;
    - search, for all other models, which needs a key: annealing of discrete sites and L-BFGS in
      continuous ones, from several starts. Finite models with factors of few sites get a bound.

    Continuous variables have the density of the variables as declared, without a Jacobian.

    Args:
        ebm: a compiled model.
        key: for the search; a model that does not need one is answered without it.

    Returns:
        A `Mode`; its `proven` says whether the energy is shown to be the lowest.

    Raises:
        IntractableError: only a search applies, and no key is given; the message says why.
        TypeError: a model that is not compiled, or a call inside a JAX transformation.
        ValueError: the distribution does not exist for the present parameter values, or every
            configuration has infinite energy, or none of a finite one was found.

    Source: Greig, Porteous & Seheult (1989), JRSS B 51, 271-279, for graph cuts; Boykov, Veksler &
    Zabih (2001), IEEE PAMI 23(11), 1222-1239, for alpha-expansion.
    """
    check_ebm(ebm, "map_configuration")
    check_numbers(ebm.model, "map_configuration")
    if key is not None:
        check_key(key, "map_configuration")
    normalizer = ebm.conclusions.survey.choose("mode")
    if not isinstance(normalizer, Intractable):
        x = mode_of(ebm.model, normalizer)
        return _answer(ebm, x, 0.0, normalizer.rules, normalizer)
    parts = _parts(ebm)
    problem = Problem(ebm, parts.rest, key)
    method = _chosen(problem, normalizer.reason)
    found = method.solve(problem)
    if parts.solved is None:
        return _answer(ebm, found.x, found.excess, found.method, None)
    x = _joined(ebm, parts.rest, found.x, mode_of(ebm.model, parts.solved))
    return _answer(ebm, x, found.excess, f"{found.method}, {parts.solved.rules}", parts.solved)


def _chosen(problem: Problem, exact: str) -> AbstractMethod:
    """The first method that applies."""
    reasons = [exact]
    for method in METHODS:
        said = method.reason(problem)
        if said is None:
            return method
        reasons.append(f"{method.name}: {said}")
    raise IntractableError(
        f"map_configuration has no exact answer for this model: {'; '.join(reasons)}. A search "
        "proves a bound at most: write ed.map_configuration(ebm, key=jax.random.key(0))."
    )


class _Parts(NamedTuple):
    solved: Planned | None
    """The plans for the components that have some; None if none has."""
    rest: Structure
    """The structure of the other components."""


def _parts(ebm: EBM) -> _Parts:
    structure, survey = ebm.structure, ebm.conclusions.survey
    known = np.flatnonzero(np.isfinite(survey.least("mode")[1]))
    plans = survey.plans("mode", known)
    kept = tuple(p for p in plans if survey.budget.excess(0.0, "", p.most_bytes) is None)
    if not kept:
        return _Parts(None, structure)
    solved = planned(structure, kept, survey.budget)
    left = structure.free & (np.asarray(solved.plan_of) < 0)
    stuck = np.zeros(len(structure.component_sizes) + 1, bool)
    stuck[structure.component_of[left]] = True
    chosen = tuple(stuck[owner] for owner in structure.row_components)
    return _Parts(solved, structure.part(left, chosen))


def _joined(ebm: EBM, rest: Structure, x: Configuration, solved: Configuration) -> Configuration:
    """The configuration `x` at the sites of the rest, and `solved` at all others."""
    joined = {}
    for v in ebm.structure.skeleton.free:
        own = rest.free[rest.offset[v.name] :][: v.size].reshape(v.shape)
        joined[v.name] = jnp.where(own, x.get(v.name, solved[v.name]), solved[v.name])
    return joined


def _answer(ebm: EBM, x: Configuration, excess: float, method: str, plans: Planned | None) -> Mode:
    free = ebm.structure.skeleton.free
    x = ebm.model.placed({v.name: jnp.asarray(x[v.name], v.domain.dtype) for v in free})
    energy = energy_of(ebm.model, x)
    if np.isnan(energy):
        said = trouble(ebm.model, plans) if plans is not None else "the energy is NaN"
        raise ValueError(f"There is no mode: {said}.")
    if energy == np.inf:
        raise ValueError("Every configuration has infinite energy: there is no most likely one.")
    return Mode(x, energy, energy - excess, excess == 0.0, method)
