"""The check that data fit a model's variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.language.missing import seen
from energydsl.learning.latent import latent, visible
from energydsl.learning.shown import read


def check_examples(
    ebm: EBM, data: Mapping[str, Any] | Any, function: str, *, masks: bool = False
) -> Configuration:
    """The data as arrays in the dtypes of their variables, after all checks.

    Variables with missing entries, which get some value, have a mask of those that are shown.

    Args:
        ebm: the compiled model.
        data: an array for each free variable that is not latent, and for each input that has no
            value yet, with the examples along the first axis; or one array, if there is one such
            variable.
        function: the name of the public function that was called, for messages.
        masks: whether masked arrays have a mask even if it hides nothing, as all batches of a
            stream have like arrays.

    Raises:
        TypeError, ValueError: a name, shape or value does not fit, entries are missing of a
            variable that must be shown whole, or there are no examples.
    """
    given = {v.name: v for v in ebm.model.inputs}
    needed = {v.name: v for v in visible(ebm)}
    if not needed:
        raise ValueError(
            f"{function} got a model whose free variables are all latent; data must show at least "
            "one."
        )
    needed |= {n: given[n] for n in ebm.model.missing_inputs}
    shown = needed | {n: v for n, v in given.items() if isinstance(data, Mapping) and n in data}
    if not isinstance(data, Mapping):
        if len(shown) > 1:
            raise ValueError(
                f"{function} got one array of data for the variables {list(shown)}; give a dict "
                "with an array for each."
            )
        data = {next(iter(shown)): data}
    hidden = [w.name for w in latent(ebm) if w.name in data]
    missing, unknown = set(needed) - set(data), set(data) - set(shown) - set(hidden)
    if hidden or missing or unknown:
        said = [("shows the latent", hidden), ("lacks", missing), ("has the unknown", unknown)]
        listed = " and ".join(f"{word} {sorted(names)}" for word, names in said if names)
        raise ValueError(f"The data {listed}; expected an array for each of {list(shown)}.")
    arrays, seen_entries = {}, {}
    for n, v in shown.items():
        values, mask = read(v, _array(data[n], f"The data of {n!r}"))
        arrays[n] = values if isinstance(values, jax.Array) else np.asarray(values)
        if mask is not None and (masks or not mask.all()):
            seen_entries[seen(v).name] = jnp.asarray(mask)
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
    checked = {
        n: v.domain.check(arrays[n], arrays[n].shape, f"The data of {n!r}")
        for n, v in shown.items()
    }
    return {n: _automatic(a) for n, a in (checked | seen_entries).items()}


def _automatic(array: Array) -> Array:
    """The array on the same devices, on a mesh whose axes JAX need not be told of at each step.

    Axes of the explicit kind, which `jax.make_mesh` makes, refuse to take some of the examples.
    """
    place = array.sharding
    if not isinstance(place, NamedSharding) or AxisType.Explicit not in place.mesh.axis_types:
        return array
    names = place.mesh.axis_names
    devices = np.asarray(place.mesh.devices)
    mesh = Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.device_put(array, NamedSharding(mesh, place.spec))


def split(ebm: EBM, batch: Configuration) -> tuple[Configuration, Configuration]:
    """The values of inputs in a batch, and those of all other variables."""
    names = {v.name for v in ebm.model.inputs}
    inputs = {n: a for n, a in batch.items() if n in names}
    return inputs, {n: a for n, a in batch.items() if n not in names}


def _array(given: Any, what: str) -> Any:
    """The data of one variable as an array of numbers."""
    try:
        array = given if isinstance(given, jax.Array | np.ma.MaskedArray) else np.asarray(given)
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
