"""What MLflow has of a sweep after it was told: the same contract for every store."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from hfsuite.report import FACTS_FILE
from hfsuite.tracking import runs, store
from hfsuite.tracking.describe import ranked
from hfsuite.tracking.record import Snapshot
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from tests.tracking import made
from tests.tracking.stores import STORES


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def client(request: pytest.FixtureRequest, own_directory: Path) -> Iterator[mlflow.MlflowClient]:
    with STORES[request.param](own_directory):
        yield store.open_store()


def recorded(client: mlflow.MlflowClient, name: str = "made") -> tuple[Any, list[Any]]:
    parent = runs.find_sweep(client, name)
    assert parent is not None
    return parent, runs.children(client, parent)


def history(client: mlflow.MlflowClient, run: Any, name: str) -> list[tuple[int, float, int]]:
    return [(each.step, each.value, each.timestamp) for each in client.get_metric_history(run.info.run_id, name)]


def test_a_sweep_is_filled_in_from_its_files_any_number_of_times(client: mlflow.MlflowClient) -> None:
    directory, sweep = made.sweep()
    losses = {0: [0.9, 0.5], 1: [0.8], 2: [0.7, 0.6, 0.4]}
    states = {0: TrialState.COMPLETED, 1: TrialState.PRUNED, 2: TrialState.FAILED}
    for number, values in losses.items():
        reports = [made.report(n + 1, 10 * (n + 1), loss) for n, loss in enumerate(values)]
        made.trial(directory, number, reports, states[number], why="because" if number else "")
    Path(directory.path, "trial_002/failure.txt").write_text("rank 1: Traceback ...")
    sweep.state, sweep.ended_at, sweep.best = TrialState.COMPLETED, made.BEGAN * 1_000 + 1, 0
    directory.write_sweep(sweep)

    for _ in range(3):
        assert sync(directory).faults == []
        parent, trials = recorded(client)
        assert [(run.data.tags[runs.STATE], run.info.status) for run in trials] == [
            ("completed", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED"),
        ]  # fmt: skip
        for run, values in zip(trials, losses.values(), strict=True):
            assert history(client, run, "loss") == [
                (10 * n, loss, (made.BEGAN + 10 * n) * 1_000) for n, loss in enumerate(values, start=1)
            ]
            assert run.data.params["x"] == "0.5"
            assert run.info.end_time == (made.BEGAN + 100) * 1_000
        assert trials[1].data.tags[runs.WHY] == "because"
        assert (parent.info.status, parent.data.tags[runs.STATE]) == ("FINISHED", "completed")
        assert parent.data.tags[runs.BEST_RUN] == trials[0].info.run_id
        assert float(parent.data.tags[runs.BEST_VALUE]) == 0.5
        assert parent.data.params["space.x"] == "uniform(0, 1)"
        text = client.download_artifacts(trials[2].info.run_id, "failure.txt")
        assert Path(text).read_text() == "rank 1: Traceback ..."


def test_news_are_added_to_what_is_there(client: mlflow.MlflowClient) -> None:
    directory, sweep = made.sweep()
    first = Recorder(client, directory)
    record = made.trial(directory, 0, [made.report(1, 10, 0.9)], TrialState.RUNNING)
    first.settle_sweep(sweep)
    first.settle_trial(sweep, record)
    (run,) = recorded(client)[1]
    assert (run.info.status, run.data.metrics["loss"]) == ("RUNNING", 0.9)

    made.append(directory, record, [made.report(2, 20, 0.8)])
    first.settle_trial(sweep, replace(record, reports=2))
    made.append(directory, record, [made.report(3, 30, 0.7)])
    second = Recorder(client, directory)  # another process
    second.settle_sweep(sweep)
    second.settle_trial(sweep, replace(record, state=TrialState.STOPPED, reports=3, ended_at=made.now()))
    (run,) = recorded(client)[1]
    assert [(step, value) for step, value, _ in history(client, run, "loss")] == [(10, 0.9), (20, 0.8), (30, 0.7)]
    assert (run.info.status, run.data.tags[runs.STATE]) == ("KILLED", "stopped")

    third = Recorder(client, directory)
    third.settle_sweep(sweep)
    third.settle_trial(sweep, replace(record, state=TrialState.RUNNING, ended_at=None))
    (run,) = recorded(client)[1]
    assert (run.info.status, run.data.tags[runs.STATE]) == ("RUNNING", "running")


def test_values_keep_their_kind(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep()
    config = {"a": {"b": 1, "c": {"d": "x"}}, "list": [1, "two"], "none": None, "long": "y" * 10_000, "lr (max)": 1}
    many = {f"p{n}": n for n in range(150)}
    reports = [made.report(1, 10, math.inf, nan=math.nan, text="words", **{"recall@5": 0.5, "a" * 300: 3.0})]
    made.trial(directory, 0, reports, config=config | many)
    assert sync(directory).faults == []
    (run,) = recorded(client)[1]
    params = run.data.params
    assert (params["a.b"], params["a.c.d"], params["list"], params["none"]) == ("1", "x", '[1, "two"]', "None")
    assert (params["p149"], params["lr _max_"]) == ("149", "1")
    assert params["long"] == "y" * runs.PARAM_LIMIT
    whole = client.download_artifacts(run.info.run_id, f"{runs.LONG_VALUES}/long.txt")
    assert Path(whole).read_text() == "y" * 10_000
    assert math.isnan(run.data.metrics["loss"])
    assert run.data.tags["infinite.loss"] == "+inf at step 10"
    assert math.isnan(run.data.metrics["nan"])
    assert run.data.tags["reported.text"] == "words"
    assert (run.data.metrics["recall_5"], run.data.metrics["a" * 250]) == (0.5, 3.0)


def test_what_a_dead_driver_left_running_is_lost(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep()
    made.trial(directory, 0, [made.report(1, 10, 0.9)])
    made.trial(directory, 1, [made.report(1, 10, 0.8)], TrialState.RUNNING)
    assert sync(directory).lost == 1
    parent, trials = recorded(client)
    assert [run.data.tags[runs.STATE] for run in (parent, *trials)] == ["lost", "completed", "lost"]
    assert [run.info.run_name for run in trials] == ["000 · x=0.5 · 0.9", "001 · x=0.5 · 0.8 lost"]
    assert parent.data.tags[runs.BEST_RUN] == trials[0].info.run_id
    assert "best_loss" not in trials[1].data.metrics, "it may go on, and become better"
    assert [run.info.status for run in (parent, *trials)] == ["KILLED", "FINISHED", "KILLED"]
    assert sync(directory).lost == 0


def test_a_trial_that_went_back_has_its_points_once_and_a_mark(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep()
    reports = [made.report(n, 10 * n, 1 / n) for n in (1, 2, 3, 2, 3, 4)]
    made.trial(directory, 0, reports)
    sync(directory)
    (run,) = recorded(client)[1]
    assert [(step, value) for step, value, _ in history(client, run, "loss")] == [
        (10, 1.0), (20, 0.5), (30, 1 / 3), (40, 0.25),
    ]  # fmt: skip
    assert "hfsuite.superseded" not in run.data.tags, "nothing had been written that was not true"


def test_what_was_superseded_after_it_was_written_is_marked(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep()
    record = made.trial(directory, 0, [made.report(n, 10 * n, 1 / n) for n in (1, 2, 3)], TrialState.LOST)
    sync(directory)
    made.append(directory, record, [made.report(n, 10 * n, 0.4) for n in (2, 3)])
    directory.write_trial(replace(record, state=TrialState.COMPLETED, reports=5))
    sync(directory)
    (run,) = recorded(client)[1]
    assert {(step, value) for step, value, _ in history(client, run, "loss")} == {
        (10, 1.0), (20, 0.5), (30, 1 / 3), (20, 0.4), (30, 0.4),
    }  # fmt: skip
    assert '"after_step": 10, "to_step": 30' in run.data.tags["hfsuite.superseded"]


def test_checkpoints_are_models_as_long_as_they_are_kept(client: mlflow.MlflowClient) -> None:
    directory, sweep = made.sweep()
    record = made.trial(directory, 0, [made.report(1, 10, 0.25)])
    kept = made.checkpoint(directory, record, "checkpoint_one")
    for _ in range(2):
        made.keep(directory, record, kept)
        sync(directory)
    (run,) = recorded(client)[1]
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (str(model.status), model.source_run_id, model.tags["step"]) == ("READY", run.info.run_id, "10")
    assert [(each.key, each.value, each.step) for each in model.metrics] == [("loss", 0.25, 10), ("step", 10.0, 10)]
    assert model.tags[runs.CHECKPOINT_PATH] == f"{sweep.path}/trial_000/checkpoint_one"
    assert run.outputs.model_outputs == [], "the sweep may go on, and this one fall out: MLflow forgets no output"
    files = {each.path for each in client.list_logged_model_artifacts(model.model_id, "checkpoint")}
    assert files == {"checkpoint/state.json"}, "no pickles"
    assert len(history(client, run, "loss")) == 1

    directory.write_sweep(replace(sweep, state=TrialState.COMPLETED, ended_at=made.now()))
    for _ in range(2):
        sync(directory)
        (run,) = recorded(client)[1]
        assert [each.model_id for each in run.outputs.model_outputs] == [model.model_id]

    directory.write_trial(replace(record, kept=[]))
    sync(directory)
    assert list(client.search_logged_models([run.info.experiment_id])) == []


def test_two_sweeps_of_one_name_are_two(client: mlflow.MlflowClient) -> None:
    for storage in ("here", "there"):
        directory, _ = made.sweep(storage=storage, sweep_id=storage)
        made.trial(directory, 0, [made.report(1, 10, 0.9)])
        sync(directory)
    (experiment,) = [each for each in client.search_experiments() if each.name == "things"]
    assert len(client.search_runs([experiment.experiment_id])) == 4


def test_a_kept_checkpoint_that_is_gone_is_named(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep(state="completed", ended_at=made.now())
    record = made.trial(directory, 0, [made.report(1, 10, 0.25)])
    made.keep(directory, record, made.checkpoint(directory, record, "checkpoint_one"))
    shutil.rmtree(Path(directory.path, "trial_000/checkpoint_one"))
    (fault,) = sync(directory).faults
    assert "The checkpoint trial_000/checkpoint_one of the sweep" in fault
    (run,) = recorded(client)[1]
    assert [str(each.status) for each in client.search_logged_models([run.info.experiment_id])] != ["READY"]
    assert run.info.status == "FINISHED"


def test_nothing_secret_that_a_trial_says_is_recorded(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep()
    address = "https://ann:hunter2@example.org/x"
    reports = [made.report(1, 10, 0.25, note=f"read {address}")]
    made.trial(directory, 0, reports, TrialState.FAILED, why=f"OSError: {address}", config={"x": address})
    Path(directory.path, "trial_000/failure.txt").write_text(f"OSError: {address}\nAPI_KEY=hunter2")
    sync(directory)
    parent, (run,) = recorded(client)
    text = Path(client.download_artifacts(run.info.run_id, "failure.txt")).read_text()
    for said in (text, str(run.to_dictionary()), str(parent.to_dictionary())):
        assert "hunter2" not in said


def test_a_checkpoint_that_an_older_record_kept_is_not_missed(client: mlflow.MlflowClient) -> None:
    directory, sweep = made.sweep()
    record = made.trial(directory, 0, [made.report(1, 10, 0.25)])
    recorder = Recorder(client, directory)
    recorder.settle_sweep(sweep)
    gone = Snapshot(directory="checkpoint_gone", step=10, metrics={}, timestamp=made.BEGAN * 1_000)
    recorder.settle_trial(sweep, replace(record, kept=[gone]))  # the writer is late: it has been removed meanwhile
    recorder.settle_trial(sweep, record)
    assert recorder.take_faults() == []
    recorder.settle_trial(sweep, replace(record, kept=[gone]))
    (fault,) = recorder.take_faults()
    assert "checkpoint_gone" in fault


def test_what_is_not_finite_leads_no_ranking(client: mlflow.MlflowClient) -> None:
    directory, sweep = made.sweep()
    values = (-math.inf, math.nan, 0.5)
    records = [made.trial(directory, number, [made.report(1, 10, loss)]) for number, loss in enumerate(values)]
    assert [record.number for record in ranked(sweep, records)] == [2]
    sync(directory)
    parent, trials = recorded(client)
    assert parent.data.tags[runs.BEST_RUN] == trials[2].info.run_id


def test_who_compares_runs_is_told_what_their_numbers_depend_on(client: mlflow.MlflowClient) -> None:
    directory, sweep = made.sweep()
    of_loss, of_rows = "the size of evaluation batches", "the number of workers"
    records = [
        made.trial(directory, 0, [made.report(1, 10, 0.5, eval_loss_depends_on=of_loss)]),
        made.trial(directory, 1, [made.report(1, 10, 0.5, eval_loss_depends_on=of_loss)]),
    ]
    facts = {"rows_depend_on": of_rows, "weights_trained_in": "bfloat16", "inputs": []}
    Path(directory.path, records[0].directory, FACTS_FILE).write_text(json.dumps(facts))
    recorder = Recorder(client, directory)
    for record in records:
        recorder.settle_trial(sweep, record)
    assert recorder.remarks == [
        "Weights are trained in bfloat16.",
        "Which rows are trained on or evaluated together depends on the number of workers.",
        "eval_loss depends on the size of evaluation batches.",
    ]
    experiment = client.get_experiment_by_name(sweep.mlflow_experiment)
    for run in client.search_runs([experiment.experiment_id], f"tags.`{runs.KIND}` = 'trial'"):
        assert run.data.tags["reported.eval_loss_depends_on"] == of_loss
