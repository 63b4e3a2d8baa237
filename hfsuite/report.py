"""A report of a training, and what stands in it beside the user's metrics. Read in every process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.train import Checkpoint

TRAINING_FINISHED = "training_finished"  # a report with this true is the last one: the trial is complete
WARM_START, LOST = "warm_start", "workers_lost"  # in a trial's first report: did it find living workers, and why not
FAILED_AT_END = "failed_at_end"  # in its last report: what went wrong after it
EARLIER = "logged_earlier"  # in a report: logs between the last one and this one, each with its own step
UNEVALUATED = "unevaluated"  # a report with this true was due without an evaluation: for its checkpoint
LOSS_BITS = "loss_bits"  # the digests of the steps since the last report, one after another
FAILURE_FILE = "failure.txt"  # in a run's directory: why the training failed, with the traceback of its rank
FACTS_FILE = "training.json"  # in a run's directory: what it was given and where it ran, see `hfsuite.ranks.facts`
SHOULD_CHECKPOINT = "should_checkpoint"  # Ray Tune's own name: a checkpoint came with the report
# What Ray Tune adds, by its own names; who only reads reports need not import it, which takes a second.
FROM_RAY_TUNE = {
    "training_iteration", "time_total_s", "time_this_iter_s", "episodes_total", "timesteps_total", "timestamp", "date",
    "time_since_restore", "timesteps_since_restore", "iterations_since_restore", "node_ip", "hostname", "pid",
    "trial_id", "experiment_id", "config", "checkpoint_dir_name",
}  # fmt: skip
FROM_HFSUITE = {TRAINING_FINISHED, WARM_START, LOST, FAILED_AT_END, LOSS_BITS, EARLIER, UNEVALUATED}


@dataclass(frozen=True)
class Report:
    """What all ranks of a trial reported together.

    Args:
        metrics: rank 0's metrics.
        checkpoint: in the trial's directory on storage, complete and sealed; None if the report had none.
    """

    metrics: dict[str, Any]
    checkpoint: Checkpoint | None
