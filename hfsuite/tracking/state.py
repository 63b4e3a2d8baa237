"""The states of a trial: one enum for Tune, MLflow, the table and JSON."""

from __future__ import annotations

import enum


class TrialState(enum.StrEnum):
    """Where a trial stands, and what becomes of its checkpoints."""

    PENDING = "pending"
    """Proposed, and waiting for its placement group. It has no checkpoint yet."""

    RUNNING = "running"
    """Its workers train. Ray Tune keeps its checkpoints as the sweep's configuration says."""

    PAUSED = "paused"
    """The trial scheduler has put it aside, at a checkpoint from which it may go on. That checkpoint stays."""

    COMPLETED = "completed"
    """Its training function returned in every rank. Its best and last checkpoints stay."""

    PRUNED = "pruned"
    """The trial scheduler stopped it at a report. Its best and last checkpoints stay."""

    FAILED = "failed"
    """A rank raised or died, and no retry was left. What it had saved before stays."""

    STOPPED = "stopped"
    """The user ended the sweep while it ran. Its best and last checkpoints stay: the sweep can be taken up again."""

    LOST = "lost"
    """The sweep's driver died while it ran. Its best and last checkpoints stay: the sweep can be taken up again."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come from the trial."""
        return self not in (TrialState.PENDING, TrialState.RUNNING, TrialState.PAUSED)

    @property
    def is_unfinished(self) -> bool:
        """Whether a sweep that is taken up again goes on with it."""
        return not self.is_over or self in (TrialState.STOPPED, TrialState.LOST)

    @property
    def has_result(self) -> bool:
        """Whether its last report is a fair account of its configuration."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED)

    @property
    def mlflow_status(self) -> str:
        """MLflow knows fewer: a pruned, stopped or lost run is KILLED there, and its tag says which."""
        return {
            TrialState.PENDING: "SCHEDULED",
            TrialState.RUNNING: "RUNNING",
            TrialState.PAUSED: "RUNNING",
            TrialState.COMPLETED: "FINISHED",
            TrialState.FAILED: "FAILED",
        }.get(self, "KILLED")
