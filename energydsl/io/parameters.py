"""Files of a model's parameters, in the safetensors format."""

from __future__ import annotations

import os
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from safetensors.numpy import save as as_bytes

from energydsl._identity import content
from energydsl._messages import brief, described
from energydsl._types import is_traced
from energydsl.compiler.ebm import EBM
from energydsl.language.model import Model
from energydsl.run.files import read_arrays, write_whole

FORMAT = "energydsl parameters 1"
"""What marks a file, and the version of its form."""


@described
def save(ebm: EBM | Model, path: str | PathLike[str]) -> None:
    """Save the parameters of a model by name; `energydsl.load` reads them.

    Every array of a parameter or a potential is saved, frozen ones included; of a parameter with a
    constraint, its unconstrained numbers (see `energydsl.parameter`). Data of the energy,
    evidence and values of inputs are not. The file is in the safetensors format, which holds
    nothing but arrays and text, so that reading it executes nothing. It is written atomically.

    Args:
        ebm: a compiled model, or a model.
        path: the file, usually with the ending ``.safetensors``.

    Raises:
        OSError: the file cannot be written; an earlier one is unchanged.
        TypeError: what is given is no model, or its parameters are traced by JAX.
        ValueError: the model has no parameters.
    """
    model = _model(ebm, "save")
    if is_traced(model.parameters):
        raise TypeError("save was called inside a JAX transformation; call it outside.")
    # safetensors writes non-contiguous arrays incorrectly.
    arrays = {name: np.array(array, order="C") for name, array in _arrays(model).items()}
    if not arrays:
        raise ValueError(
            'save got a model without parameters; declare them: W = ed.parameter("W", array).'
        )
    text = _text(model)
    meta = {"format": FORMAT, "energy": text, "digest": content(text, arrays).digest}
    write_whole(Path(path), as_bytes(arrays, meta))


@described
def load[M: (EBM, Model)](path: str | PathLike[str], ebm: M) -> M:
    """The same model with the parameters of a file that `energydsl.save` wrote.

    Nothing is recompiled. The names and shapes of the file must be those of the model. If only the
    energies differ, as when the same parameters are used on another lattice, a warning shows both.

    Args:
        path: the file.
        ebm: a compiled model, or a model, of which only the parameters' values may differ.

    Raises:
        OSError: the file cannot be read.
        TypeError: what is given is no model.
        ValueError: the file is damaged or of another kind, or has parameters of other names or
            shapes, or NaN.
    """
    model = _model(ebm, "load")
    arrays, meta = _read(path)
    held = _arrays(model)
    there, here = ({n: tuple(a.shape) for n, a in each.items()} for each in (arrays, held))
    if there != here:
        differ = sorted(n for n in there.keys() | here.keys() if there.get(n) != here.get(n))
        said = "; ".join(f"{n}: {_shape(there, n)} in the file, {_shape(here, n)} in the model"
                         for n in differ[:5])  # fmt: skip
        raise ValueError(
            f"The file {str(path)!r} is of another model, E = {meta['energy']}. They differ in "
            f"{said}{' ...' if len(differ) > 5 else ''}."
        )
    if meta["energy"] != _text(model):
        warnings.warn(
            f"The file {str(path)!r} was saved from E = {meta['energy']}; its parameters are used "
            f"in E = {_text(model)}, which has the same names and shapes.",
            stacklevel=2,
        )
    return ebm.replace(_filled(model, arrays))


def _model(ebm: Any, function: str) -> Model:
    if not isinstance(ebm, EBM | Model):
        raise TypeError(f"{function} got {brief(ebm)}; expected an EBM or a model.")
    return ebm.model if isinstance(ebm, EBM) else ebm


def _arrays(model: Model) -> dict[str, Any]:
    """The arrays of all parameters, by the parameter's name and the path within it."""
    return {
        name + jtu.keystr(path): leaf
        for name, value in model.stored.items()
        for path, leaf in jtu.tree_flatten_with_path(value)[0]
        if eqx.is_array(leaf)
    }


def _filled(model: Model, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The parameters with these arrays in place of their own."""
    return {
        name: jtu.tree_map_with_path(
            lambda path, leaf, name=name: (
                jnp.asarray(arrays[name + jtu.keystr(path)]) if eqx.is_array(leaf) else leaf
            ),
            value,
        )
        for name, value in model.stored.items()
    }


def _read(path: str | PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    where = os.fspath(path)
    if not Path(where).is_file():
        raise FileNotFoundError(f"There is no file {where!r} to load.")
    try:
        arrays, meta = read_arrays(Path(where))
    except ValueError as error:
        raise ValueError(
            f"The file {where!r} is damaged, or is none that ed.save wrote ({error})."
        ) from None
    if meta.get("format") != FORMAT:
        raise ValueError(
            f"The file {where!r} was not written by ed.save; for other files of arrays, use "
            "ebm.replace(name=array)."
        )
    if meta.get("digest") != content(meta.get("energy", ""), arrays).digest:
        raise ValueError(f"The file {where!r} is damaged: its arrays are not those it was given.")
    return arrays, meta


def _text(model: Model) -> str:
    """The energy and its variables, whatever is clamped, as text of bounded length."""
    return f"{model.expression!s:.2000} over {', '.join(map(str, model.variables)):.2000}"


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return f"shape {shapes[name]}" if name in shapes else "absent"
