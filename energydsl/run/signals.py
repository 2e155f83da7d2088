"""Handling of SIGINT and SIGTERM between chunks, so that no draws are lost.

By default Python raises KeyboardInterrupt at any point of the program, such as in the middle of a
save, or in a callback that suppresses it. Here the handler only records the signal, and the loop
checks the record between chunks.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

HEARD = (signal.SIGINT, signal.SIGTERM)

PATIENCE = 2
"""How many signals are recorded before a further one ends the program."""


class Listener:
    """A context manager that handles SIGINT (Ctrl-C) and SIGTERM, then restores the handlers.

    While `patient` is True, a signal is only recorded in `heard`. Otherwise the first signal has
    its usual effect, and later ones are ignored while results are being saved. Handlers that the
    program has set itself stay in place; outside the main thread, no handler is changed.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        self.patient = False
        self.times = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Listener:
        if threading.current_thread() is threading.main_thread():
            for number in HEARD:
                before = signal.getsignal(number)
                if isinstance(before, Listener) or before in _defaults():
                    self.before[number] = signal.signal(number, self)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self.before.items():
            signal.signal(number, before)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        waiting = self.patient or self.heard is not None
        self.note(number)
        if waiting and self.times <= PATIENCE:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def note(self, number: int) -> None:
        """Record a signal, here and in the enclosing listener."""
        self.heard = signal.Signals(number)
        self.times += 1
        before = self.before.get(number)
        if isinstance(before, Listener):
            before.note(number)


def _defaults() -> tuple[Any, ...]:
    return signal.SIG_DFL, signal.default_int_handler
