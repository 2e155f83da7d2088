"""The compiler, which analyses a model's structure once and returns an EBM."""

from __future__ import annotations

import copyreg
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from energydsl._messages import brief, described
from energydsl.analysis.evaluation import as_double
from energydsl.analysis.structure import Structure
from energydsl.compiler.conclusions import Conclusions
from energydsl.compiler.ebm import EBM
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.normalizer import AbstractRule, Budget
from energydsl.sweep import choose_sweep

MAX_HESSIAN = 2000
"""The largest number of sites for which a quadratic energy is checked to be normalisable."""

ROUNDING = 1e-12
"""Eigenvalues below this fraction of the largest one cannot be distinguished from zero."""


@described
def compile(
    model: Model,
    *,
    budget: int = Budget.terms,
    memory: int = Budget.memory,
    rules: Sequence[AbstractRule] = (),
) -> EBM:
    """Find a model's structure, and choose its normalizer and its sweep.

    Args:
        model: the model to compile.
        budget: log2 of the number of terms that exact log Z may sum for one connected component.
        memory: the largest predicted memory in bytes that exact log Z may take.
        rules: rules of your own for exact log Z, which are tried in addition to the library's.

    Returns:
        The EBM; `EBM.explain` describes what was found and chosen.

    Raises:
        TypeError: `model` is not a `Model`, or a rule is not an `AbstractRule` with hashable
            settings.
        ValueError: every site is clamped; a site without finitely many levels is in no factor; the
            energy is seen not to be normalisable; or a budget is not a whole number.
    """
    if not isinstance(model, Model):
        raise TypeError(f"compile got {brief(model)}; wrap the energy: ed.Model(energy).")
    for rule in rules:
        _check_rule(rule)
    began, allowed = time.perf_counter(), Budget(budget, memory)
    structure = Structure(model)
    _check_free(structure)
    _check_covered(structure)
    sweep, lowerings = choose_sweep(structure)
    conclusions = Conclusions(structure, allowed, tuple(rules), lowerings)
    normalizer = conclusions.survey.choose()
    _check_normalisable(structure, model)
    conclusions.seconds = time.perf_counter() - began
    return EBM(model, sweep, normalizer, conclusions)


def _check_rule(rule: object) -> None:
    if not isinstance(rule, AbstractRule):
        raise TypeError(f"compile got the rule {rule!r}; expected an ed.AbstractRule.")
    try:
        hash(rule)
    except TypeError as error:
        raise TypeError(
            f"compile got the rule {rule.name!r} with settings that cannot be compared ({error}). "
            "Make it a frozen dataclass whose fields are numbers, strings or tuples of such."
        ) from None


def _pickled(ebm: EBM) -> tuple[Any, ...]:
    """How an EBM is pickled: the arguments with which to compile it again."""
    return _compiled, (ebm.model, ebm.conclusions.budget, ebm.conclusions.rules)


def _compiled(model: Model, budget: Budget, rules: tuple[AbstractRule, ...]) -> EBM:
    return compile(model, budget=budget.terms, memory=budget.memory, rules=rules)


# The conclusions contain closures, which cannot be pickled.
copyreg.pickle(EBM, _pickled)


def _check_free(structure: Structure) -> None:
    if not structure.free.any():
        raise ValueError("Every site is clamped: nothing is left to compile.")


def _check_covered(structure: Structure) -> None:
    lost = structure.free & ~structure.covered & (structure.levels == 0)
    if lost.any():
        first = structure.describe(int(np.argmax(lost)))
        raise ValueError(
            f"{int(lost.sum())} sites are in no factor and have no finite list of levels, {first} "
            "first: no uniform distribution is known there. Give them an energy, or clamp them."
        )


def _check_normalisable(structure: Structure, model: Model) -> None:
    """Raise ValueError for a quadratic energy whose Hessian is not positive definite."""
    free = structure.skeleton.free
    if not model.numeric or not structure.quadratic or structure.sites > MAX_HESSIAN:
        return
    with jax.enable_x64(True):
        double = as_double(model)
        flat, unravel = ravel_pytree({v.name: jnp.zeros(v.shape) for v in free})
        hessian = np.asarray(jax.jit(jax.hessian(lambda z: double.energy(unravel(z))))(flat))
    # ravel_pytree orders the variables by name.
    held = np.concatenate([model.skeleton.mask(v).ravel() for v in sorted(free, key=_name)])
    eigenvalues = np.linalg.eigvalsh(hessian[np.ix_(~held, ~held)])
    if eigenvalues[0] <= ROUNDING * max(eigenvalues[-1], 0.0):
        raise ValueError(
            f"The energy is quadratic but does not rise in every direction (its Hessian has the "
            f"eigenvalue {eigenvalues[0]:.3g}), so exp(-E) has no finite integral. Energies are "
            "minus log-densities: check the signs, and that each precision is positive definite."
        )


def _name(variable: Variable) -> str:
    return variable.name
