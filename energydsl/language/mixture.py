"""Mixtures of models."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._messages import brief
from energydsl.language.declare import log, logaddexp
from energydsl.language.expression import Expression
from energydsl.language.model import Model, known_value, over


def mixture(*models: Model, weights: Any = None) -> Model:
    r"""The mixture (OR) of models: $E(x) = -\log \sum_k w_k e^{-E_k(x)}$.

    The components are not normalised first: component k has probability
    $w_k Z_k / \sum_j w_j Z_j$.

    Args:
        *models: at least two models of the same variables.
        weights: $w$, positive, one for each model; equal if not given. To learn the weights, give
            them as one `energydsl.parameter` with a constraint that keeps it positive.

    Raises:
        ValueError: fewer than two models are given, their variables differ, or the weights are not
            positive or not one for each model.
    """
    for model in models:
        if not isinstance(model, Model):
            raise TypeError(
                f"mixture got {brief(model)}; expected models, each an argument of its own, and "
                "the weights by name: ed.mixture(a, b, weights=[0.3, 0.7])."
            )
    if len(models) < 2:
        raise ValueError(f"mixture got {len(models)} models; expected at least two.")
    names = [sorted(str(v) for v in model.variables) for model in models]
    if any(other != names[0] for other in names):
        raise ValueError(
            f"mixture got models over {' and '.join(map(str, names))}; expected the same "
            "variables, as a model defines no distribution of a variable that it does not contain."
        )
    if weights is None:
        weights = [1.0 / len(models)] * len(models)
    if len(weights) != len(models):
        raise ValueError(f"mixture got {len(weights)} weights for {len(models)} models.")
    each = [weights] if isinstance(weights, Expression) else weights
    if not all((np.asarray(known_value(w, 1.0)) > 0).all() for w in each):
        raise ValueError(f"mixture got weights {weights}; expected positive numbers.")
    logs = [_log(w) for w in weights]
    total = logs[0] - models[0].expression
    for each_log, model in zip(logs[1:], models[1:], strict=True):
        total = logaddexp(total, each_log - model.expression)
    return over(-total, *models)


def _log(weight: Any) -> Any:
    if isinstance(weight, Expression):
        return log(weight)
    return jnp.log(weight) if isinstance(weight, Array) else float(np.log(weight))
