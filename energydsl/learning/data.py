"""The check that data fit a model's variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from energydsl._messages import brief
from energydsl._types import Configuration, unmasked
from energydsl.compiler.ebm import EBM
from energydsl.learning.latent import latent, visible


def check_examples(ebm: EBM, data: Mapping[str, Any] | Any, function: str) -> Configuration:
    """The data as arrays in the dtypes of their variables, after all checks.

    Args:
        ebm: the compiled model.
        data: an array for each free variable that is not latent, with the examples along the first
            axis; or one array, if there is one such variable.
        function: the name of the public function that was called, for messages.

    Raises:
        TypeError, ValueError: a name, shape or value does not fit, entries are masked, or there
            are no examples.
    """
    shown = {v.name: v for v in visible(ebm)}
    if not shown:
        raise ValueError(
            f"{function} got a model whose free variables are all latent; data must show at least "
            "one."
        )
    if not isinstance(data, Mapping):
        if len(shown) > 1:
            raise ValueError(
                f"{function} got one array of data for the variables {list(shown)}; give a dict "
                "with an array for each."
            )
        data = {next(iter(shown)): data}
    hidden = [w.name for w in latent(ebm) if w.name in data]
    missing, unknown = set(shown) - set(data), set(data) - set(shown) - set(hidden)
    if hidden or missing or unknown:
        said = [("shows the latent", hidden), ("lacks", missing), ("has the unknown", unknown)]
        listed = " and ".join(f"{word} {sorted(names)}" for word, names in said if names)
        raise ValueError(f"The data {listed}; expected an array for each of {list(shown)}.")
    arrays = {n: _array(a, f"The data of {n!r}") for n, a in data.items()}
    for n, v in shown.items():
        if arrays[n].ndim != len(v.shape) + 1 or arrays[n].shape[1:] != v.shape:
            axes = ", ".join(map(str, ("examples", *v.shape)))
            raise ValueError(
                f"The data of {n!r} has shape {arrays[n].shape}; expected ({axes}), examples first."
            )
    sizes = {n: len(arrays[n]) for n in shown}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"The data has {sizes} examples; expected as many of each variable.")
    if not min(sizes.values()):
        raise ValueError("The data has no examples; expected at least one.")
    return {
        n: v.domain.check(arrays[n], arrays[n].shape, f"The data of {n!r}")
        for n, v in shown.items()
    }


def _array(given: Any, what: str) -> Any:
    """The data of one variable as an array of numbers."""
    try:
        array = given if isinstance(given, jax.Array) else np.asarray(unmasked(given, what))
    except ValueError as error:
        raise ValueError(f"{what} is a {type(given).__name__} that is no array: {error}") from None
    if array.dtype == object or array.dtype.kind in "US":
        raise TypeError(
            f"{what} is {brief(given)}, no array of numbers; expected one, examples first. Read a "
            "file by numpy.loadtxt or pandas; write array.toarray() for a sparse matrix, and "
            "numpy.unique(words, return_inverse=True) for words."
        )
    return array


def count_of(data: Configuration) -> int:
    """The number of examples."""
    return len(next(iter(data.values())))
