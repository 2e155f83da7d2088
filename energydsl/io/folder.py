"""The folder that a program writes its results to."""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path


def output_folder(path: str | PathLike[str]) -> Path:
    """Make a folder, with its parents, and see that files can be written there.

    Call it before any work: what was computed is lost where it cannot be saved.

    Args:
        path: of the folder; it may exist.

    Raises:
        ValueError: no folder can be made there, or none of its files written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"The output folder {str(path)!r} cannot be written: {error.strerror or error}. Give "
            "one of your own."
        ) from None
    return folder
