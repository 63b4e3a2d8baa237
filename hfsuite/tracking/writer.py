"""Tells MLflow in the background, so that no trial waits for it. Driver; one a sweep.

What waits to be written is not kept here: it is in the sweep's directory. So a store that is down for minutes costs
nothing but delay, and one that never comes back nothing but a call of `hfsuite sync` later.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hfsuite.errors import TrackingError
from hfsuite.tracking.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from hfsuite.tracking.record import SweepRecord, TrialRecord
    from hfsuite.tracking.recorder import Recorder

EVERY_S = 1.0  # news of so long are written together
AGAIN_S = 10.0  # without news, trials whose reports wait are looked at again
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0  # until a store that did not answer is asked again
WAIT_AT_END_S = 2.0  # likewise, when a sweep is over
UNTOLD_S = 3.0  # that a sweep which is over waits for the store without a word
LAST_CALL_S = 10.0  # for a call that is under way when a sweep is closed
PATIENCE_S = 60.0  # with a store that does not answer, when a sweep is over


class Writer:
    """One thread, which brings MLflow up to date with what has changed.

    Args:
        recorder: of the sweep.
        sweep: its record, which the caller changes, and says so with `touch`.
    """

    def __init__(self, recorder: Recorder, sweep: SweepRecord) -> None:
        self.recorder, self._sweep = recorder, sweep
        self._system = recorder.system = SystemMetrics(sweep.created_at)
        self._news: dict[str, TrialRecord] = {}
        self._sweep_news: SweepRecord | None = None
        self._changed, self._written = threading.Condition(), threading.Event()
        self._is_urgent = self._is_closed = self._has_begun = False
        self._silent_since: float | None = None
        self._silence = ""
        # A daemon: a store that is silent at the end shall not keep the process.
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)

    def begin(self) -> None:
        """Makes the sweep's run, and starts the thread.

        Raises:
            TrackingError: the store refuses it, or does not answer.
        """
        try:
            self.recorder.settle_sweep(copy.copy(self._sweep))
        except TrackingError:
            raise
        except Exception as error:  # whatever a store raises
            raise TrackingError(f"MLflow cannot record the sweep: {_said(error)}") from error
        if faults := self.recorder.take_faults():
            raise TrackingError(f"MLflow refuses to record the sweep: {faults[0]}")
        self._has_begun = True
        self._thread.start()
        self._system.begin()

    def touch(self, record: TrialRecord | None = None) -> None:
        """A trial, or the sweep itself, has news. Returns at once."""
        with self._changed:
            if record is not None:
                self._news[record.trial_id] = copy.copy(record)
            self._sweep_news = copy.copy(self._sweep)
            self._written.clear()
            self._changed.notify()

    def finish(self, patience_s: float = PATIENCE_S, tell: Callable[[], None] | None = None) -> str | None:
        """Returns when all has been written; otherwise, after `patience_s` seconds of silence, what is missing.

        Args:
            patience_s: with a store that does not answer.
            tell: is called if it takes long enough for a person to wonder.
        """
        if not self._has_begun:
            return None
        with self._changed:
            self._is_urgent = True
            self._changed.notify()
        began = time.monotonic()
        while not self._written.wait(0.05):
            if tell is not None and time.monotonic() - began > UNTOLD_S:
                tell()
                tell = None
            if not self._thread.is_alive():
                return "MLflow has not recorded everything: the thread that tells it has died."
            silent_since = self._silent_since
            if silent_since is not None and time.monotonic() - max(began, silent_since) > patience_s:
                return f"MLflow has not recorded everything: it does not answer ({self._silence})."
        with self._changed:
            self._is_urgent = False
        if faults := self.recorder.take_faults():
            return f"MLflow has refused {len(faults)} writes; the first with {faults[0]}"
        return None

    def close(self) -> None:
        """Nothing more will be written."""
        self._system.close()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._has_begun:
            self._thread.join(LAST_CALL_S)  # whoever takes the sweep up next shall not meet it

    def _write_all(self) -> None:
        wait_s, began = FIRST_WAIT_S, 0.0
        latest: dict[str, TrialRecord] = {}  # of the trials that run
        while not self._is_closed:
            with self._changed:
                waiting = [each for each in latest.values() if self.recorder.is_holding(each.trial_id)]
                if not self._changed.wait_for(lambda: self._is_closed or self._news or self._sweep_news, AGAIN_S):
                    self._news = {each.trial_id: each for each in waiting}
                if not (self._is_urgent or self._silent_since):
                    self._changed.wait_for(lambda: self._is_closed or self._is_urgent, EVERY_S)
                news, self._news = self._news, {}
                sweep, self._sweep_news = self._sweep_news, None
            try:
                while news and not self._is_closed:
                    began = time.monotonic()
                    record = next(iter(news.values()))
                    self.recorder.settle_trial(sweep or self._sweep, record)
                    news.pop(record.trial_id)
                    latest[record.trial_id] = record
                    if record.state.is_over:
                        latest.pop(record.trial_id)
                    self._silent_since = None
                if sweep is not None:
                    began = time.monotonic()
                    self.recorder.settle_sweep(sweep)
                self._silent_since, wait_s = None, FIRST_WAIT_S
            except Exception as error:  # noqa: BLE001  whatever a store raises; it is asked again, and `finish` tells
                self._silent_since, self._silence = self._silent_since or began, _said(error)
                with self._changed:
                    failed = dict([next(iter(news.items()))]) if news else {}  # last in turn: it may be its own fault
                    self._news = {**news, **self._news}
                    for trial_id in failed:
                        self._news[trial_id] = self._news.pop(trial_id)
                    self._sweep_news = self._sweep_news or sweep
                    urgent = self._is_urgent
                    self._changed.wait_for(
                        lambda: self._is_closed or self._is_urgent is not urgent,  # noqa: B023  asked here and now
                        min(wait_s, WAIT_AT_END_S) if urgent else wait_s,
                    )
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            with self._changed:
                if not self._news and self._sweep_news is None:
                    self._written.set()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]
