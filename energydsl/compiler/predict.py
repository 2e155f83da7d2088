"""Predictions: marginals or modes given the inputs of many examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.answers import Marginals, is_law, marginal_of, planned
from energydsl.compiler.ebm import EBM, check_compiled, check_numbers
from energydsl.normalizer import trouble
from energydsl.normalizer.base import Planned
from energydsl.normalizer.evaluate import marginals_of, mode_of

BATCH_BYTES = 2**26
"""The memory in bytes that examples which are computed at once may take."""


@described
def predict(
    ebm: EBM,
    inputs: Mapping[str, Any] | Any,
    answer: Literal["marginals", "mode"] = "marginals",
) -> Marginals | dict[str, np.ndarray]:
    r"""The exact marginals $p(y_i \mid x)$, or the mode $\mathrm{argmax}_y\, p(y \mid x)$.

    Args:
        ebm: a compiled model with variables that were declared with ``given=True``.
        inputs: values x of the inputs, with the examples along the first axis: a dict, or one array
            if the model has one input. Other entries of the dict, such as labels, are ignored.
        answer: ``"marginals"`` or ``"mode"``.

    Returns:
        For ``"marginals"``, the `Marginals` of the variables that are not inputs; for ``"mode"``,
        an array for each of them. The examples are along the first axis of every array.

    Raises:
        IntractableError: no rule gives the marginals, or the mode; the message says why.
        TypeError: a model that is not compiled, or one without inputs.
        ValueError: the inputs do not fit the model, or the distribution given the inputs of an
            example does not exist.
    """
    check_compiled(ebm, "predict")
    check_numbers(ebm.model, "predict")
    given = _checked(ebm, inputs)
    if answer == "mode":
        return _modes(ebm, given)
    if answer != "marginals":
        raise ValueError(f"predict got answer={answer!r}; expected 'marginals' or 'mode'.")
    return _marginals(ebm, given)


def _checked(ebm: EBM, inputs: Mapping[str, Any] | Any) -> Configuration:
    """The values of inputs as arrays, with the examples along the first axis."""
    known, needed = {v.name: v for v in ebm.model.inputs}, ebm.model.missing_inputs
    if not known:
        raise TypeError(
            "predict got a model without inputs, whose predictions would all be alike. Declare "
            "inputs with given=True; without any, use ed.marginals or ed.map_configuration."
        )
    if not isinstance(inputs, Mapping):
        if len(known) > 1:
            raise ValueError(
                f"predict got {brief(inputs)} for the inputs {list(known)}; give a dict with an "
                "array for each."
            )
        inputs = {next(iter(known)): inputs}
    if missing := [n for n in needed if n not in inputs]:
        raise ValueError(f"predict got {list(inputs)}; the inputs {missing} are missing.")
    shown = {n: v for n, v in known.items() if n in inputs}
    shapes = {n: np.shape(inputs[n]) for n in shown}
    for n, v in shown.items():
        if shapes[n][1:] != v.shape or len(shapes[n]) != len(v.shape) + 1:
            axes = ", ".join(map(str, ("examples", *v.shape)))
            raise ValueError(
                f"predict got {n!r} of shape {shapes[n]}; expected ({axes}), examples first."
            )
    counts = {n: shape[0] for n, shape in shapes.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise ValueError(
            f"predict got {counts} examples of the inputs; expected at least one, and as many of "
            "each."
        )
    return {n: v.check(inputs[n], shapes[n][:1]) for n, v in shown.items()}


def _marginals(ebm: EBM, given: Configuration) -> Marginals:
    plans = planned(ebm, "predict", "marginals", "known_marginals")
    laws = _mapped(ebm, plans, given, marginals_of)
    missing = tuple(dict.fromkeys(name for plan in plans.plans for name in plan.leaves))
    known = [v for v in ebm.structure.skeleton.free if v.name not in missing]
    for v in known:
        exists = [is_law(ebm, v, law) for law in laws[v.name]]
        _check_all(ebm, plans, given, np.array(exists))
    found = {v.name: marginal_of(ebm, v, laws[v.name]) for v in known}
    return Marginals(found, plans.kind, missing)


def _modes(ebm: EBM, given: Configuration) -> dict[str, np.ndarray]:
    plans = planned(ebm, "predict", "mode")
    found = _mapped(ebm, plans, given, _mode_and_energy)
    _check_all(ebm, plans, given, np.isfinite(found.pop("")))
    dtypes = {v.name: v.domain.draw_dtype for v in ebm.structure.skeleton.free}
    return {n: np.asarray(a, dtypes[n]) for n, a in found.items()}


def _mode_and_energy(model: Any, plans: Planned) -> dict[str, Array]:
    """A mode, and its energy under a name that no variable has."""
    x = mode_of(model, plans)
    return {**x, "": model.energy_anywhere(x)}


def _check_all(ebm: EBM, plans: Planned, given: Configuration, exists: np.ndarray) -> None:
    """Raise ValueError for the first example whose distribution does not exist."""
    if exists.all():
        return
    first = int((~exists).argmax())
    model = ebm.given({n: a[first] for n, a in given.items()}).model
    raise ValueError(
        f"The distribution given the inputs of example {first} does not exist: "
        f"{trouble(model, plans)}, or every configuration has infinite energy."
    )


def _mapped(
    ebm: EBM, plans: Planned, given: Configuration, function: Callable[..., dict[str, Array]]
) -> dict[str, np.ndarray]:
    """The function of the model given each example's inputs, in float64."""
    size = sum(a.nbytes // len(a) for a in given.values())
    batch = int(np.clip(BATCH_BYTES // max(plans.bytes, size, 1), 1, 1024))
    with jax.enable_x64(True):
        found = _each(ebm, plans, given, function, batch)
    return {n: np.asarray(a) for n, a in found.items()}


@eqx.filter_jit
def _each(
    ebm: EBM,
    plans: Planned,
    given: Configuration,
    function: Callable[..., dict[str, Array]],
    batch: int,
) -> dict[str, Array]:
    return lax.map(lambda x: function(ebm.given(x).model, plans), given, batch_size=batch)
