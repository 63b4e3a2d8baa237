"""Groups of workers on GPUs: where ranks compute, what they leave, and what a fault costs."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from hfsuite.tracking import store
from hfsuite.tracking.state import TrialState
from tests.benchmarks import gpu_workload
from tests.gpu import loops

SEARCH = {"searcher": "random", "trial_scheduler": "fifo"}
PYTORCH_GIVES_UP_WITHIN_S = 90  # after a timeout its watchdog asks all ranks what they did, and then aborts
Record = Callable[[str, object], None]


def sweep(diary: Path, trials: int, experiment: Any = loops.experiment, **options: Any) -> Any:
    given = options.pop("set", {})
    return experiment.sweep(trials=trials, set={"diary": str(diary), **given}, **({"gpu": 1.0} | SEARCH | options))


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_each_rank_has_a_gpu_of_its_own(gpus: int, own_directory: Path) -> None:
    result = sweep(own_directory / "diary", 2, workers=gpus)
    assert [trial.failure for trial in result.trials] == [None, None]
    assert {each["computed_in"] for each in loops.read(own_directory / "diary", "trained")} == {"torch.bfloat16"}
    begun = loops.read(own_directory / "diary", "begins")
    for trial in {each["trial"] for each in begun}:
        ranks = [each for each in begun if each["trial"] == trial]
        assert sorted(each["rank"] for each in ranks) == list(range(gpus))
        assert len({each["gpu"] for each in ranks}) == gpus, "no two ranks compute on one GPU"
        assert all(each["device"] == each["of_ray"] for each in ranks), "Accelerate takes the one that Ray gave"
        assert {each["backend"] for each in ranks} == {"nccl"}


def test_as_many_trials_run_at_once_as_there_are_gpus(own_directory: Path, record_property: Record) -> None:
    there = torch.cuda.device_count()
    result = sweep(own_directory / "diary", 2 * there, workers=1, set={"seconds": 1.0})
    assert [trial.failure for trial in result.trials] == [None] * 2 * there
    at_once = largest_crowd(own_directory / "diary")
    assert {gpu: len(trials) for gpu, trials in at_once.items()} == dict.fromkeys(at_once, 1)
    assert len(at_once) == there
    record_property("at once", there)


@pytest.mark.parametrize("gpus", [1, 2])
def test_trials_share_gpus_as_they_are_measured(gpus: int, own_directory: Path, record_property: Record) -> None:
    given = {"trials": 10 * torch.cuda.device_count() // gpus, "workers": gpus, "set": {"steps": 300}, **SEARCH}
    alone, shared = (gpu_workload.experiment.sweep(gpu=gpu, **given) for gpu in (1.0, "auto"))
    assert [trial.failure for trial in shared.trials] == [None] * given["trials"]
    assert [trial.metrics["loss"] for trial in shared.trials] == [trial.metrics["loss"] for trial in alone.trials]
    least = min(trial.gpu_share for trial in shared.trials)
    record_property("share", least)
    assert least <= 0.5


def test_two_trials_share_a_gpu(own_directory: Path, record_property: Record) -> None:
    there = torch.cuda.device_count()
    result = sweep(own_directory / "diary", 4 * there, workers=1, gpu=0.5, set={"seconds": 1.0})
    assert [trial.failure for trial in result.trials] == [None] * 4 * there
    at_once = largest_crowd(own_directory / "diary")
    assert [len(trials) for trials in at_once.values()] == [2] * there
    record_property("at once", 2 * there)


def largest_crowd(diary: Path) -> dict[str, set[str]]:
    """The trials that trained on each GPU at the moment when most did."""
    moments = [(each["at"], each) for each in loops.read(diary, "begins") + loops.read(diary, "ends")]
    gpus = {each["trial"]: each["gpu"] for each in loops.read(diary, "begins")}
    running: set[str] = set()
    largest: set[str] = set()
    for _, each in sorted(moments, key=lambda moment: moment[0]):
        running = running | {each["trial"]} if each["event"] == "begins" else running - {each["trial"]}
        largest = max(largest, running, key=len)
    return {gpu: {trial for trial in largest if gpus[trial] == gpu} for gpu in {gpus[trial] for trial in largest}}


def test_twenty_warm_trials_leave_nothing_in_gpu_memory(own_directory: Path, record_property: Record) -> None:
    result = sweep(own_directory / "diary", 20, workers=torch.cuda.device_count())
    assert [trial.warm_start for trial in result.trials] == [False] + [True] * 19
    used = used_mb(own_directory / "diary")
    record_property("MB at the third and the twentieth trial", ", ".join(f"{of[2]:.0f}, {of[19]:.0f}" for of in used))
    assert all(of[19] - of[2] <= 16 for of in used)


def test_a_trial_without_memory_harms_no_later_one(own_directory: Path) -> None:
    space = {"x": tune.uniform(0.5, 2.0), "does": tune.grid_search(["", "runs out of memory", "", ""])}
    experiment = dataclasses.replace(loops.experiment, space=space)
    gpus = torch.cuda.device_count()  # one trial at a time, on all of them
    result = sweep(own_directory / "diary", 4, experiment, searcher="grid", workers=gpus)
    completed, failed = TrialState.COMPLETED, TrialState.FAILED
    assert [trial.state for trial in result.trials] == [completed, failed, completed, completed]
    assert "OutOfMemoryError" in str(result.trials[1].failure)
    used = used_mb(own_directory / "diary")
    # The second and the fourth trial: each behind one trial of its workers.
    assert all(abs(of[3] - of[1]) <= 64 for of in used), "its workers are gone, and their memory with them"


def used_mb(diary: Path) -> list[list[float]]:
    """What was in use on each rank's GPU at the beginning of each trial."""
    begun = loops.read(diary, "begins")
    ranks = sorted({each["rank"] for each in begun})
    return [[each["used_mb"] for each in begun if each["rank"] == rank] for rank in ranks]


@pytest.mark.gpus(2)
def test_a_hung_collective_is_ended_by_the_timeout(own_directory: Path, record_property: Record) -> None:
    space = {"x": tune.uniform(0.5, 2.0), "does": tune.grid_search(["", "hangs", ""])}
    experiment = dataclasses.replace(loops.experiment, space=space)
    began = time.monotonic()
    result = sweep(own_directory / "diary", 3, experiment, searcher="grid", workers=torch.cuda.device_count())
    record_property("s of the hung trial", round(result.trials[1].seconds))
    record_property("of all three", round(time.monotonic() - began))
    failure = str(result.trials[1].failure)
    record_property("failure", failure.splitlines()[0])
    assert "collective operation timeout" in failure, "PyTorch's own words"
    completed, failed = TrialState.COMPLETED, TrialState.FAILED
    assert [trial.state for trial in result.trials] == [completed, failed, completed]
    assert result.trials[1].seconds < loops.TIMEOUT_S + PYTORCH_GIVES_UP_WITHIN_S


@pytest.mark.gpus(2)
def test_a_population_takes_over_checkpoints_where_they_lie(own_directory: Path, record_property: Record) -> None:
    members, diary = max(2, min(4, torch.cuda.device_count())), own_directory / "diary"
    population = PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=2, quantile_fraction=0.5, resample_probability=0.0,
        hyperparam_mutations={"train_loop_config": {"x": tune.uniform(0.5, 2.0)}}, synch=True,
    )  # fmt: skip
    given = {"steps": 8, "seconds": 0.2}
    result = sweep(diary, members, searcher="grid", trial_scheduler=population, workers=1, set=given, name="population")
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * members
    taken = [each for each in loops.read(diary, "resumes") if f"/{each['trial']}/" not in each["path"]]
    assert taken, "a member went on from another's checkpoint, in that one's directory"
    assert all("/population/trial_" in each["path"] for each in taken)
    trained = loops.read(diary, "trained")
    assert len({each["pid"] for each in trained}) == members, "in the workers that were there from the beginning"
    client = store.open_store()
    for trial in result.trials:
        ours = [each for each in trained if each["trial"] == Path(trial.path).name]
        changes = {0: ours[0]["x"]} | {each["step"]: each["x"] for each in ours}  # the last word at each step
        seen = {point.step: point.value for point in client.get_metric_history(trial.run_id, "config.x")}
        assert trial.config["x"] == ours[-1]["x"]
        if len({each["x"] for each in ours}) > 1:  # it has taken another's place
            assert len(set(seen.values())) > 1, "MLflow knows of the change"
            assert seen[max(seen)] == trial.config["x"]
        assert all(changes[step] == value for step, value in seen.items()), (changes, seen)
    record_property("exploits", len(taken))


def test_a_sweep_says_which_gpus_there_are_and_how_busy(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    result = sweep(own_directory / "diary", 1, workers=1, set={"seconds": 0.5})
    client = store.open_store()
    environment = json.loads(Path(client.download_artifacts(result.run_id, "provenance/environment.json")).read_text())
    there = range(torch.cuda.device_count())
    assert environment["gpu"]["names"][: len(there)] == [torch.cuda.get_device_name(number) for number in there]
    measured = client.get_run(result.run_id).data.metrics
    assert {f"system/gpu_{number}_utilization_percentage" for number in there} <= measured.keys()
