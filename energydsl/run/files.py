"""Atomic writing of files, reading of arrays, and locks on folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTIAL = ".partial"
"""The suffix of a file that is being written."""


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically: readers find either the old content or the new one.

    Raises:
        OSError: the file cannot be written (a full disk); an earlier file is unchanged.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the texts of a safetensors file.

    Raises:
        ValueError: the file is damaged, or none of this kind.
        OSError: it cannot be read.
    """
    try:
        with safe_open(path, framework="np") as file:
            # An open file is no mapping: it has keys, but is not iterable.
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


class Lock:
    """A lock on a folder; the system releases it when the process ends, even by a crash."""

    def __init__(self, folder: Path) -> None:
        self.file = open(folder / "lock", "a+")  # noqa: SIM115 (open as long as the lock is held)
        try:
            if fcntl is not None:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.seek(0)
            owner = self.file.read().strip() or "unknown"
            self.file.close()
            raise ValueError(
                f"The checkpoint folder {str(folder)!r} is in use by another run (process "
                f"{owner}). Wait until that one has ended, or give another folder."
            ) from None
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()

    def release(self) -> None:
        """Release the lock."""
        self.file.close()
