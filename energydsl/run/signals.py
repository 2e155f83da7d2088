"""Signals that ask a program to end, heard between chunks so that nothing drawn is lost.

Python raises KeyboardInterrupt wherever it stands, in the middle of a save or of a callback that
swallows it. Here the handler only notes the signal, and the loop looks at the note.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

HEARD = (signal.SIGINT, signal.SIGTERM)

PATIENCE = 2
"""Signals that are taken without ending the program; who sends another means it."""


class Listener:
    """Hears SIGINT (Ctrl-C) and SIGTERM as long as it is entered, then puts the handlers back.

    While `patient`, a signal is only noted in `heard`. Otherwise the first one does what it would
    do without a listener, and one that follows it is ignored: something is being saved. Handlers
    that the program has set itself are left in place, and so are all where this is not the main
    thread.
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
        """Remember a signal, here and in the listener that this one stands in for."""
        self.heard = signal.Signals(number)
        self.times += 1
        before = self.before.get(number)
        if isinstance(before, Listener):
            before.note(number)


def _defaults() -> tuple[Any, ...]:
    return signal.SIG_DFL, signal.default_int_handler
