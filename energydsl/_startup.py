"""The first seconds of the command line, in which JAX and other libraries are imported.

Ctrl-C in an import would end in a long traceback, or in an ImportError of a library written in C.
As nothing has begun that could be lost, it ends the program by one line instead. A program that
imports the package is not affected.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a program that Ctrl-C ended."""


def begin() -> None:
    """Let Ctrl-C end the program by one line."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def finish() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_command() -> bool:
    """Whether the program is ``energydsl`` or ``python -m energydsl``."""
    program = sys.argv[0] if sys.argv else ""
    # While Python looks for the module of -m, that stands in place of the program.
    module = program == "-m" and "-m energydsl" in " ".join(sys.orig_argv)
    return module or Path(program).stem == "energydsl"


def _end(number: int, frame: object) -> None:
    os.write(sys.stderr.fileno(), b"energydsl: interrupted\n")
    os._exit(INTERRUPTED)
