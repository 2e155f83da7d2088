"""The contract of a normalizer: exact log Z with its cost known beforehand, or the reason why not.

A rule is a file of this folder. It looks at a structure and says what each connected component
would cost it (infinite where it does not apply, with the reason); carrying it out is a pure
function of the parameters. log Z adds over components.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from functools import cached_property
from typing import ClassVar

import numpy as np
from jax import Array

from energydsl.analysis.structure import Structure
from energydsl.language.model import Model


class AbstractRule(abc.ABC):
    """One exact way to log Z."""

    name: ClassVar[str]

    @abc.abstractmethod
    def costs(self, structure: Structure, budget: int) -> np.ndarray:
        """Operations for each component; `inf` where the rule does not apply.

        Args:
            structure: of the model.
            budget: log2 of the number of terms that a component may take.
        """

    @abc.abstractmethod
    def reason(self, structure: Structure, component: int, budget: int) -> str:
        """Why it does not apply to this component."""

    @abc.abstractmethod
    def bytes(self, structure: Structure, components: np.ndarray) -> float:
        """Working memory."""

    @abc.abstractmethod
    def log_partition(self, structure: Structure, model: Model, components: np.ndarray) -> Array:
        """Log of the integral of exp(-E) over these components' sites, differentiable.

        E is the energy of the factors that contain a site of theirs. The model's floats are
        float64 here, and so is the arithmetic. It is NaN where the values do not allow it.
        """

    def trouble(self, structure: Structure, model: Model, components: np.ndarray) -> str | None:
        """What about the values makes log Z of these components NaN, if this rule can tell."""
        return None

    def error(self, structure: Structure, model: Model, components: np.ndarray) -> float:
        """The numerical error of log Z of these components, in nats, beyond float64's rounding.

        The model is as `log_partition` takes it.
        """
        return 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A rule, the components it was chosen for, and what that costs."""

    rule: AbstractRule
    components: np.ndarray
    operations: float
    bytes: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Exact:
    """log Z is exact: a plan for every component, whose values add.

    Equal where a compiled program would be: the same structure and rules for the same components.
    """

    structure: Structure
    plans: tuple[Plan, ...]

    @cached_property
    def digest(self) -> str:
        """Which rule takes which components."""
        seal = hashlib.blake2b(digest_size=16)
        for plan in self.plans:
            seal.update(f"{plan.rule.name} {len(plan.components)} ".encode())
            seal.update(np.asarray(plan.components, np.int64).tobytes())
        return seal.hexdigest()

    def __eq__(self, other: object) -> bool:
        # A rule of one's own may be written anew under its name.
        return (
            isinstance(other, Exact)
            and other.digest == self.digest
            and other.structure == self.structure
            and [type(p.rule) for p in other.plans] == [type(p.rule) for p in self.plans]
        )

    def __hash__(self) -> int:
        return hash((self.structure, self.digest))

    @property
    def operations(self) -> float:
        """Of all plans together."""
        return sum(p.operations for p in self.plans)

    def __str__(self) -> str:
        rules = ", ".join(
            f"{p.rule.name} of {len(p.components):,} component{'s' * (len(p.components) > 1)}"
            for p in self.plans
        )
        memory = max(p.bytes for p in self.plans)
        return f"exact by {rules}: {self.operations:.3g} operations, {memory / 1e6:.3g} MB"

    __repr__ = __str__


@dataclasses.dataclass(frozen=True, eq=False)
class Intractable:
    """No exact rule applies to some component, and why."""

    reason: str

    def __str__(self) -> str:
        return f"intractable: {self.reason}"


Normalizer = Exact | Intractable
