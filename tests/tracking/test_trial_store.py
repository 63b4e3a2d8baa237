"""What a training function logs with MLflow lands in its trial's run, which stays as the sweep has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment
from hfsuite.tracking import logged, rank_logs, secrets, store, trial_store
from hfsuite.tracking.names import with_mark
from tests.tracking.stores import STORES

METRIC = "loss"


def loop(settings: dict[str, Any]) -> None:
    """In every rank, as in a script that was written for one process."""
    import mlflow

    rank, level = ray.train.get_context().get_world_rank(), settings["level"]
    mlflow.log_metric("seen", 10.0 * level + rank, step=1)
    mlflow.log_params({"level": level, "kind": f"of rank {rank}", "hf_token": "hf_abcdefghijklmnop", "num_workers": 9})
    mlflow.log_metrics({METRIC: 7.0, f"best_{METRIC}": 8.0}, step=1)
    own = Path(f"of_rank_{rank}", "note.txt")  # ranks of a node share a working directory
    own.parent.mkdir()
    own.write_text(f"rank {rank}, level {level}")
    mlflow.log_artifact(str(own))
    mlflow.log_text("a text", "texts/one.txt")
    mlflow.set_tag("mlflow.runName", "mine")
    mlflow.set_tags({"hfsuite.state": "mine", "colour": f"blue {rank}"})
    run_id = mlflow.active_run().info.run_id
    mlflow.end_run("FAILED")
    mlflow.MlflowClient().set_terminated(run_id)
    mlflow.MlflowClient().update_run(run_id, name="mine")
    with mlflow.start_run(run_name="mine", description="as it was", tags={"shape": "round"}) as again:
        assert again.info.run_id == run_id
        with mlflow.start_run(nested=True, run_name="below"):
            mlflow.log_metric("deep", level)
        mlflow.log_metric("at leisure", 3.0, synchronous=False).wait()
    with mlflow.start_run(nested=True, run_name="aside"):
        mlflow.log_metric("deep", -level)
    client = mlflow.MlflowClient()
    client.set_terminated(client.create_run("0", run_name="of a client").info.run_id)
    mlflow.log_metric("boundless", float("-inf"), step=3)
    mlflow.log_metric("early", 1.0, step=1)
    if rank > 0:
        with pytest.raises(Exception, match="Rank 1 cannot log a model"):
            mlflow.create_external_model(name="mine")
    with pytest.raises(Exception, match="cannot delete"):
        mlflow.MlflowClient().delete_run(run_id)
    mlflow.set_experiment("another")
    mlflow.log_metric("later", 1.0)
    for step in (1, 2):
        named = {"early": 0.5, "also": 2.0}
        ray.train.report({METRIC: 0.5 / step + level, "step": step, "training_finished": step == 2, **named})
        if step == 1:
            mlflow.log_metrics({"also": 5.0, "early": 6.0, "training_iteration": 7.0}, step=9)
    mlflow.set_tracking_uri("sqlite:///nowhere.db")  # which the next trial of this process knows nothing of


def experiment() -> Experiment:
    return Experiment(
        name="logging",
        trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=2)),
        space={"level": tune.grid_search([0, 1, 2])},
        metric=METRIC,
        mode="min",
        defaults={"level": 0},
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_logged_is_in_the_trials_run(kind: str, own_directory: Path) -> None:
    with STORES[kind](own_directory):
        check(own_directory)


def check(folder: Path) -> None:
    result = experiment().sweep(searcher="grid", trial_scheduler="fifo", name="logged")
    client = store.open_store()
    for trial in result.trials:
        run, level = client.get_run(trial.run_id), trial.config["level"]
        assert (run.info.status, run.data.tags["hfsuite.state"]) == ("FINISHED", "completed"), trial.failure
        assert f"level={level}" in run.info.run_name
        metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
        assert (metrics["seen"], metrics["later"], metrics["at leisure"]) == (10.0 * level, 1.0, 3.0)
        assert [each.value for each in client.get_metric_history(trial.run_id, "seen")] == [10.0 * level]
        assert [each.value for each in client.get_metric_history(trial.run_id, METRIC)] == [0.5 + level, 0.25 + level]
        assert (metrics[METRIC], metrics[f"best_{METRIC}"]) == (0.25 + level, 0.25 + level)
        assert metrics[with_mark(METRIC, ("mlflow", METRIC))] == 7.0
        assert (params["level"], params["num_workers"], params["kind"]) == (str(level), "2", "of rank 0")
        assert params[with_mark("num_workers", ("mlflow", "num_workers"))] == "9"
        assert params["hf_token"] == secrets.HIDDEN
        assert (tags["colour"], tags["shape"], tags["mlflow.note.content"]) == ("blue 0", "round", "as it was")
        assert METRIC in tags[logged.LOGGED]
        note = Path(client.download_artifacts(trial.run_id, "note.txt", str(folder)))
        assert note.read_text() == f"rank 0, level {level}"
        assert {"note.txt", "texts"} <= {each.path for each in client.list_artifacts(trial.run_id)}
        boundless = client.get_metric_history(trial.run_id, "boundless")[-1].value
        assert boundless != boundless, "MLflow would make it a number"
        assert tags[logged.INFINITE] == "boundless: -inf at step 3"
        assert [each.value for each in client.get_metric_history(trial.run_id, "also")] == [2.0, 2.0]
        assert metrics[with_mark("also", ("mlflow", "also"))] == 5.0
        assert metrics["training_iteration"] == 2
        assert {each.value for each in client.get_metric_history(trial.run_id, "early")} == {0.5, 1.0, 6.0}
        assert tags["reported.also_logged_with_mlflow"] == "early"
        found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{trial.run_id}'")
        found = sorted((each.info.run_name, each.info.status, each.data.metrics) for each in found)
        assert found == [("aside", "FINISHED", {"deep": -level}), ("below", "FINISHED", {"deep": level}),
                         ("of a client", "FINISHED", {})]  # fmt: skip
    assert any(trial.warm_start for trial in result.trials), "logging costs no worker"
    assert {each.name for each in client.search_experiments()} == {"Default", "logging"}, "none stays empty"
    every = [each.experiment_id for each in client.search_experiments()]
    assert len(client.search_runs(every)) == 1 + 3 + 9, "nobody else has made a run"


def test_the_address_of_a_rank_has_no_credentials_but_those_of_its_own_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"experiment": "e", "sweep_id": "s", "trial_id": "t"}
    address = "https://host/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/mlflow")
    assert store.address() == address
    with rank_logs.logged_to(0, address=address, **asked):
        assert os.environ[trial_store.ADDRESS] == "https://me:secret@host/mlflow"
        assert "secret" not in os.environ[rank_logs.URI]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@other/mlflow")
    with rank_logs.logged_to(0, address=address, **asked):
        assert os.environ[trial_store.ADDRESS] == address
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://me:secret@other/mlflow"
