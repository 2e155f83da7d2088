"""The contract of a rule for log Z, and of the plan by which it is carried out.

A rule is a file of this folder. It looks at a structure and makes an `Offer`: for each connected
component what its way to log Z would cost, or why it does not apply. For the components that are
assigned to it, the offer makes plans. A plan holds all that planning found, and answers every
question about its components: log Z, marginals, independent draws, a mode. log Z adds over
components.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration
from energydsl.analysis.joint_states import Rows, held_rows, int32
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model

Question = Literal["log_partition", "marginals", "draw", "mode"]
"""What a plan may be asked."""

Fields = Mapping[str, Array]
"""Energies added to single sites, by variable: for each site of a finite variable one a level;
for each of a real variable two numbers a and b, which add a x + b x^2."""

MAX_TERMS = 62
"""log2 of the largest number of terms, whatever the budget: int64 counts no further."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What exact log Z may take for one connected component.

    Args:
        terms: log2 of the number of terms that are summed.
        memory: bytes of working memory.
    """

    terms: int = 20
    memory: int = 2**31

    def __post_init__(self) -> None:
        if not _is_count(self.terms):
            raise ValueError(
                f"compile got budget={self.terms!r}; expected log2 of the number of terms that "
                "exact log Z may sum for one component: a whole number of at least 0, such as 20."
            )
        if not _is_count(self.memory):
            raise ValueError(
                f"compile got memory={self.memory!r}; expected the bytes that exact log Z may "
                "take: a whole number of at least 0, such as 2**31."
            )

    def excess(self, terms: float, noun: str, memory: float) -> str | None:
        """By how much a component is over the budget, in words; None where it is not."""
        if terms > self.terms:
            times = terms - self.terms
            return f"2^{terms:.4g} {noun}; budget 2^{self.terms}, exceeded 2^{times:.3g}-fold"
        if terms > MAX_TERMS:
            return f"2^{terms:.4g} {noun}; more than 2^{MAX_TERMS} cannot be counted"
        if memory > self.memory:
            times = memory / self.memory
            return (
                f"{_in_bytes(memory)} of memory; budget {_in_bytes(self.memory)}, exceeded "
                f"{times:.3g}-fold: ed.compile(model, memory=...)"
            )
        return None

    def exceeded(self, terms: np.ndarray, memory: np.ndarray) -> np.ndarray:
        """True at the components that are over the budget."""
        return (terms > min(self.terms, MAX_TERMS)) | (memory > self.memory)


class Lack(NamedTuple):
    """A question that a rule's plans leave open, for which components (True: all), and why."""

    components: np.ndarray | bool
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Offer:
    """What a rule says of a structure: arrays have an entry for each connected component.

    Args:
        operations: of arithmetic, counting the component's own factors; `inf` where the rule does
            not apply.
        reason: why the rule does not apply to a component, given by its number.
        plan: plans for chosen components, given by their numbers in rising order.
        terms: log2 of the number of terms that are summed.
        memory: bytes of working memory.
        noun: what the terms are, for messages.
        lacks: the questions that the plans do not answer.
    """

    operations: np.ndarray
    reason: Callable[[int], str]
    plan: Callable[[np.ndarray], tuple[AbstractPlan, ...]]
    terms: np.ndarray | float = 0.0
    memory: np.ndarray | float = 0.0
    noun: str = "terms"
    lacks: Mapping[Question, Lack] = dataclasses.field(default_factory=dict)

    def answers(self, question: Question) -> np.ndarray:
        """True at the components for which the plans answer a question."""
        lack = self.lacks.get(question)
        return np.isfinite(self.operations) & ~np.asarray(False if lack is None else lack[0])

    def refusal(self, component: int, question: Question, budget: Budget) -> str | None:
        """Why a component has no answer from this rule, or None where it has."""
        if not np.isfinite(self.operations[component]):
            return self.reason(component)
        lack = self.lacks.get(question)
        if lack is not None and np.broadcast_to(lack.components, self.operations.shape)[component]:
            return lack.reason
        terms, memory = self.numbers()
        return budget.excess(float(terms[component]), self.noun, float(memory[component]))

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Terms and memory for each component."""
        shape = self.operations.shape
        return np.broadcast_to(self.terms, shape), np.broadcast_to(self.memory, shape)


class AbstractRule(abc.ABC):
    """One way to log Z. Subclasses are frozen dataclasses: their settings are their identity."""

    name: ClassVar[str]

    @abc.abstractmethod
    def offer(self, structure: Structure) -> Offer:
        """What this rule can do for each connected component."""


class AbstractPlan(eqx.Module):
    """How a rule is carried out for some like components: a pytree, its index arrays leaves.

    Methods are pure functions of the model's numbers, to be traced with float64 on; the model's
    floats are float64. Configurations have an array for every variable, and hold the evidence (or
    anything) outside the plan's components.
    """

    kind: ClassVar[str] = "exact"
    """"quadrature" where the value has a numerical error beyond float64's rounding."""

    wide: ClassVar[bool] = True
    """Whether draws are traced with float64 on, as all else is. If not, in JAX's default."""

    rule: AbstractRule = eqx.field(static=True)
    structure: Structure = eqx.field(static=True)
    components: Array
    operations: float = eqx.field(static=True)
    """Predicted, for all components together."""
    bytes: float = eqx.field(static=True)
    """Predicted working memory."""

    @abc.abstractmethod
    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        """Log of the integral of exp(-E) over these components' sites, differentiable.

        E is the energy of the factors that contain a site of theirs, with `fields` added. It is
        NaN where the values do not allow it. A plan that takes no fields has no marginals.
        """

    def marginals(self, model: Model) -> dict[str, Array]:
        r"""The laws of single sites, 0 at sites of other components.

        They follow from $p(x_i = l) = -\partial \log Z / \partial \theta_{il}$ at $\theta = 0$,
        for energies $\theta_{il}$ added to the levels of single sites.

        Returns:
            For each finite variable the probabilities, (size, levels); for each real one the mean
            and the variance, (size, 2).
        """
        fields = blank_fields(self.structure)
        slopes = jax.grad(lambda f: self.log_partition(model, f))(fields)
        laws = {}
        for v in self.structure.variables:
            if v.name in slopes:
                law = -slopes[v.name]
                if v.domain.levels is None:
                    mean, square = law[:, 0], law[:, 1]
                    law = jnp.stack([mean, square - mean**2], axis=1)
                laws[v.name] = law
        return laws

    def prepare(self, model: Model) -> Any:
        """What many draws share, worked out once."""
        return None

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        """One independent exact draw, given what `prepare` returned for this model."""
        raise NotImplementedError(f"{self.rule.name} offered draws without having any.")

    def draw(self, model: Model, *, key: Array) -> Configuration:
        """One independent exact draw."""
        return self.draw_prepared(model, self.prepare(model), key=key)

    def mode(self, model: Model) -> Configuration:
        """A configuration of highest probability."""
        raise NotImplementedError(f"{self.rule.name} offered a mode without having one.")

    def trouble(self, model: Model) -> str | None:
        """What about the values makes log Z NaN, if this plan can tell; not traced."""
        return None

    def error(self, model: Model) -> float:
        """The numerical error of log Z, in nats, beyond float64's rounding; not traced."""
        return 0.0


def blank_fields(structure: Structure) -> dict[str, Array]:
    """Fields of zero for the free variables that may have some."""
    return {
        v.name: jnp.zeros((v.size, v.domain.levels or 2))
        for v in structure.skeleton.free
        if has_fields(v.domain)
    }


def has_fields(domain: Any) -> bool:
    """Whether fields on single sites tell their law: on levels, or on real numbers."""
    return domain.levels is not None or domain.real_line


class Planned(eqx.Module):
    """A plan for every component; their values of log Z add."""

    structure: Structure = eqx.field(static=True)
    plans: tuple[AbstractPlan, ...]
    held: tuple[Rows, ...]
    """The factors that contain no free site, which belong to no component."""
    plan_of: Array
    """The number of the plan that each site belongs to; -1 at clamped ones."""

    @property
    def operations(self) -> float:
        """Of all plans together."""
        return sum(p.operations for p in self.plans)

    @property
    def bytes(self) -> float:
        """Working memory of the largest plan."""
        return max((p.bytes for p in self.plans), default=0.0)

    @property
    def rules(self) -> str:
        """Which rule takes how many components, in words."""
        counts: dict[str, int] = {}
        for p in self.plans:
            counts[p.rule.name] = counts.get(p.rule.name, 0) + len(p.components)
        return ", ".join(f"{name} of {n:,} component{'s' * (n > 1)}" for name, n in counts.items())

    def __str__(self) -> str:
        cost = f"{self.operations:.3g} operations, {self.bytes / 1e6:.3g} MB"
        return f"{self._manner} {self.rules}: {cost}"

    def __repr__(self) -> str:
        return str(self)

    _manner: ClassVar[str]


class Exact(Planned):
    """log Z is exact."""

    kind: ClassVar[str] = "exact"
    _manner: ClassVar[str] = "exact by"


class Numerical(Planned):
    """log Z is had by numerical integration, at least in part, with an estimated error."""

    kind: ClassVar[str] = "quadrature"
    _manner: ClassVar[str] = "numerical, by"


class Intractable(eqx.Module):
    """No rule applies to some component, and why."""

    reason: str = eqx.field(static=True)

    def __str__(self) -> str:
        return f"intractable: {self.reason}"

    def __repr__(self) -> str:
        return str(self)


Normalizer = Exact | Numerical | Intractable


def planned(structure: Structure, plans: tuple[AbstractPlan, ...]) -> Exact | Numerical:
    """Plans as a normalizer, which is exact where all of them are."""
    exact = all(plan.kind == "exact" for plan in plans)
    plan_of = np.full(len(structure.component_sizes) + 1, -1)
    for k, plan in enumerate(plans):
        plan_of[np.asarray(plan.components)] = k
    owner = int32(plan_of[structure.component_of])
    return (Exact if exact else Numerical)(structure, plans, held_rows(structure), owner)


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform float64 numbers in (0, 1], multiples of 2^-53.

    Made of 32-bit words: JAX's own of 64 bits cannot be lowered where a surrounding program has
    64 bits off.
    """
    high, low = jr.bits(key, (2, *shape), np.uint32).astype(float)
    return (high * 2.0**21 + jnp.floor(low / 2.0**11) + 1.0) * 2.0**-53


def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers, for the same reason made of 32-bit words: by Box and Muller."""
    first, second = uniform(key, (2, *shape))
    return jnp.sqrt(-2.0 * jnp.log(first)) * jnp.cos(2 * jnp.pi * second)


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0


def _in_bytes(number: float) -> str:
    size = next(k for k in (3, 2, 1, 0) if number >= 1000**k or k == 0)
    return f"{number / 1000**size:.3g} {('B', 'kB', 'MB', 'GB')[size]}"
