"""The states of a trial: one enum for Tune, MLflow, the table and JSON."""

from __future__ import annotations

import enum


class TrialState(enum.StrEnum):
    """Where a trial stands, and what becomes of its checkpoints."""

    PENDING = "pending"
    """Proposed, and waiting for its placement group. It has no checkpoint yet."""

    RUNNING = "running"
    """Its workers train. Ray Tune keeps its checkpoints as the sweep's configuration says."""

    COMPLETED = "completed"
    """Its training function returned in every rank. Its best and last checkpoints stay."""

    PRUNED = "pruned"
    """The trial scheduler stopped it at a report. Its best and last checkpoints stay."""

    FAILED = "failed"
    """A rank raised or died, and no retry was left. What it had saved before stays."""

    STOPPED = "stopped"
    """The user ended the sweep while it ran. What it had saved before stays."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come from the trial."""
        return self not in (TrialState.PENDING, TrialState.RUNNING)

    @property
    def has_result(self) -> bool:
        """Whether its last report is a fair account of its configuration."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED)

    @property
    def mlflow_status(self) -> str:
        """MLflow knows fewer: a pruned or stopped run is KILLED there, and its tag says which."""
        return {
            TrialState.PENDING: "SCHEDULED",
            TrialState.RUNNING: "RUNNING",
            TrialState.COMPLETED: "FINISHED",
            TrialState.FAILED: "FAILED",
        }.get(self, "KILLED")
