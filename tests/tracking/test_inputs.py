"""What a trial was trained on is in MLflow: datasets and base model as inputs, the machine beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfsuite.report import FACTS_FILE
from hfsuite.tracking import runs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.record import TrialRecord
from hfsuite.tracking.sync import sync
from hfsuite.tracking.system_metrics import SystemMetrics
from tests.tracking import made

FACTS: dict[str, Any] = {
    "world_size": 2,
    "device": "cpu",
    "deterministic": True,
    "threads": 1,
    "seeds": {"seed": 3},
    "inputs": [
        {"context": "base model", "name": "org/tiny", "digest": "abc", "source": "org/tiny", "revision": "f00",
         "rows": None, "parameters": 10},
        {"context": "training", "name": "", "digest": "d1", "rows": 7, "columns": {"text": "string"}, "source": "",
         "revision": None},
        {"context": "evaluation", "name": "held out", "digest": "d2", "rows": 3, "columns": {}, "source": "",
         "revision": None},
    ],
}  # fmt: skip


def one_trial(facts: str | None = None) -> tuple[SweepDirectory, TrialRecord]:
    directory, _ = made.sweep()
    record = made.trial(directory, 0, [made.report(1, 10, 0.5, eval_loss=0.6)])
    if facts is not None:
        Path(directory.path, record.directory, FACTS_FILE).write_text(facts)
    kept = made.checkpoint(directory, record, "checkpoint_000001")
    kept.metrics = {"loss": 0.5, "eval_loss": 0.6}
    made.keep(directory, record, kept)
    return directory, record


def run_of() -> Any:
    client = store.open_store()
    parent = runs.find_sweep(client, "made")
    assert parent is not None
    (run,) = runs.children(client, parent)
    return client.get_run(run.info.run_id)


def test_datasets_and_base_model_are_inputs_of_the_run(own_directory: Path) -> None:
    directory, _ = one_trial(json.dumps(FACTS))
    for _ in range(2):
        sync(directory)
    found = {each.tags[0].value: each.dataset for each in run_of().inputs.dataset_inputs}
    assert {context: (each.name, each.digest) for context, each in found.items()} == {
        "base model": ("org/tiny", "abc"),
        "training": ("things training", "d1"),
        "evaluation": ("held out", "d2"),
    }
    assert json.loads(found["base model"].source) == {"source": "org/tiny", "revision": "f00"}
    assert json.loads(found["training"].profile) == {"rows": 7}
    tags = run_of().data.tags
    assert {name: tags[f"hfsuite.{name}"] for name in ("world_size", "device", "deterministic", "seeds")} == {
        "world_size": "2",
        "device": "cpu",
        "deterministic": "True",
        "seeds": '{"seed": 3}',
    }


def test_a_models_metrics_name_the_dataset_that_they_were_measured_on(own_directory: Path) -> None:
    directory, _ = one_trial(json.dumps(FACTS))
    sync(directory)
    client = store.open_store()
    (model,) = client.search_logged_models([run_of().info.experiment_id])
    measured_on = {each.key: (each.dataset_name, each.dataset_digest) for each in model.metrics}
    assert (measured_on["loss"], measured_on["eval_loss"]) == (("things training", "d1"), ("held out", "d2"))


@pytest.mark.parametrize("facts", [None, "", '{"world_size": 2, "inp'], ids=["none", "empty", "half"])
def test_a_trial_that_left_none_is_recorded_all_the_same(own_directory: Path, facts: str | None) -> None:
    directory, _ = one_trial(facts)
    assert sync(directory).faults == []
    run = run_of()
    assert run.info.status == "FINISHED"
    assert run.inputs.dataset_inputs == []


def test_the_machine_is_measured_while_a_sweep_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    measures = SystemMetrics(began_at=made.now() - 5_000)
    measures.begin()
    points: list[Any] = []
    while len({moment for _, _, moment, _ in points}) < 2:
        points += measures.take()
    measures.close()
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= {each[0] for each in points}
    assert all(step >= 5 for _, _, _, step in points)
