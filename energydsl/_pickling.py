"""Pickles of functions, which models, kernels and chains contain.

Python pickles a function as its name. Functions of JAX are found by their names too, although JAX
has wrapped them. A lambda or an inner function has no name that is found; cloudpickle stores its
code, where that library is installed, by itself or with joblib.
"""

from __future__ import annotations

import copyreg
import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax

CLOUD = ("cloudpickle", "joblib.externals.cloudpickle")
"""The modules that store functions by their code."""


def _found(function: Any) -> bool:
    """Whether a function is what stands under its own name in its module."""
    place: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "?").split("."):
        place = getattr(place, part, None)
    return place is function


def _wrapped(function: Any) -> Any:
    return function.__qualname__ if _found(function) else function.__reduce_ex__(2)


for kind in (type(jax.jit(_found)), jax.custom_jvp, jax.custom_vjp):
    copyreg.pickle(kind, _wrapped)


class Portable:
    """A function, or an object that holds functions, from which a pickle makes itself again."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __deepcopy__(self, memo: dict) -> Portable:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (_stored(self.function),)


def _stored(function: Any) -> bytes:
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        for name in CLOUD:
            try:
                return importlib.import_module(name).dumps(function)
            except ImportError:
                continue
        raise pickle.PicklingError(
            f"A function cannot be pickled, as it has no name in a module ({error}). Define it by "
            "def at the top of a module, or install cloudpickle, which stores its code."
        ) from error


def rebuilt(kind: Callable[..., Any], function: Any, *settings: Any) -> Any:
    """An object of this kind around a function that came from a pickle or a copy."""
    return kind(function.function if isinstance(function, Portable) else function, *settings)
