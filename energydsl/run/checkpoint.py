"""Checkpoints: a folder with a run's results in numbered parts, and one file with its state.

A part is written before the state that refers to it, and the new state replaces the old one in a
single rename, so that the checkpoint is complete even if the process is killed at any moment. The
state holds the number of rows and the digest of each part, and a digest of itself, by which damaged
files are detected.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from energydsl._identity import content, digest
from energydsl.language.model import Model
from energydsl.run.files import PARTIAL, Lock, read_arrays, write_whole

WORDS = 60
"""The longest text of a setting, in characters, that a message shows."""

ENDING = ".safetensors"

Identity = Mapping[str, tuple[str, str]]
"""What must agree for a resume: a text and a digest of each setting, by its name."""


class Part(NamedTuple):
    """The name, number of rows and digest of a file with rows."""

    name: str
    rows: int
    digest: str


class Resumed(NamedTuple):
    """The content of an earlier run's checkpoint."""

    state: Any
    counters: dict[str, int]
    passed: str
    """The digest of the batches that the run has read, if it reads a stream."""
    parts: list[dict[str, np.ndarray]]


class Checkpoint:
    """The checkpoint folder of one run, locked against other runs until `release`.

    Args:
        folder: the folder, which is created if missing.
        identity: what must agree for a resume.

    Raises:
        ValueError: the folder cannot be written, or is in use by another run.
    """

    def __init__(self, folder: str | os.PathLike, identity: Identity) -> None:
        self.folder = Path(folder)
        self.identity = {name: list(said) for name, said in identity.items()}
        self.parts: tuple[Part, ...] = ()
        self.number = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = Lock(self.folder)
        except OSError as error:
            raise ValueError(
                f"checkpoint={str(folder)!r} is not a folder that can be written: {error}. "
                "Give a folder of your own."
            ) from None

    @property
    def exists(self) -> bool:
        """Whether the folder contains the state of an earlier run."""
        return self._path("state").exists()

    @property
    def rows(self) -> int:
        """The number of saved rows."""
        return sum(part.rows for part in self.parts)

    def release(self) -> None:
        """Unlock the folder for other runs."""
        self.lock.release()

    def save(
        self,
        state: Any,
        counters: dict[str, int],
        passed: str,
        produced: dict[str, np.ndarray],
        rows: int,
    ) -> None:
        """Save the rows produced since the last call, then replace the state.

        Raises:
            OSError: a file cannot be written; the checkpoint is unchanged.
        """
        parts = self.parts
        if rows:
            # The name is new, because the old state may still refer to any existing file.
            part = Part(f"part-{self.number:06d}", rows, content(_plain_dict(produced)).digest)
            self.number += 1
            self._write(part.name, produced, {})
            parts = (*parts, part)
        leaves = {f"leaf-{i}": _plain(a) for i, a in enumerate(jax.tree.leaves(state))}
        run = {"identity": self.identity, "counters": counters,
               "passed": passed, "parts": parts, "number": self.number}  # fmt: skip
        text = json.dumps(run)
        self._write("state", leaves, {"run": text, "digest": content(text, leaves).digest})
        self.parts = parts

    def load(self, like: Any) -> Resumed:
        """The content of an earlier run's checkpoint, with its state in the structure of `like`.

        Raises:
            ValueError: the checkpoint is of another model, kernel or setting, or a file is damaged;
                the message names the differences or the file.
        """
        leaves, meta = self._read("state")
        text = meta.get("run", "")
        if text and "digest" not in meta:
            raise self.damaged("state", "it was written by an earlier version of energydsl")
        if content(text, leaves).digest != meta.get("digest"):
            raise self.damaged("state", "its content is not what was written")
        run = json.loads(text)
        self._check_same(run["identity"])
        parts = tuple(Part(*part) for part in run["parts"])
        arrays = [self._part(part) for part in parts]
        old, treedef = jax.tree.flatten(like)
        if len(leaves) != len(old):
            raise self.damaged("state", "it was written by another version of energydsl")
        new = [_like(leaves[f"leaf-{i}"], a) for i, a in enumerate(old)]
        self.parts, self.number = parts, run["number"]
        self._remove_leftovers()
        return Resumed(jax.tree.unflatten(treedef, new), run["counters"], run["passed"], arrays)

    def _check_same(self, theirs: dict[str, list[str]]) -> None:
        """Raise ValueError if this run differs from the one that wrote the checkpoint."""
        wrong = [k for k, (_, ours) in self.identity.items() if theirs.get(k, ["", ""])[1] != ours]
        # Another precision changes every array, so only the precision is reported.
        wrong = wrong[:1] if wrong[:1] == ["precision"] else wrong
        if wrong:
            listed = "; ".join(_difference(k, theirs.get(k), self.identity[k]) for k in wrong)
            raise ValueError(
                f"The checkpoint in {str(self.folder)!r} is of another run: {listed}. "
                "Give the same arguments to resume, or another folder to start anew."
            )

    def _part(self, part: Part) -> dict[str, np.ndarray]:
        arrays, _ = self._read(part.name)
        if content(arrays).digest != part.digest:
            raise self.damaged(part.name, "its content is not what was written")
        return arrays

    def _remove_leftovers(self) -> None:
        """Remove files of interrupted saves, to which no state refers."""
        kept = {self._path(part.name) for part in self.parts}
        for path in (*self.folder.glob(f"*{PARTIAL}"), *self.folder.glob(f"part-*{ENDING}")):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{ENDING}"

    def _write(self, name: str, arrays: dict[str, np.ndarray], meta: dict[str, str]) -> None:
        # safetensors writes non-contiguous arrays incorrectly.
        write_whole(self._path(name), save(_plain_dict(arrays), meta or None))

    def _read(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        try:
            return read_arrays(self._path(name))
        except (OSError, ValueError) as error:
            raise self.damaged(name, str(error)) from None

    def damaged(self, name: str, why: str) -> ValueError:
        """The error for a file that does not contain what was written."""
        return ValueError(
            f"The checkpoint in {str(self.folder)!r} cannot be resumed: "
            f"{self._path(name).name!r} is missing, damaged or of another program ({why}). "
            "Restore a copy of the whole folder, or give another folder to start anew."
        )


def model_identity(model: Model) -> dict[str, tuple[str, str]]:
    """The identity of a model: its form, parameters, evidence and precision."""
    held = zip(model.skeleton.slots, model.slots, strict=True)
    unnamed = [value for record, value in held if record.name is None]
    data = [a for a in jax.tree.leaves(unnamed) if eqx.is_array(a)]
    precision = str(jnp.zeros(()).dtype)
    text = f"E({', '.join(map(str, model.variables))}) = {model.expression}"
    return {
        "precision": (precision, precision),
        "model": (_short(text), digest(model.skeleton, "the model")),
        "model's parameters": identity_of(dict(model.stored), "the model's parameters"),
        "model's data": identity_of(data, "the model's data"),
        "model's evidence": identity_of(dict(model.evidence), "the model's evidence"),
    }


def settings_identity(name: str, module: eqx.Module) -> dict[str, tuple[str, str]]:
    """The identity of a kernel or an objective: its class and each of its settings."""
    kind = type(module)
    found = {name: (kind.__name__, digest(kind, f"the {name}"))}
    for field in getattr(kind, "__dataclass_fields__", {}):
        what = f"{name}'s {field}"
        found[what] = identity_of(getattr(module, field), f"the {what}")
    return found


def identity_of(thing: object, what: str) -> tuple[str, str]:
    """The text and the digest of one setting's value."""
    if isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
        text = f"{jax.random.key_data(thing).tolist()} of {jax.random.key_impl(thing)}"
    else:
        text = str(jax.tree.map(_words, thing))
    return _short(text), digest(thing, what)


class _Words(str):
    """A string whose `repr` has no quotes."""

    __repr__ = str.__str__


def _words(leaf: Any) -> Any:
    """The text of a leaf: a scalar array as its number, other arrays as dtype and shape."""
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return leaf
    return _Words(f"{leaf.item():g}" if leaf.ndim == 0 else f"{leaf.dtype}{list(leaf.shape)}")


def _short(text: str) -> str:
    line = re.sub(" at 0x[0-9a-f]+", "", " ".join(text.split()))
    return line if len(line) <= WORDS else line[: WORDS - 3] + "..."


def _difference(name: str, theirs: list[str] | None, ours: list[str]) -> str:
    if theirs is None:
        return f"{name} is {ours[0]} now, and the earlier run had none"
    if theirs[0] != ours[0]:
        return f"{name} was {theirs[0]}, now {ours[0]}"
    return f"{name} was different, although both are displayed as {ours[0]}"


def _plain_dict(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {k: np.array(v, order="C") for k, v in arrays.items()}


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _like(array: np.ndarray, old: Any) -> Any:
    if isinstance(old, jax.Array) and jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(old))
    if isinstance(old, jax.Array) and len(old.sharding.device_set) > 1:
        return jax.device_put(array, old.sharding)
    return jnp.asarray(array)
