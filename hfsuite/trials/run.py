"""One training in a trial: report, decision, report, until it returns, is stopped or fails. In the trial's actor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import ReportedCheckpoint, ReportedCheckpointStatus

from hfsuite.errors import TrialFailed
from hfsuite.ranks.decision_box import Decision, deliver, ending_of_function, has_learnt_to_stop
from hfsuite.ranks.surroundings import remove_scratch
from hfsuite.report import Report
from hfsuite.trials.controller import TrialController
from hfsuite.trials.failure import explain
from hfsuite.trials.trainer import Trainer
from hfsuite.trials.workers import TIDY_WITHIN_S, Workers

AFTER_KILL_S = 10.0  # the controller notices at its next poll
ANSWER_WITHIN_S = 2.0  # a rank's answer to a question, which may wait behind the one to a poll
LOOK_EVERY_S = 0.05


class TrialRun:
    """A training that runs in a trial's workers, from the moment it is made.

    Args:
        trainer: what is trained, in the placement group of the current actor.
        workers: who train it.
    """

    def __init__(self, trainer: Trainer, workers: Workers) -> None:
        self._storage, self._timeout_s = trainer.run_config.storage_context, trainer.backend_config.timeout_s
        self._workers = workers
        self._arrivals: queue.SimpleQueue[tuple[Report, list[Any]] | BaseException | None] = queue.SimpleQueue()
        self._waiting: list[Any] = []  # the actors of the ranks that made the report that was taken last
        self._reported: list[ReportedCheckpoint] = []
        self.finished = False  # by its own account
        self._controller = TrialController(trainer, workers, hand_over=lambda *report: self._arrivals.put(report))
        self._thread = threading.Thread(target=self._train, name="train-controller", daemon=True)
        self._thread.start()

    def next_report(self) -> Report | None:
        """Waits for the next report; None when the training function has returned.

        Raises:
            TrialFailed: a rank raised or died, and the trainer's failure configuration allows no other attempt.
        """
        arrival = self._arrivals.get()
        if isinstance(arrival, BaseException):
            raise self._explained(arrival) from None
        if arrival is None:
            return None
        report, self._waiting = arrival
        if report.checkpoint is not None:
            saved = ReportedCheckpoint(report.checkpoint, report.metrics, ReportedCheckpointStatus.COMMITTED)
            self._reported.append(saved)
        return report

    def decide(self, decision: Decision) -> None:
        """Tells the ranks that made the last report what becomes of it; of another attempt's ranks they may be dead."""
        for actor in self._waiting:
            actor.execute.remote(deliver, decision, self._reported)

    def finish(self, within_s: float) -> TrialFailed | None:
        """Lets the ranks return, which have reported that they are done, and waits until they have.

        Whoever reports again is stopped. The group's own end is not waited for: it takes place while Tune decides.

        Args:
            within_s: seconds that they have.

        Returns:
            What went wrong after the last report; `next_report` raises it too.
        """
        self.finished = True
        self._controller.forbid_retries()
        self.decide("go on")
        self.decide("stop")
        deadline = time.monotonic() + within_s
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            endings = self._ask(ending_of_function, self._waiting)
            if endings and set(endings) == {"returned"}:
                return None
            if "raised" in endings:
                break
            self._thread.join(min(left, LOOK_EVERY_S))
        self.end(max(deadline - time.monotonic(), 0))
        if self._thread.is_alive():
            return TrialFailed("Its training function has not ended, though its workers were killed.")
        arrival = self._arrivals.get()
        self._arrivals.put(arrival)
        return self._explained(arrival) if isinstance(arrival, BaseException) else None

    def end(self, grace_s: float) -> None:
        """Stops the training, unless it has finished. Workers that take longer than `grace_s` seconds are killed.

        The seconds count from when all ranks have learnt that they shall stop: in the report in which they wait, or in
        their next.
        """
        if not self.finished:
            self._controller.stop()
            self._tell_to_stop()
        self._thread.join(grace_s)
        if self._thread.is_alive() and self._workers.are_tidying:
            self._thread.join(TIDY_WITHIN_S)
        if self._thread.is_alive():
            self._workers.discard(f"their training function had not ended {grace_s:g} s after it was told to")
            self._thread.join(AFTER_KILL_S)

    def _tell_to_stop(self) -> None:
        """Returns when all ranks have learnt it, or when one never will: an attempt that just begins is told too."""
        told: list[Any] = []
        deadline = time.monotonic() + self._timeout_s  # a rank that never reports again never learns of it
        while self._thread.is_alive() and time.monotonic() < deadline:
            actors = self._controller.actors()
            if actors and actors != told:
                self._waiting = told = actors
                self.decide("stop")
            learnt = self._ask(has_learnt_to_stop, told)
            if learnt and all(learnt):
                return
            self._thread.join(LOOK_EVERY_S)

    def _ask(self, question: Callable[[], Any], actors: list[Any]) -> list[Any]:
        """The answers of all ranks; nothing if one has none, or is dead: its controller hears of that too."""
        if not actors:
            return []
        answers = [actor.execute.remote(question) for actor in actors]
        answered, late = ray.wait(answers, num_returns=len(answers), timeout=ANSWER_WITHIN_S)
        try:
            return [] if late else list(ray.get(answered))
        except RayError:
            return []

    def remove_scratch(self) -> None:
        """Removes the working directories that killed ranks of this actor have left in the trial's directory."""
        remove_scratch(self._storage.storage_filesystem, self._storage.experiment_fs_path, self._workers.scratch)

    def write(self, name: str, text: str) -> None:
        """Leaves a file in the trial's directory."""
        with self._storage.storage_filesystem.open_output_stream(f"{self._storage.experiment_fs_path}/{name}") as file:
            file.write(text.encode())

    def _train(self) -> None:
        try:
            self._arrivals.put(self._controller.train())
        except BaseException as error:  # noqa: BLE001  whatever ends the thread must reach the trial, or it waits for ever
            self._arrivals.put(error)

    def _explained(self, error: BaseException) -> TrialFailed:
        storage = self._storage
        output = Path(self._controller.output_of(0)).parent
        return explain(error, storage.storage_filesystem, storage.experiment_fs_path, output)
