"""What data show of each example, and the energy of that with all else summed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, IntractableError, Refusal
from energydsl.analysis.coordinates import Unconstrained
from energydsl.analysis.layer import latent_layer
from energydsl.compiler.compile import compile as compile_model
from energydsl.compiler.ebm import EBM
from energydsl.language.missing import MISMATCH, may_be_missing, partly_shown, seen, shown
from energydsl.language.model import Model
from energydsl.language.variable import Variable
from energydsl.learning.latent import latent, visible
from energydsl.normalizer import Intractable, log_partition_of


def read(variable: Variable, data: Any) -> tuple[Any, np.ndarray | None]:
    """The entries of one variable's data, and True where they are shown.

    Missing entries, which get a value of the domain, are those under the mask of a NumPy masked
    array, and NaN where a variable is real. The mask is None for an array without either.

    Raises:
        ValueError: entries of a variable of this domain cannot be missing.
    """
    if isinstance(data, jax.Array) and variable.domain.real_line and jnp.isnan(data).any():
        data = np.asarray(data)
    masked = isinstance(data, np.ma.MaskedArray)
    missing = np.ma.getmaskarray(data) if masked else None
    if variable.domain.real_line and not isinstance(data, jax.Array):
        empty = np.isnan(np.ma.getdata(np.ma.asarray(data)).astype(float))
        if empty.any():
            missing = empty if missing is None else missing | empty
    if missing is None:
        return data, None
    if missing.any() and (variable.given or not may_be_missing(variable)):
        why = "is an input" if variable.given else f"has the domain {variable.domain}"
        raise ValueError(
            f"The data of {variable.name!r} lack {missing.sum()} of {missing.size} entries, but it "
            f"{why}; entries may be missing of finite and of real variables that are no inputs. "
            "Drop the examples that have any."
        )
    filler = 0.0 if variable.domain.levels is None else variable.domain.values[0]
    return np.where(missing, filler, np.ma.getdata(np.ma.asarray(data))), ~missing


def masks_of(ebm: EBM, example: Configuration) -> tuple[Configuration, Configuration]:
    """The values of an example or a batch, and the masks of its variables, by variable."""
    names = {seen(v).name: v.name for v in visible(ebm)}
    masks = {names[n]: a for n, a in example.items() if n in names}
    return {n: a for n, a in example.items() if n not in names}, masks


def given_shown(ebm: EBM, v: Configuration, masks: Configuration) -> Model:
    """The model of what an example does not show, latents included, given what it shows."""
    inputs: dict[str, Any] = {}
    variables = [w for w in visible(ebm) if may_be_missing(w)]
    for w in variables:
        free = ~ebm.structure.skeleton.mask(w)
        mask = masks.get(w.name, jnp.ones(w.shape, bool)) & free
        inputs |= {seen(w).name: mask.astype(jnp.int8), shown(w).name: v[w.name]}
    others = {w.name: v[w.name] for w in visible(ebm) if w not in variables}
    model = ebm.model.condition(ebm.model.placed(others)) if others else ebm.model
    return partly_shown(model, variables).given(inputs)


def hidden_given(ebm: EBM, v: Configuration, masks: Configuration) -> EBM:
    """The EBM of what an example does not show, given what it shows."""
    conclusions, budget = ebm.conclusions, ebm.conclusions.budget
    held = given_shown(ebm, v, masks) if masks else ebm.model.condition(ebm.model.placed(v))
    return compile_model(held, budget=budget.terms, memory=budget.memory, rules=conclusions.rules)


def free_energy_shown(ebm: EBM, v: Configuration, masks: Configuration) -> Array:
    """Minus log Z given what an example shows: minus the log of the sum over all that it does not.

    Raises:
        IntractableError: no exact rule applies; the message says why.
    """
    rest = given_shown(ebm, v, masks)
    plans = ebm.conclusions.normalizer_of(rest)
    if isinstance(plans, Intractable):
        raise IntractableError(
            f"What data do not show cannot be summed out exactly: log Z given the rest is {plans}."
        )
    log_z = log_partition_of(rest, plans, jnp.zeros(()).dtype)
    # A shown level that the model forbids makes every configuration contradict something.
    return jnp.where(log_z < -MISMATCH / 2, jnp.inf, -log_z)


def energy_shown(ebm: EBM) -> Callable[[Configuration], Array]:
    """The energy as a function of one example, or the free energy of what it does not show."""

    def energy(example: Configuration) -> Array:
        v, masks = masks_of(ebm, example)
        if masks:
            at, v = _at_inputs(ebm, v)
            return free_energy_shown(at, v, masks)
        return ebm.free_energy(v) if latent(ebm) else ebm.energy(v)

    return energy


def _at_inputs(ebm: EBM, v: Configuration) -> tuple[EBM, Configuration]:
    """The EBM given the inputs that an example has, and the rest of the example."""
    inputs = {w.name for w in ebm.model.inputs} & v.keys()
    at = ebm.given({n: v[n] for n in inputs})
    return at, {n: a for n, a in v.items() if n not in inputs}


def bytes_of(ebm: EBM, example: Configuration) -> float:
    """Predicted memory in bytes of `energy_shown` for one example; 0 if it is in closed form."""
    v, masks = masks_of(ebm, example)
    at, v = _at_inputs(ebm, v)
    if not masks and not isinstance(latent_layer(ebm.structure), Refusal):
        return 0.0
    rest = given_shown(at, v, masks) if masks else at.model.condition(at.model.placed(v))
    plans = ebm.conclusions.normalizer_of(rest)
    return 0.0 if isinstance(plans, Intractable) else plans.bytes


def why_not_summed(ebm: EBM, data: Configuration) -> str | None:
    """The reason why what data do not show cannot be summed out exactly, if there is one."""
    example = jax.tree.map(lambda a: a[0], data)
    try:
        jax.eval_shape(energy_shown(ebm), example)
    except IntractableError as error:
        return str(error).rstrip(".")
    return None


def coordinates_shown(ebm: EBM) -> Unconstrained:
    """The unconstrained coordinates of the continuous variables that data show."""
    smooth = [v.name for v in visible(ebm) if v.domain.transform is not None]
    return Unconstrained.of(ebm.structure, tuple(smooth))


def check_inside(ebm: EBM, data: Configuration, objective: str) -> None:
    """Raise ValueError if an example lies at the boundary of its domain.

    It has no finite unconstrained coordinates there.
    """
    for name in coordinates_shown(ebm).names:
        space = Unconstrained.of(ebm.structure, (name,))
        inside = jnp.isfinite(jax.vmap(space.coordinates)({name: data[name]})).all(axis=1)
        if not inside.all():
            (v,) = space.variables
            raise ValueError(
                f"{objective} needs data inside {v.domain}, and {int((~inside).sum())} of "
                f"{len(inside)} examples of {name!r} lie on its boundary, the first is example "
                f"{int(inside.argmin())}. Leave them out, or move them inside by the data's "
                "precision."
            )
