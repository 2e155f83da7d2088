"""Biases at which learning starts: those of sites that do not interact."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._messages import brief, described
from energydsl.language.expression import Expression, View
from energydsl.language.variable import Variable
from energydsl.learning.shown import read


@described
def bias_from(x: View, data: Any) -> Array:
    r"""The bias with which sites that do not interact have the means of the data.

    Learning that starts from it, and from small weights, has only to learn how sites interact::

        x = ed.binary("x", 64)
        b = ed.parameter("b", ed.bias_from(x, images))
        W = ed.parameter("W", 0.01 * rng.normal(size=(64, 20)))

    Sign and scale depend on the domain. With $n_k$ examples of n in which a site has level k:

    - two levels that are numbers, such as bits and spins: $b = \log\frac{n_h + 1}{n_l + 1} / (h -
      l)$ for the levels l < h, which is the log-odds for bits and half of it for spins. The energy
      is ``-b @ x``.
    - other finite domains of K levels: $b_k = \log\frac{n_k + 1}{n + K}$, along a last axis. The
      energy is ``ed.Table(-b)(x).sum()``.
    - real: the mean. The energy is ``((x - b)**2).sum() / 2``, or ``x @ x / 2 - b @ x``, of
      standard deviation 1: divide the data by theirs.

    The example of each level that is added to those seen keeps b finite where a level does not
    occur. Missing entries (masked, or NaN in data of a real variable) are left out.

    Args:
        x: a variable, as it was declared.
        data: its values, with the examples along the first axis.

    Returns:
        b, of the shape of x, with a last axis of levels where the energy is a `Table`.

    Raises:
        TypeError: `x` is no declared variable, is latent or an input, or has a domain that is not
            listed above.
        ValueError: the data have another shape, are outside the domain, or have no examples; or no
            example shows a real site.

    Source: Hinton (2010), A practical guide to training restricted Boltzmann machines, section 8.
    """
    variable = _learnable(x)
    what, domain = f"The data of {variable.name!r}", variable.domain
    values, mask = read(variable, data)
    values = np.asarray(values)
    if values.ndim != 1 + len(variable.shape) or values.shape[1:] != variable.shape:
        axes = ", ".join(map(str, ("examples", *variable.shape)))
        raise ValueError(f"{what} has shape {values.shape}; expected ({axes}), examples first.")
    if not len(values):
        raise ValueError(f"{what} has no examples; expected at least one.")
    values = np.asarray(domain.check(values, values.shape, what))
    seen = np.ones(values.shape, bool) if mask is None else mask
    bias = _mean(variable, values, seen) if domain.real_line else _log_share(domain, values, seen)
    return jnp.asarray(bias, jnp.zeros(()).dtype)


def _mean(variable: Variable, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    counts = seen.sum(axis=0)
    if not counts.all():
        site = variable.describe(int(np.argmin(counts.ravel() > 0)))
        raise ValueError(f"No example of the data shows {site}, so that its mean is not known.")
    return np.where(seen, values, 0.0).sum(axis=0, dtype=np.float64) / counts


def _log_share(domain: Any, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    counts = [1 + ((values == level) & seen).sum(axis=0) for level in domain.values]
    logs = np.log(counts)
    if domain.levels == 2 and domain.ordered:
        return (logs[1] - logs[0]) / (domain.values[1] - domain.values[0])
    return np.moveaxis(logs - np.log(np.sum(counts, axis=0)), 0, -1)


def _learnable(x: Any) -> Variable:
    """The variable of a view whose bias has a closed form."""
    if not isinstance(x, View):
        said = str(x) if isinstance(x, Expression) else brief(x)
        raise TypeError(
            f"bias_from got {said:.80}; expected a variable as "
            'it was declared, before the data: x = ed.binary("x", 64), ed.bias_from(x, images).'
        )
    variable = x.variable
    if variable.latent or variable.given:
        why = "no data show" if variable.latent else "the model is no distribution of"
        raise TypeError(
            f"bias_from got {variable.name!r}, which {why}. Biases of hidden units start at 0: "
            "np.zeros(n)."
        )
    if variable.domain.levels is None and not variable.domain.real_line:
        raise TypeError(
            f"bias_from got {variable.name!r} of the domain {variable.domain}; the bias follows "
            "from the data's means for finite and for real variables. For others, start the "
            "parameters of a density at their estimates: ed.LogDensity(dist.Gamma)(x, a, b)."
        )
    return variable
