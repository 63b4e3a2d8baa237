"""Where a rank waits for what is decided about its reports. One a process; in every rank."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from ray.train import ReportedCheckpoint

from hfsuite.checkpoints import manifest
from hfsuite.errors import StopTraining

Decision = Literal["go on", "stop"]
Ending = Literal["returned", "raised"]

ANSWER_WITHIN_S = 0.2  # other calls of the rank's process wait behind
END_TAKES_S = 0.002  # from the return of a training function to the end of its thread


class DecisionBox:
    """Decisions arrive in the process's main thread, and are awaited in the one that trains."""

    def __init__(self) -> None:
        self._decisions: queue.SimpleQueue[tuple[Decision, list[ReportedCheckpoint]]] = queue.SimpleQueue()
        self._is_awaited, self._is_stopped, self._news = threading.Event(), threading.Event(), threading.Event()
        self.ending: Ending | None = None  # of the training function

    def clear(self) -> None:
        """A trial begins: what the one before left is not for it."""
        while not self._decisions.empty():
            self._decisions.get_nowait()
        self._is_stopped.clear()
        self.ending = None

    @property
    def is_stopped(self) -> bool:
        """Whether the training function has learnt that it shall stop."""
        return self._is_stopped.is_set()

    def put(self, decision: Decision, reported: list[ReportedCheckpoint]) -> None:
        """A decision, and the checkpoints that there are."""
        self._decisions.put((decision, reported))

    def queue_of_reports(self) -> queue.Queue[Any]:
        """In the place of Ray Train's own: what is put there, by whatever thread, is news."""
        return _HeardQueue(self._news)

    def note_end(self, ending: Ending) -> None:
        """The training function has returned, or raised: its thread is about to end."""
        self.ending = ending
        self._news.set()

    def wait_for_news(self, are_there: Callable[[], bool], within_s: float) -> None:
        """Returns when there are news, when a decision is awaited, or after a while.

        It sleeps meanwhile: whenever a thread looks, the one that trains has to stop.
        """
        deadline = time.monotonic() + within_s
        while not are_there() and not self._is_awaited.is_set() and (left := deadline - time.monotonic()) > 0:
            if self.ending is not None:
                time.sleep(END_TAKES_S)
            else:
                self._news.wait(left)
                self._news.clear()

    def make_reports_wait(self, functions: Any, *, pipelined: bool) -> None:
        """Each report waits for the trial's decision, and learns with it what was reported so far.

        Ray Train would ask the controller for that list, which in a trial is its actor, and waits for a report.

        Args:
            functions: what `ray.train.report` and `get_all_reported_checkpoints` call in this rank.
            pipelined: whether a report waits for the decision about the one before instead.

        Raises:
            StopTraining: out of a report, if the decision is to stop.
        """
        own_report = functions.report
        reported: list[ReportedCheckpoint] = []
        undecided = False

        def await_decision() -> None:
            self._is_awaited.set()
            self._news.set()
            try:
                decision, reported[:] = self._decisions.get()
            finally:
                self._is_awaited.clear()
            if decision == "stop":
                self._is_stopped.set()
                raise StopTraining

        def report(*args: Any, **kwargs: Any) -> None:
            nonlocal undecided
            if self._is_stopped.is_set():  # and the function goes on all the same
                raise StopTraining
            if undecided:
                await_decision()
            own_report(*args, **kwargs)
            undecided = pipelined
            if not pipelined:
                await_decision()

        def get_all_reported_checkpoints(*_: Any, **__: Any) -> list[ReportedCheckpoint]:
            return [each for each in reported if manifest.is_sealed(each.checkpoint)]  # Tune deletes some

        functions.report, functions.get_all_reported_checkpoints = report, get_all_reported_checkpoints


class _HeardQueue(queue.Queue[Any]):
    def __init__(self, news: threading.Event) -> None:
        super().__init__(maxsize=1)  # as Ray Train's: a report waits until the one before was taken
        self._news = news

    def _put(self, item: Any) -> None:
        super()._put(item)
        self._news.set()


box = DecisionBox()


def deliver(decision: Decision, reported: list[ReportedCheckpoint]) -> None:
    """Tells this rank what was decided about its last report. Sent to it by the trial's actor."""
    box.put(decision, reported)


def has_learnt_to_stop() -> bool:
    """Whether this rank unwinds, or has. Asked by the trial's actor."""
    return box.is_stopped


def ending_of_function() -> Ending | None:
    """How this rank's training function has ended, if it has. Asked by the trial's actor, which hears soon."""
    box.wait_for_news(lambda: box.ending is not None, ANSWER_WITHIN_S)
    return box.ending
