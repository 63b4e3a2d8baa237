"""What a user's wish to end a sweep becomes: Ctrl-C and SIGTERM end it in order. Driver."""

from __future__ import annotations

import os
import signal
import threading
from types import TracebackType
from typing import Any, Self

from ray.tune import Callback

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAITS = (
    b"\nInterrupted: trials that run unwind their training functions (stop_grace_s at most), and MLflow is told. "
    b"Ctrl-C again ends at once.\n"
)


class Interruption(Callback):
    """One of Ray Tune's callbacks, and a context in which the process's own signal handlers are put back at the end.

    Attributes:
        is_wished: whether the user has asked for the end.
    """

    def __init__(self) -> None:
        self.is_wished = False
        self._own: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._own = {number: signal.getsignal(number) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._own.items():
            signal.signal(number, handler)

    def setup(self, **_: Any) -> None:
        """Tune has just installed its handler of Ctrl-C, which ends the sweep in order; SIGTERM shall do the same."""
        if not self._own:  # a thread cannot be signalled
            return
        end_in_order = signal.getsignal(signal.SIGINT)

        def note_and_end(number: int, frame: Any) -> None:
            if not self.is_wished:
                os.write(2, WAITS)  # nothing else may be done in a signal handler
            self.is_wished = True
            if callable(end_in_order):
                end_in_order(number, frame)

        for number in SIGNALS:  # what was ignored (in a script's background job, for example) stays so
            ignored = self._own[number] is signal.SIG_IGN
            signal.signal(number, signal.SIG_IGN if ignored else note_and_end)
