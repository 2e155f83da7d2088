"""The contract of a rule for log Z, and of the plan by which it is carried out.

Each rule is a file in this folder. From a model's structure it makes an `Offer`, which gives, for
each connected component, the cost of computing log Z by this rule, or the reason why the rule does
not apply. The offer then makes plans for the components that are assigned to the rule. A plan holds
the precomputed indices of its components and computes their log Z, marginals, independent draws or
a mode, as far as the rule has them. The model's log Z is the sum over its components.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array

from energydsl._types import Configuration, IntractableError
from energydsl.analysis.joint_states import Rows, held_rows, int32, positions
from energydsl.analysis.structure import Structure
from energydsl.language.model import Model

Question = Literal["log_partition", "marginals", "known_marginals", "draw", "mode"]
"""The quantities that a plan may compute; known marginals are those of all sites but leaves."""

Fields = Mapping[str, Array]
"""Energies added to single sites, by variable. Each site of a finite variable has one number per
level; each site of a real variable has two numbers a and b, for the energy a x + b x^2."""

MAX_TERMS = 62
"""log2 of the largest number of terms under any budget: the terms are counted in int64."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits on the cost of exact log Z for one connected component.

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
        """A message saying by how much a component exceeds the budget; None where it does not."""
        if terms > self.terms:
            times = terms - self.terms
            return f"2^{terms:.4g} {noun}; budget 2^{self.terms}, 2^{times:.4g} times too many"
        if terms > MAX_TERMS:
            return f"2^{terms:.4g} {noun}; more than 2^{MAX_TERMS} cannot be counted"
        if memory > self.memory:
            times = memory / self.memory
            return (
                f"{_in_bytes(memory)} of memory; budget {_in_bytes(self.memory)}, {times:.3g} "
                "times too much: ed.compile(model, memory=...)"
            )
        return None

    def exceeded(self, terms: np.ndarray, memory: np.ndarray) -> np.ndarray:
        """True for each component that exceeds the budget."""
        return (terms > min(self.terms, MAX_TERMS)) | (memory > self.memory)


class Lack(NamedTuple):
    """The components for which a rule cannot compute a quantity (True: all), and the reason."""

    components: np.ndarray | bool
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Offer:
    """The predicted cost of a rule for each connected component of a structure.

    Arrays have one entry per component.

    Args:
        operations: predicted arithmetic operations; `inf` where the rule does not apply.
        reason: returns, for a component's number, why the rule does not apply to it.
        plan: returns plans for the components with the given numbers, in increasing order.
        terms: log2 of the number of terms that are summed.
        memory: bytes of working memory.
        noun: the word for the terms in messages, such as "states".
        lacks: the quantities that the plans cannot compute.
        bottleneck: returns, for a component's number, what makes it need so many terms.
        rest: the part of the structure that the plans leave to the other rules: log Z of these
            components is what the plans compute plus log Z of the rest of them.
        done: returns, for a component's number, what the plans do to it, if the rule's name alone
            does not tell.
        within: returns the offer under a budget, if it depends on that.
        last: True for the components to which the rule is applied only if no other is.
        setup: the operations that could be carried out while the rule's program is compiled, beyond
            what a short program takes; shared by the components to which the rule applies.
    """

    operations: np.ndarray
    reason: Callable[[int], str]
    plan: Callable[[np.ndarray], tuple[AbstractPlan, ...]]
    terms: np.ndarray | float = 0.0
    memory: np.ndarray | float = 0.0
    noun: str = "terms"
    lacks: Mapping[Question, Lack] = dataclasses.field(default_factory=dict)
    bottleneck: Callable[[int], str] | None = None
    rest: Structure | None = None
    done: Callable[[int], str] | None = None
    within: Callable[[Budget], Offer] | None = None
    last: np.ndarray | bool = False
    setup: float = 0.0

    def costs(self, times: int) -> np.ndarray:
        """By which rules are compared: the operations, and a share of the setup.

        `times` is how often log Z is expected to be computed at once, for different numbers.
        """
        alike = times * max(1, np.isfinite(self.operations).sum())
        return self.operations + self.setup / alike

    def answers(self, question: Question) -> np.ndarray:
        """True for each component for which the plans can compute a quantity."""
        lack = self._lack(question)
        return np.isfinite(self.operations) & ~np.asarray(False if lack is None else lack[0])

    def refusal(self, component: int, question: Question, budget: Budget) -> str | None:
        """Why this rule cannot compute a quantity for a component; None where it can."""
        if not np.isfinite(self.operations[component]):
            return self.reason(component)
        lack = self._lack(question)
        if lack is not None and np.broadcast_to(lack.components, self.operations.shape)[component]:
            return lack.reason
        terms, memory = self.numbers()
        excess = budget.excess(float(terms[component]), self.noun, float(memory[component]))
        if excess is None or self.bottleneck is None:
            return excess
        return f"{excess} ({self.bottleneck(component)})"

    def _lack(self, question: Question) -> Lack | None:
        known = question == "known_marginals" and question not in self.lacks
        return self.lacks.get("marginals" if known else question)

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """log2 of the number of terms, and the bytes of memory, of each component."""
        shape = self.operations.shape
        return np.broadcast_to(self.terms, shape), np.broadcast_to(self.memory, shape)


class AbstractRule(abc.ABC):
    """A method for exact log Z. Subclasses are frozen dataclasses, equal when their fields are."""

    name: ClassVar[str]

    @abc.abstractmethod
    def offer(self, structure: Structure) -> Offer:
        """The cost of this rule for each connected component, or why it does not apply."""


class AbstractPlan(eqx.Module):
    """The computation of a rule for a group of similar components.

    A plan is a pytree whose index arrays are leaves. Its methods are pure functions of the model's
    numbers, which are float64, and are traced with float64 enabled. The configurations that they
    return have an array for every variable; only the entries of the plan's own components matter.
    """

    kind: ClassVar[str] = "exact"
    """Either "exact", or "quadrature" where the error exceeds float64 rounding."""

    wide: ClassVar[bool] = True
    """Whether draws are traced with float64 enabled; if False, they use JAX's default precision."""

    rule: AbstractRule = eqx.field(static=True)
    structure: Structure = eqx.field(static=True)
    components: Array
    operations: float = eqx.field(static=True)
    """Predicted number of operations for all components together."""
    bytes: float = eqx.field(static=True)
    """Predicted working memory in bytes."""

    @property
    def most_bytes(self) -> float:
        """Predicted working memory of derivatives, marginals, draws and modes, in bytes."""
        return self.bytes

    @property
    def leaves(self) -> tuple[str, ...]:
        """The variables with sites that are integrated out of components of other plans.

        Draws of a plan with leaves are made from the model in which the plans before it have drawn
        their sites (`Model.around`).
        """
        return ()

    @abc.abstractmethod
    def log_partition(self, model: Model, fields: Fields | None = None) -> Array:
        """The log of the integral of exp(-E) over the sites of these components.

        E is the energy of the factors that contain such a site, plus `fields`. The result is
        differentiable, and NaN where the integral does not exist for the model's present numbers.
        Marginals are derivatives with respect to `fields`, so they need a plan that accepts them.
        """

    def marginals(self, model: Model) -> dict[str, Array]:
        r"""The marginal distribution of each site, with 0 at sites of other components.

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
        """The intermediate results that many draws share."""
        return None

    def draw_prepared(self, model: Model, prepared: Any, *, key: Array) -> Configuration:
        """One independent exact draw, given what `prepare` returned for this model."""
        raise NotImplementedError(f"The plans of rule {self.rule.name!r} do not implement draws.")

    def draw(self, model: Model, *, key: Array) -> Configuration:
        """One independent exact draw."""
        return self.draw_prepared(model, self.prepare(model), key=key)

    def mode(self, model: Model) -> Configuration:
        """A configuration of highest probability."""
        raise NotImplementedError(f"The plans of rule {self.rule.name!r} do not implement a mode.")

    def trouble(self, model: Model) -> str | None:
        """Why log Z is NaN for the present numbers, if this plan finds a reason; not traced."""
        return None

    def error(self, model: Model) -> float:
        """The numerical error of log Z in nats, apart from float64 rounding; not traced."""
        return 0.0


def blank_fields(structure: Structure) -> dict[str, Array]:
    """Fields of zero for each free variable that can have fields."""
    return {
        v.name: jnp.zeros((v.size, v.domain.levels or 2))
        for v in structure.skeleton.free
        if has_fields(v.domain)
    }


def has_fields(domain: Any) -> bool:
    """Whether marginals follow from derivatives in fields: for finite and for real sites."""
    return domain.levels is not None or domain.real_line


class Planned(eqx.Module):
    """Plans that together cover every component; log Z is the sum of theirs."""

    structure: Structure = eqx.field(static=True)
    plans: tuple[AbstractPlan, ...]
    held: tuple[Rows, ...]
    """The factors that contain no free site and therefore belong to no component."""
    plan_of: Array
    """The number of the plan that covers each site; -1 for a clamped site."""
    budget: Budget = eqx.field(static=True)
    """What the plans may cost, derivatives included."""

    @property
    def operations(self) -> float:
        """Predicted number of operations of all plans together."""
        return sum(p.operations for p in self.plans)

    @property
    def bytes(self) -> float:
        """Predicted working memory in bytes of the largest plan."""
        return max((p.bytes for p in self.plans), default=0.0)

    def check_derivatives(self) -> None:
        """Raise IntractableError if derivatives of log Z need more memory than is allowed."""
        for plan in self.plans:
            said = self.budget.excess(0.0, "", plan.most_bytes)
            if said is not None:
                raise IntractableError(
                    f"{plan.rule.name} has log Z within the budget, but not its derivatives, which "
                    f"need {said}."
                )

    @property
    def rules(self) -> str:
        """The names of the rules used, each with its number of components."""
        counts: dict[str, int] = {}
        for p in self.plans:
            if not p.leaves:
                counts[p.rule.name] = counts.get(p.rule.name, 0) + len(p.components)
        said = [f"{name} of {n:,} component{'s' * (n > 1)}" for name, n in counts.items()]
        leaves = [name for p in self.plans for name in p.leaves]
        return ", ".join(said) + (f" (beside {integrated(leaves)})" if leaves else "")

    def __str__(self) -> str:
        cost = f"{self.operations:.3g} operations, {self.bytes / 1e6:.3g} MB"
        return f"{self._manner} {self.rules}: {cost}"

    def __repr__(self) -> str:
        return str(self)

    kind: ClassVar[str]
    _manner: ClassVar[str]


class Exact(Planned):
    """A normalizer whose log Z is exact."""

    kind: ClassVar[str] = "exact"
    _manner: ClassVar[str] = "exact by"


class Numerical(Planned):
    """A normalizer that integrates at least one component numerically, with an estimated error."""

    kind: ClassVar[str] = "quadrature"
    _manner: ClassVar[str] = "numerical, by"


class Intractable(eqx.Module):
    """The reason why no rule gives log Z of some component."""

    reason: str = eqx.field(static=True)

    def __str__(self) -> str:
        return f"intractable: {self.reason}"

    def __repr__(self) -> str:
        return str(self)


Normalizer = Exact | Numerical | Intractable


def planned(
    structure: Structure, plans: tuple[AbstractPlan, ...], budget: Budget
) -> Exact | Numerical:
    """A normalizer of these plans: `Exact` if all of them are exact, else `Numerical`."""
    exact = all(plan.kind == "exact" for plan in plans)
    owner = np.full(structure.sites, -1)
    for k, plan in enumerate(plans):
        mine = positions(plan.structure, np.asarray(plan.components)) >= 0
        owner[mine[plan.structure.component_of]] = k
    kind = Exact if exact else Numerical
    return kind(structure, plans, held_rows(structure), int32(owner), budget)


def integrated(leaves: Iterable[str]) -> str:
    """The statement that normalised leaves, given by the names of their variables, are removed."""
    names = list(dict.fromkeys(leaves))
    one = len(names) == 1
    return (
        f"the normalised {'leaf' if one else 'leaves'} {', '.join(names)}, which "
        f"integrate{'s' * one} to 1"
    )


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform float64 numbers in (0, 1], multiples of 2^-53.

    They are assembled from 32-bit words, because JAX cannot lower its own 64-bit generator inside
    a program that was traced with float64 disabled.
    """
    high, low = jr.bits(key, (2, *shape), np.uint32).astype(float)
    return (high * 2.0**21 + jnp.floor(low / 2.0**11) + 1.0) * 2.0**-53


def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal float64 numbers by the Box-Muller transform of `uniform`."""
    first, second = uniform(key, (2, *shape))
    return jnp.sqrt(-2.0 * jnp.log(first)) * jnp.cos(2 * jnp.pi * second)


def _is_count(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return bool(value >= 0)


def _in_bytes(number: float) -> str:
    size = next(k for k in (3, 2, 1, 0) if number >= 1000**k or k == 0)
    return f"{number / 1000**size:.3g} {('B', 'kB', 'MB', 'GB')[size]}"
