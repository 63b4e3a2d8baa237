"""Sweeps, and the trials of one, as rows for a table: what MLflow's runs say of themselves. From MLflow alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfsuite.seeds import SETTING
from hfsuite.tracking import runs
from hfsuite.tracking.names import mlflow_name

if TYPE_CHECKING:
    import mlflow

Row = dict[str, Any]
OWN_TAGS = {"why": runs.WHY, "gpu_share": runs.GPU_SHARE, "workers": runs.WORKERS, "warm_start": runs.WARM_START}


def sweeps(client: mlflow.MlflowClient) -> list[Row]:
    """All sweeps, the newest first: one search, whatever the number of their trials.

    Of those that an older version recorded, numbers of trials and hours are None.
    """
    return [_sweep(run) for run in runs.sweeps(client)]


def trials(client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> list[Row]:
    """The trials of a sweep, in the order of their numbers. Settings are texts, those that differ between them."""
    found = runs.children(client, parent)
    params = [run.data.params for run in found]
    names = dict.fromkeys(key for each in params for key in each)
    differing = [name for name in names if len({each.get(name) for each in params}) > 1]
    if SETTING in differing and f"space.{SETTING}" not in parent.data.params:  # each trial has its own
        differing.remove(SETTING)
    return [_trial(run, parent.data.tags, differing) for run in found]


def _sweep(run: mlflow.entities.Run) -> Row:
    tags = run.data.tags
    return {
        "sweep": tags.get(runs.SWEEP, run.info.run_name),
        "began": run.info.start_time / 1_000,
        "experiment": tags.get(runs.EXPERIMENT),
        "state": tags.get(runs.STATE),
        "planned": _number(tags, runs.PLANNED, int),
        "over": _number(tags, runs.OVER, int),
        "failed": _number(tags, runs.FAILED, int),
        "metric": tags.get(runs.METRIC),
        "best": _number(tags, runs.BEST_VALUE, float),
        "worker_hours": _number(tags, runs.HOURS, float),
        "run_id": run.info.run_id,
    }


def _trial(run: mlflow.entities.Run, of_sweep: Mapping[str, str], settings: list[str]) -> Row:
    tags, metrics = run.data.tags, run.data.metrics
    metric = of_sweep[runs.METRIC]
    return {
        "trial": int(tags.get(runs.TRIAL, 0)),
        "state": tags.get(runs.STATE),
        metric: metrics.get(mlflow_name(f"best_{metric}"), metrics.get(mlflow_name(metric))),
        "step": _number(tags, runs.LAST_STEP, int),
        "seconds": metrics.get("time_total_s"),
        **own(tags),
        "config": {name: run.data.params.get(name) for name in settings},
        "run_id": run.info.run_id,
    }


def own(tags: Mapping[str, str]) -> Row:
    """What is known of a trial's workers and of its end, in its own types."""
    found: Row = {name: tags[tag] for name, tag in OWN_TAGS.items() if tag in tags}
    if "warm_start" in found:
        found["warm_start"] = found["warm_start"] == "True"
    if "gpu_share" in found:
        found["gpu_share"] = float(found["gpu_share"])
    return found


def _number(tags: Mapping[str, str], name: str, kind: type) -> Any:
    return kind(tags[name]) if name in tags else None
