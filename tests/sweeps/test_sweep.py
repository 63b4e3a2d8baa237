"""A whole sweep: what comes back, what MLflow has, and that it can be had again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from hfsuite.errors import MetricNotReported, TrialFailed
from hfsuite.sweeps.result import SweepResult
from hfsuite.tracking import runs, store
from hfsuite.tracking.state import TrialState
from tests import toy

TRIALS = 8  # of which some must be worse than those before them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(autouse=True)
def in_folder(folder: Path, own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of this file look at one folder, with its tracking store."""
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Iterator[SweepResult]:
    """TPE with ASHA: the second report of each trial is compared, and the worse ones end there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield toy.experiment.sweep(
            trials=TRIALS,
            seed=7,
            trial_scheduler=ASHAScheduler(max_t=3, grace_period=1, reduction_factor=2),
            name="first",
        )


@pytest.fixture
def client(sweep: SweepResult) -> mlflow.MlflowClient:
    return store.open_store()


def children(client: mlflow.MlflowClient, sweep: SweepResult) -> list[Any]:
    return runs.children(client, client.get_run(sweep.run_id))


def test_the_best_trial_is_the_best_by_its_metric(sweep: SweepResult) -> None:
    assert len(sweep.trials) == TRIALS
    assert sweep.best.metrics["loss"] == min(trial.metrics["loss"] for trial in sweep.trials)
    assert sweep.best.config["x"] == min(trial.config["x"] for trial in sweep.trials)
    assert sweep.best.state is TrialState.COMPLETED
    assert sweep.exit_code == 0


def test_the_best_checkpoint_belongs_to_the_best_metrics(sweep: SweepResult) -> None:
    assert sweep.best.checkpoint is not None
    state = json.loads(Path(sweep.best.checkpoint.path, "state.json").read_text())
    assert state["step"] * 10 == sweep.best.metrics["step"] == 20


def test_a_trial_stopped_by_the_scheduler_is_pruned_everywhere(sweep: SweepResult, client: mlflow.MlflowClient) -> None:
    pruned = [trial for trial in sweep.trials if trial.iterations < 3]
    assert pruned
    for trial in pruned:
        assert trial.state is TrialState.PRUNED
        run = client.get_run(trial.run_id)
        assert (run.info.status, run.data.tags[runs.STATE]) == ("KILLED", "pruned")
        assert run.data.tags[runs.WHY] == trial.why == f"AsyncHyperBandScheduler at step {10 * trial.iterations}"
    optuna = pytest.importorskip("optuna")
    study = optuna.load_study(study_name="first", storage=f"sqlite:///{sweep.path}/optuna.db")
    states = [trial.state.name for trial in study.trials]
    assert states.count("PRUNED") == len(pruned)
    assert states.count("COMPLETE") == TRIALS - len(pruned)


def test_mlflow_has_one_parent_and_one_child_a_trial(sweep: SweepResult, client: mlflow.MlflowClient) -> None:
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], f"tags.`{runs.SWEEP}` = 'first'")
    assert len(found) == 1 + TRIALS
    parent = client.get_run(sweep.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags[runs.BEST_RUN] == sweep.best.run_id
    assert parent.data.params["searcher"] == "tpe"
    assert parent.data.params["space.x"] == "0.5 to 2"
    assert [run.info.run_id for run in children(client, sweep)] == [trial.run_id for trial in sweep.trials]


def test_a_run_has_its_parameters_and_every_metric_at_its_optimizer_step(
    sweep: SweepResult, client: mlflow.MlflowClient
) -> None:
    run = client.get_run(sweep.best.run_id)
    assert run.info.status == "FINISHED"
    assert float(run.data.params["x"]) == sweep.best.config["x"]
    assert run.data.params["kind"] == sweep.best.config["kind"]
    assert run.data.params["num_workers"] == "2"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in history] == [10, 20, 30]
    assert history[1].value == sweep.best.metrics["loss"] < history[2].value, "the best report is not the last"
    assert run.data.metrics["epoch"] == 3, "a number of NumPy's is a number"
    assert "pid" not in run.data.metrics


def test_the_best_checkpoints_are_models_and_others_are_gone(sweep: SweepResult, client: mlflow.MlflowClient) -> None:
    best = sorted(sweep.trials, key=lambda trial: trial.metrics["loss"])[:3]
    kept = {trial.number: trial for trial in sweep.trials if trial.checkpoint is not None}
    assert set(kept) == {trial.number for trial in best}
    models = client.search_logged_models(
        [client.get_run(sweep.run_id).info.experiment_id], filter_string=f"tags.`{runs.SWEEP}` = 'first'"
    )
    assert {model.source_run_id for model in models} == {trial.run_id for trial in kept.values()}
    for model in models:
        state = Path(model.artifact_location.removeprefix("file://"), "checkpoint", "state.json")
        assert json.loads(state.read_text())["step"] * 10 == int(model.tags["step"])
    assert len(list(Path(sweep.path).glob("trial_*/checkpoint_*_0*"))) == 3


def test_trial_directories_have_numbers_and_outputs(sweep: SweepResult) -> None:
    assert [Path(trial.path).name for trial in sweep.trials] == [f"trial_{n:03d}" for n in range(TRIALS)]
    assert all(Path(trial.path, "rank_1.log").exists() for trial in sweep.trials)


@pytest.mark.slow
def test_the_same_seed_proposes_the_same_and_reaches_the_same_losses(sweep: SweepResult) -> None:
    again = toy.experiment.sweep(trials=2, seed=7, trial_scheduler="fifo", name="again")
    assert [trial.config for trial in again.trials] == [trial.config for trial in sweep.trials[:2]]
    for first, second in zip(sweep.trials, again.trials, strict=False):
        one, two = (
            [point.value for point in store.open_store().get_metric_history(trial.run_id, "loss")]
            for trial in (first, second)
        )
        assert one == two[: len(one)]


def test_json_says_all_of_it(sweep: SweepResult) -> None:
    said = json.loads(json.dumps(sweep.as_json()))
    assert said["best"]["number"] == sweep.best.number
    assert [trial["state"] for trial in said["trials"]] == [str(trial.state) for trial in sweep.trials]
    assert said["exit_code"] == 0


def test_a_dataframe_has_a_row_a_trial(sweep: SweepResult) -> None:
    frame = sweep.dataframe()
    assert list(frame["trial"]) == list(range(TRIALS))
    assert {"state", "config.x", "config.kind", "loss", "run_id"} <= set(frame.columns)


def test_train_is_one_tracked_run(sweep: SweepResult) -> None:
    trial = toy.experiment.train({"x": 0.25, "reports": 2}, workers=1, name="single")
    assert (trial.state, trial.iterations, trial.metrics["world_size"]) == (TrialState.COMPLETED, 2, 1)
    run = store.open_store().get_run(trial.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["x"] == "0.25"
    assert "mlflow.parentRunId" not in run.data.tags


def test_failed_trials_are_told_apart_from_good_ones() -> None:
    marker = Path("failed_once").absolute()  # the first trial fails, the second finds the marker and does not
    result = toy.experiment.sweep(
        trials=2,
        searcher="random",
        trial_scheduler="fifo",
        workers=3,  # so that there is room for one trial at a time
        set={"fails_at": 2, "fails_once": str(marker)},
        name="half",
    )
    assert [trial.state for trial in result.trials] == [TrialState.FAILED, TrialState.COMPLETED]
    assert result.exit_code == 4
    failure = result.trials[0].failure or ""
    assert "trial_000, rank 2: ArithmeticError: asked to fail at step 2" in failure
    assert "raise ArithmeticError" in failure
    run = store.open_store().get_run(result.trials[0].run_id)
    assert (run.info.status, run.data.tags[runs.STATE]) == ("FAILED", "failed")
    assert result.best.number == 1


@pytest.mark.slow
def test_the_best_checkpoint_outlives_later_ones_that_were_not_measured() -> None:
    trial = toy.experiment.train({"reports": 4, "measures_every": 2}, workers=1, name="unmeasured")
    assert trial.metrics["step"] == 30, "measured at 10 and 30, saved at 10, 20, 30, 40"
    assert trial.checkpoint is not None
    assert json.loads(Path(trial.checkpoint.path, "state.json").read_text())["step"] == 3


@pytest.mark.slow
def test_a_training_that_fails_raises_with_the_ranks_traceback() -> None:
    with pytest.raises(TrialFailed, match="asked to fail at step 1") as caught:
        toy.experiment.train({"fails_at": 1}, workers=1, name="broken")
    assert "raise ArithmeticError" in str(caught.value)


@pytest.mark.slow
def test_a_metric_that_no_report_carries_ends_the_sweep_at_the_first_report() -> None:
    wrong = toy.Experiment(
        name="wrong",
        trainer=toy.trainer(1),
        space=toy.experiment.space,
        metric="los",
        mode="min",
        defaults=toy.DEFAULTS,
    )
    diary = Path("diary_of_wrong").absolute()
    with pytest.raises(MetricNotReported, match=r"'los' is not in .*Did you mean 'loss'.*Reported: epoch, loss"):
        wrong.sweep(trials=3, set={"diary": str(diary), "reports": 30}, name="wrong")
    assert len(toy.read(diary)) <= 3, "it must not train on after the first report"
    parent = runs.find_sweep(store.open_store(), "wrong")
    assert parent is not None
    assert parent.info.status == "FAILED"


@pytest.mark.slow
def test_two_sweeps_of_one_process_take_turns(own_directory: Path) -> None:
    before = dict(os.environ)
    diaries = [own_directory / "one", own_directory / "another"]
    with ThreadPoolExecutor(2) as pool:
        begun = [
            pool.submit(toy.experiment.sweep, trials=3, name=f"{diary.name}-of-two", set={"diary": str(diary)})
            for diary in diaries
        ]
        results = [each.result() for each in begun]
    first, second = sorted((toy.read(diary) for diary in diaries), key=lambda entries: entries[0]["at"])
    assert max(entry["at"] for entry in first) < min(entry["at"] for entry in second)
    for result in results:
        assert [str(trial.state) for trial in result.trials if trial.failure] == []
        assert len(result.trials) == 3
        assert result.tracking_fault is None
        assert all(Path(trial.path).parent.name == result.name for trial in result.trials)
    assert dict(os.environ) == before, "Ray Tune's settings are as before"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered")  # ASHA's, where nothing but NaN was reported yet
def test_a_metric_that_is_not_a_number_is_recorded_as_such_and_never_best() -> None:
    """A diverged training: its reports carry the metric, so the sweep goes on, and another trial is best."""
    diverging = toy.Experiment(
        name="diverging",
        trainer=toy.trainer(1),
        space={"x": tune.grid_search([math.nan, 1.0])},
        metric="loss",
        mode="min",
        defaults=toy.DEFAULTS,
    )
    result = diverging.sweep(searcher="grid", trial_scheduler="asha", name="diverging")
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 2
    assert result.best.config["x"] == 1.0
    history = store.open_store().get_metric_history(result.trials[0].run_id, "loss")
    assert len(history) == 3
    assert all(math.isnan(point.value) for point in history)
    assert json.dumps(result.as_json(), allow_nan=False), "JSON knows no NaN"
