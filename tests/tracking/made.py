"""Sweep directories as a driver leaves them, made without running anything."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfsuite.tracking.directory import REPORTS_FILE, SweepDirectory
from hfsuite.tracking.record import Snapshot, SweepRecord, TrialRecord
from hfsuite.tracking.state import TrialState

BEGAN = 1_700_000_000


def sweep(name: str = "made", storage: str = "results", **changes: Any) -> tuple[SweepDirectory, SweepRecord]:
    directory = SweepDirectory.at(storage, name)
    values: dict[str, Any] = {
        "sweep_id": f"id-of-{name}",
        "name": name,
        "kind": "sweep",
        "experiment": "things",
        "module": "tests.toy",
        "metric": "loss",
        "mode": "min",
        "path": directory.path,
        "planned": 3,
        "arguments": {"keep": "best"},
        "params": {"workers": 2, "searcher": "tpe", "space": {"x": "uniform(0, 1)"}},
        "mlflow_experiment": "things",
        "created_at": BEGAN * 1_000,
    }
    record = SweepRecord(**{**values, **changes})
    directory.write_sweep(record)
    return directory, record


def report(number: int, step: int, loss: float, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A line of Ray Tune's `result.json`."""
    return {
        "loss": loss,
        "step": step,
        "training_iteration": number,
        "time_total_s": 0.5 * number,
        "timestamp": BEGAN + 10 * number,
        "config": {"train_loop_config": config or {"x": 0.5}},
        "trial_id": "made",
        "done": False,
        "should_checkpoint": True,
        **more,
    }


def trial(
    directory: SweepDirectory, number: int, reports: list[dict[str, Any]], state: TrialState = TrialState.COMPLETED,
    **changes: Any,
) -> TrialRecord:  # fmt: skip
    values: dict[str, Any] = {
        "number": number,
        "trial_id": f"made_{number}",
        "state": state,
        "config": {"x": 0.5, "kind": "plain"},
        "searched": ["x"],
        "reports": len(reports),
        "started_at": BEGAN * 1_000,
        "ended_at": (BEGAN + 100) * 1_000 if state.is_over else None,
        "best": best(reports),
    }
    record = TrialRecord(**{**values, **changes})
    directory.write_trial(record)
    append(directory, record, reports)
    return record


def append(directory: SweepDirectory, record: TrialRecord, reports: list[dict[str, Any]]) -> None:
    with open(f"{directory.path}/{record.directory}/{REPORTS_FILE}", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in reports)


def best(reports: list[dict[str, Any]]) -> Snapshot | None:
    if not reports:
        return None
    chosen = min(reports, key=lambda each: each["loss"])
    return Snapshot(
        directory=None, step=chosen["step"], metrics={"loss": chosen["loss"], "step": float(chosen["step"])},
        timestamp=chosen["timestamp"] * 1_000,
    )  # fmt: skip


def checkpoint(directory: SweepDirectory, record: TrialRecord, name: str, step: int = 10) -> Snapshot:
    """A checkpoint of no model that Transformers knows, with a pickle in it."""
    folder = Path(directory.path, record.directory, name)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step}))
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    return Snapshot(directory=name, step=step, metrics={}, timestamp=(BEGAN + step) * 1_000)


def keep(directory: SweepDirectory, record: TrialRecord, checkpoint: Snapshot) -> None:
    """The trial has kept this checkpoint, its best; its metrics are those that the record has as the best."""
    assert record.best is not None
    best = replace(checkpoint, metrics={**record.best.metrics, **checkpoint.metrics})
    directory.write_trial(replace(record, saved=[best], kept=[best], best=best))


def now() -> int:
    return int(time.time() * 1_000)
