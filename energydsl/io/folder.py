"""Output folders."""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path


def output_folder(path: str | PathLike[str]) -> Path:
    """Make a folder, with its parents, and check that files can be written there.

    Call it before a long computation, so that the results can be saved.

    Args:
        path: the folder, which may exist already.

    Returns:
        The folder's path.

    Raises:
        ValueError: the folder cannot be created, or no file can be written there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"The output folder {str(path)!r} cannot be written: {error.strerror or error}. Give "
            "a folder in which you may write."
        ) from None
    return folder
