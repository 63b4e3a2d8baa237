"""One training in a trial: report, decision, report, until it returns, is stopped or fails. In the trial's actor."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.train import ReportedCheckpoint, ReportedCheckpointStatus

from hfsuite.errors import TrialFailed
from hfsuite.trials.decision_box import deliver
from hfsuite.trials.failure import explain
from hfsuite.trials.policy import Decision, Report
from hfsuite.trials.worker_group import TrialController

if TYPE_CHECKING:
    from hfsuite.trainers.training import HuggingFaceTrainer
    from hfsuite.trials.workers import Workers

AFTER_KILL_S = 10.0  # the controller notices at its next poll


class TrialRun:
    """A training that runs in a trial's workers, from the moment it is made.

    Args:
        trainer: what is trained, in the placement group of the current actor.
        workers: who train it.
    """

    def __init__(self, trainer: HuggingFaceTrainer, workers: Workers) -> None:
        self._storage = trainer.run_config.storage_context
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

    def finish(self) -> None:
        """Lets the ranks return, which have reported that they are done. Whoever reports again is stopped."""
        self.finished = True
        self._controller.forbid_retries()
        self.decide("go on")
        self.decide("stop")

    def end(self, grace_s: float) -> None:
        """Stops the training, unless it has finished. Workers that take longer than `grace_s` seconds are killed."""
        if not self._thread.is_alive():
            return
        if not self.finished:
            self._controller.forbid_retries()  # what fails from now on was stopped
            self._waiting = self._controller.actors()
            self.decide("stop")
        self._thread.join(grace_s)
        if self._thread.is_alive():
            for actor in self._controller.actors():
                ray.kill(actor)
            self._thread.join(AFTER_KILL_S)

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
