"""Checkpoints: a folder of numbered parts with what a run produced, and one file with its state.

A part is written before the state that counts it, and the state replaces the old one in a single
rename: a run killed at any instant finds a whole checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from energydsl.language.model import Model

FORMAT = 1


class Checkpoint:
    """Where one run writes, and what identifies it.

    Args:
        folder: made if missing.
        identity: what must agree for a resume, by the words a user knows it under.
    """

    def __init__(self, folder: str | os.PathLike, identity: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.identity = {"format": FORMAT, **identity}
        self.parts = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"checkpoint={str(folder)!r} is no folder that can be written: {error}. "
                "Give a folder of your own."
            ) from None

    @property
    def exists(self) -> bool:
        """Whether an earlier run left a state here."""
        return (self.folder / "state.safetensors").exists()

    def save(self, state: Any, counters: dict[str, int], produced: dict[str, np.ndarray]) -> None:
        """Add what was produced since the last call, then replace the state."""
        parts = self.parts + bool(produced)
        if produced:
            self._write(f"part-{self.parts:06d}", produced, {})
        leaves = {f"leaf-{i}": _plain(a) for i, a in enumerate(jax.tree.leaves(state))}
        meta = {"identity": self.identity, "parts": parts, "counters": counters}
        self._write("state", leaves, {"run": json.dumps(meta)})
        # Only now: a save that was cut short is written again under the same number.
        self.parts = parts

    def load(self, like: Any) -> tuple[Any, dict[str, int], list[dict[str, np.ndarray]]]:
        """The state (in the shape of `like`), the counters, and every part.

        Raises:
            ValueError: the checkpoint is of another model, kernel or setting; the message names
                each difference.
        """
        leaves, meta = _read(self.folder / "state.safetensors")
        run = json.loads(meta["run"])
        theirs = run["identity"]
        wrong = [k for k in self.identity if theirs.get(k) != self.identity[k]]
        if wrong:
            listed = "; ".join(
                f"{k} was {theirs.get(k)!r}, now {self.identity[k]!r}" for k in wrong
            )
            raise ValueError(
                f"The checkpoint in {str(self.folder)!r} is of another run: {listed}. "
                "Give the same arguments to resume, or another folder to start anew."
            )
        self.parts = run["parts"]
        old, treedef = jax.tree.flatten(like)
        new = [_like(leaves[f"leaf-{i}"], a) for i, a in enumerate(old)]
        parts = [_read(self.folder / f"part-{i:06d}.safetensors")[0] for i in range(self.parts)]
        return jax.tree.unflatten(treedef, new), run["counters"], parts

    def _write(self, name: str, arrays: dict[str, np.ndarray], meta: dict[str, str]) -> None:
        target = self.folder / f"{name}.safetensors"
        partial = target.with_suffix(".partial")
        # safetensors corrupts arrays that are not contiguous.
        save_file({k: np.array(v, order="C") for k, v in arrays.items()}, partial, meta or None)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)


def fingerprint(model: Model) -> str:
    """A digest of a model's structure and of every parameter's value."""
    seal = hashlib.blake2b(model.skeleton.digest.encode(), digest_size=16)
    for leaf in jax.tree.leaves((model.slots, model.evidence)):
        if hasattr(leaf, "dtype"):
            array = _plain(leaf)
            seal.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
    return seal.hexdigest()


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _like(array: np.ndarray, old: Any) -> Any:
    if isinstance(old, jax.Array) and jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(old))
    return jnp.asarray(array)
