"""Single events whose energy is linear in the sufficient statistics of a known family."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.factor import Whole
from energydsl.analysis.joint_states import Rows, int32, owned_rows, positions
from energydsl.analysis.statistics import (
    COS,
    INVERSE,
    LOG,
    LOG_DET,
    LOG_FACTORIAL,
    LOG_GAMMA,
    LOG_HIGH,
    SHIFT,
    SIN,
    STATISTICS,
    VALUE,
    Linear,
)
from energydsl.analysis.structure import Structure
from energydsl.language.domain import AbstractDomain, Count, Interval, Positive, Simplex
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.normalizer.base import AbstractPlan, AbstractRule, Fields, Offer
from energydsl.normalizer.bessel_families import (
    GeneralisedInverseGaussianFamily,
    VonMisesFamily,
)
from energydsl.normalizer.families import (
    AbstractFamily,
    BetaFamily,
    DirichletFamily,
    GammaFamily,
    GeometricFamily,
    InverseGammaFamily,
    Natural,
    NegativeBinomialFamily,
    PoissonFamily,
    TruncatedFamily,
    WishartFamily,
)

WORK = 50.0
"""The operations for each event and each factor: a log gamma function takes about as long."""


@dataclasses.dataclass(frozen=True)
class ExponentialFamily(AbstractRule):
    r"""$\log \int h(x)\, e^{-\eta \cdot t(x) - c}\,dx$ of one event x, in closed form.

    The energy is proven to be linear in the sufficient statistics t of a family on the domain
    of x (Gamma, inverse Gamma, generalised inverse Gaussian, Beta, truncated exponential, von
    Mises, Dirichlet, Poisson, geometric, negative binomial, Wishart), so that products of such
    densities and further linear terms belong to the family, too. The natural parameters $\eta$
    are the slopes, which may be any functions of the model's parameters.

    Source: Wainwright & Jordan (2008), Foundations and Trends in Machine Learning 1, table 3.1.
    """

    name: ClassVar[str] = "exponential family"

    def offer(self, structure: Structure) -> Offer:
        found = _find(structure)
        fits = np.array([k >= 0 for k in found.kind], bool)
        costs = WORK * (structure.component_sizes + structure.factor_counts)

        def plan(components: np.ndarray) -> tuple[AbstractPlan, ...]:
            kinds = found.kind[components]
            return tuple(
                _plan(self, structure, found, found.kinds[k], components[kinds == k], costs)
                for k in np.unique(kinds)
            )

        return Offer(
            operations=np.where(fits, costs, np.inf),
            reason=lambda c: _reason(found, structure, c),
            plan=plan,
            memory=8.0 * 4 * (structure.component_sizes + structure.factor_counts),
        )


class Term(eqx.Module):
    """Factors of one batch, and where their statistics belong."""

    linear: Linear = eqx.field(static=True)
    rows: Rows
    places: dict[int, Array]
    """For each of the leaves that are not constant, the index of each entry within its event."""

    def added(self, model: Model, eta: dict[str, Array], constant: Array) -> Array:
        """Add the slopes to `eta`, (components, entries), and return the new constants."""
        linear, arguments = self.linear, self.rows.arguments(model.environment(model.blank()))
        axes = [None if isinstance(leaf, Whole) else 0 for leaf in linear.factor.leaves]
        each, slopes = jax.vmap(linear.slopes, in_axes=(axes,))(arguments)
        owner = self.rows.owner
        for (k, name), slope in slopes.items():
            if name == LOG_DET:
                eta[name] = eta[name].at[owner].add(slope)
            else:
                place = self.places[k]
                eta[name] = eta[name].at[owner[:, None], place].add(slope.reshape(place.shape))
        return constant.at[owner].add(each)


class FamilyPlan(AbstractPlan):
    """A plan for events of one variable's domain and one family."""

    wide: ClassVar[bool] = False

    variable: Variable = eqx.field(static=True)
    family: AbstractFamily = eqx.field(static=True)
    terms: tuple[Term, ...]
    sites: Array
    """The sites of each event, (components, entries)."""

    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        eta, constant = self._natural(model)
        value = jnp.where(self.family.proper(eta), self.family.log_integral(eta), jnp.nan)
        return jnp.sum(value - constant)

    def marginals(self, model: Model) -> dict[str, Array]:
        eta, _ = self._natural(model)
        laws = jnp.stack([a.reshape(self.sites.shape) for a in self.family.moments(eta)], axis=-1)
        proper = self.family.proper(eta)[:, None, None]
        flat = jnp.zeros((self.structure.sites, 2))
        flat = flat.at[self.sites].set(jnp.where(proper, laws, jnp.nan))
        return {
            v.name: flat[self.structure.offset[v.name] :][: v.size]
            for v in self.structure.skeleton.free
            if v == self.variable
        }

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        return self._configuration(model, self.family.draw(self._natural(model)[0], key=key))

    def mode(self, model: Model) -> Configuration:
        return self._configuration(model, self.family.mode(self._natural(model)[0]))

    def trouble(self, model: Model) -> str | None:
        eta, constant = self._natural(model)
        for good, said in (
            (self.family.proper(eta), f"exp(-E) has no finite integral: {self.family.needs}"),
            (jnp.isfinite(constant), "the energy is not finite"),
            (
                jnp.isfinite(self.family.mode(eta)).reshape(len(self.sites), -1).all(axis=1),
                "its density has no highest point inside the domain",
            ),
        ):
            if not good.all():
                worst = int(np.argmin(np.asarray(good)))
                site = self.structure.describe(int(self.sites[worst, 0]))
                slopes = ", ".join(
                    f"{name} has {np.round(np.asarray(slope[worst]), 6)!s}"
                    for name, slope in eta.items()
                )
                return f"for {site}, a {self.family.name}, {said} (slopes of the energy: {slopes})"
        return None

    def _natural(self, model: Model) -> tuple[Natural, Array]:
        """The slopes of each event's energy in the statistics, and the energy without them."""
        count, entries = self.sites.shape
        shape = self.variable.event_shape
        names = STATISTICS[type(self.variable.domain)]
        eta = {n: jnp.zeros(count if n == LOG_DET else (count, entries)) for n in names}
        constant = jnp.zeros(count)
        for term in self.terms:
            constant = term.added(model, eta, constant)
        shaped = {n: a if n == LOG_DET else a.reshape(count, *shape) for n, a in eta.items()}
        return shaped, constant

    def _configuration(self, model: Model, x: Array) -> Configuration:
        values, v = dict(model.blank()), self.variable
        flat = values[v.name].ravel()
        place = self.sites.ravel() - self.structure.offset[v.name]
        dtype = jnp.result_type(flat, x) if not v.domain.discrete else flat.dtype
        values[v.name] = flat.astype(dtype).at[place].set(x.ravel().astype(dtype)).reshape(v.shape)
        return values


class _Found(NamedTuple):
    """The kind of each component: a variable and a family; -1 where there is none, and why."""

    kind: np.ndarray
    kinds: list[tuple[Variable, AbstractFamily]]
    linear: dict[tuple[int, str], Linear]
    """By the number of the batch and the name of the variable."""
    why: np.ndarray


ALONE, ALIKE, LINEAR, FACTORIAL, FAMILY = range(5)
"""What a component may lack; `REASONS` has a message for each."""

REASONS = (
    "it is not a single positive, interval, simplex, count or positive definite value",
    "its factors depend on {site} in some rows of an array and not in others",
    "the energy is not shown to be linear in {names} of {site}",
    "the slope of log {site}! is not shown to be 0 or 1, or that of log gamma({site} + r) 0 or -1",
    "no family has all of the statistics of {site} that occur, out of {names}",
)


def _reason(found: _Found, structure: Structure, component: int) -> str:
    site = int(np.argmax(structure.component_of == component))
    starts = [structure.offset[v.name] for v in structure.variables]
    domain = structure.variables[int(np.searchsorted(starts, site, side="right")) - 1].domain
    names = ", ".join(n for n in STATISTICS.get(type(domain), ()) if n != SHIFT)
    return REASONS[found.why[component]].format(site=structure.describe(site), names=names)


def _find(structure: Structure) -> _Found:
    count = len(structure.component_sizes)
    owner_of, why = np.full(count, -1), np.full(count, ALONE)
    for number, v in enumerate(structure.variables):
        if type(v.domain) in STATISTICS:
            events = structure.free_events(v)
            own = structure.component_of[events[:, 0]]
            owner_of[own[structure.component_sizes[own] == events.shape[1]]] = number
    flags = {n: np.zeros(count, bool) for names in STATISTICS.values() for n in names}
    slopes, linear = np.zeros((2, count)), {}
    for number, owner in enumerate(structure.row_components):
        kinds = np.append(owner_of, -1)[owner]
        for k in np.unique(kinds[kinds >= 0]):
            rows, variable = kinds == k, structure.variables[k]
            mine = owner[rows]
            own = _own(structure, number, rows)
            if own is None:
                why[mine] = ALIKE
                continue
            found = Linear.of(structure, number, own)
            factorials, gammas = found.factorials, found.gammas
            # A single factor has log gamma(x + r), so that there is a single r.
            if found.present is None or factorials is None or gammas not in (0.0, -1.0):
                why[mine] = LINEAR if found.present is None else FACTORIAL
                continue
            linear[number, variable.name] = found
            np.add.at(slopes[0], mine, factorials)
            np.add.at(slopes[1], mine, gammas)
            for name, there in found.present.items():
                flags[name][mine] |= there
    return _chosen(structure, owner_of, why, flags, slopes, linear)


def _own(structure: Structure, number: int, rows: np.ndarray) -> list[int] | None:
    """The leaves with free sites in these rows; None if a leaf has some in some of them only."""
    own = []
    for k, leaf in structure.factors[number].sites.items():
        free = structure.free[structure.numbers(leaf)[rows]]
        if free.any() and not free.all():
            return None
        own += [k] if free.any() else []
    return own


def _chosen(
    structure: Structure,
    owner_of: np.ndarray,
    why: np.ndarray,
    flags: dict[str, np.ndarray],
    slopes: np.ndarray,
    linear: dict[tuple[int, str], Linear],
) -> _Found:
    """The family of each component from the statistics that occur in it."""
    kind, kinds = np.full(len(why), -1), {}
    signs = np.stack([owner_of, *slopes, *flags.values()], axis=1)
    fit = (owner_of >= 0) & (why == ALONE)
    for sign in np.unique(signs[fit], axis=0):
        mine = fit & (signs == sign).all(axis=1)
        there = {n for n, present in zip(flags, sign[3:], strict=True) if present}
        variable = structure.variables[int(sign[0])]
        family = _family(variable.domain, there, (float(sign[1]), float(sign[2])))
        if family is None:
            why[mine] = FACTORIAL if there & {LOG_FACTORIAL, LOG_GAMMA} else FAMILY
        else:
            kind[mine] = kinds.setdefault((variable, family), len(kinds))
    return _Found(kind, list(kinds), linear, why)


def _family(
    domain: AbstractDomain, there: set[str], slopes: tuple[float, float]
) -> AbstractFamily | None:
    """The family with these statistics on a domain; None if there is none.

    Args:
        domain: the domain.
        there: the statistics that occur.
        slopes: the slopes of log x! and of log gamma(x + r).
    """
    match domain:
        case Positive() if {INVERSE, VALUE} <= there:
            return GeneralisedInverseGaussianFamily()
        case Positive() if INVERSE in there:
            return InverseGammaFamily()
        case Positive():
            return GammaFamily()
        case Interval(low=low, high=high) if there & {COS, SIN}:
            circle = abs(high - low - 2 * np.pi) < 1e-12
            return VonMisesFamily(low) if circle and not there & {VALUE, LOG, LOG_HIGH} else None
        case Interval(low=low, high=high) if VALUE in there:
            return None if there & {LOG, LOG_HIGH} else TruncatedFamily(low, high)
        case Interval(low=low, high=high):
            return BetaFamily(low, high)
        case Simplex():
            return None if VALUE in there else DirichletFamily()
        case Count():
            found = {(0.0, 0.0): GeometricFamily(), (1.0, 0.0): PoissonFamily()}
            return (found | {(1.0, -1.0): NegativeBinomialFamily()}).get(slopes)
    return WishartFamily()


def _plan(
    rule: AbstractRule,
    structure: Structure,
    found: _Found,
    kind: tuple[Variable, AbstractFamily],
    components: np.ndarray,
    costs: np.ndarray,
) -> FamilyPlan:
    variable, family = kind
    position = positions(structure, components)
    events = structure.free_events(variable)
    at = position[structure.component_of[events[:, 0]]]
    sites = np.zeros((len(components), events.shape[1]), int)
    sites[at[at >= 0]] = events[at >= 0]
    local = np.zeros(structure.sites, int)
    local[sites] = np.arange(sites.shape[1])
    terms = []
    for rows in owned_rows(structure, components):
        linear = found.linear[rows.number, variable.name]
        chosen = position[structure.row_components[rows.number]] >= 0
        leaves = linear.factor.sites
        places = {k: int32(local[structure.numbers(leaves[k])[chosen]]) for k in linear.own}
        terms.append(Term(linear, rows, places))
    return FamilyPlan(
        rule=rule,
        structure=structure,
        components=int32(components),
        operations=float(costs[components].sum()),
        bytes=8.0 * 4 * float(sites.size + sum(len(t.rows) for t in terms)),
        variable=variable,
        family=family,
        terms=tuple(terms),
        sites=int32(sites),
    )
