"""Trials that share GPUs by measure, on a second node of the session whose GPUs are made up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.tune.schedulers import PopulationBasedTraining

from hfsuite.sweeps import remaining
from hfsuite.sweeps.result import SweepResult
from hfsuite.tracking import store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.trials.waiting_actor import WaitingActor
from tests.sweeps import shared_gpu

GPUS, CPUS = 2, 4


@pytest.fixture(scope="module")
def _gpus() -> Iterator[None]:
    """A node beside the session's own, as Ray's own tests make one."""
    asked = RayParams(gcs_address=ray.get_runtime_context().gcs_address, num_cpus=CPUS, num_gpus=GPUS)
    node = Node(asked, head=False, shutdown_at_exit=False, spawn_reaper=False)
    try:
        wait_for(lambda: ray.cluster_resources().get("GPU") == GPUS)
        yield
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=True)
    wait_for(lambda: not ray.cluster_resources().get("GPU"))


def wait_for(is_so: Callable[[], bool]) -> None:
    """Returns when it is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def swept(folder: Path, experiment: Any = shared_gpu.experiment, **asked: Any) -> SweepResult:
    """A sweep of trials whose steps are made up."""
    fixed = {"folder": str(folder)} | asked.pop("set", {})
    return experiment.sweep(**{"trial_scheduler": "fifo", "searcher": "random", "gpu": True, "set": fixed} | asked)


def gpus_of(result: SweepResult) -> dict[str, Any]:
    """What the sweep's record says of its GPUs."""
    return SweepDirectory.at(str(Path(result.path).parent), result.name).read_sweep().gpus


@pytest.mark.slow
@pytest.mark.usefixtures("_gpus")
def test_as_many_trials_share_a_gpu_as_are_faster_together(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_in, own = [], WaitingActor.remote
    monkeypatch.setattr(WaitingActor, "remote", lambda actor, **given: begun_in.append(actor) or own(actor, **given))
    result = swept(own_directory, trials=10)
    assert [str(trial.state) for trial in result.trials] == ["completed"] * 10
    assert gpus_of(result)["trials_a_gpu"] > 1
    assert min(trial.gpu_share for trial in result.trials) < 0.7
    client = store.open_store()
    shares = [client.get_run(trial.run_id).data.tags["hfsuite.gpu_share"] for trial in result.trials]
    assert shares == [str(trial.gpu_share) for trial in result.trials]
    assert int(client.get_run(result.run_id).data.tags["hfsuite.gpus.trials_a_gpu"]) > 1
    assert len(begun_in) > GPUS, "so do trials that come to share one"
    assert sum(not trial.warm_start for trial in result.trials) <= CPUS, "an actor that waits has the next trial"


@pytest.mark.slow
@pytest.mark.usefixtures("_gpus")
def test_a_trial_that_lacks_memory_beside_others_is_tried_again_alone(
    own_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = replace(shared_gpu.experiment, space={"gigabytes": tune.grid_search([1.05, 1.1, 9.0, 1.2, 1.3, 1.4])})
    result = swept(own_directory, experiment, searcher="grid", set={"total": 12, "steps": 100, "every": 25})
    assert [str(trial.state) for trial in result.trials] == ["completed"] * 6
    assert [trial.iterations for trial in result.trials] == [4] * 6
    large = result.trials[2]
    assert large.config["gigabytes"] == 9
    assert large.gpu_share == 1
    assert not Path(large.path, "failure.txt").exists()
    told = capfd.readouterr().err
    assert told.count("A trial ran out of GPU memory beside 1 other, and is tried again alone.") == 1
    assert gpus_of(result)["trials_a_gpu"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("_gpus")
def test_a_trial_that_lacks_memory_alone_has_failed(own_directory: Path) -> None:
    result = swept(own_directory, trials=2, set={"total": 1})
    assert [str(trial.state) for trial in result.trials] == ["failed"] * 2
    assert "out of memory" in str(result.trials[0].failure)


@pytest.mark.slow
@pytest.mark.usefixtures("_gpus")
def test_trials_of_two_ranks_share_two_gpus_and_each_rank_has_its_own(own_directory: Path) -> None:
    result = swept(own_directory, trials=4, workers=2, gpu=0.5, set={"steps": 40})
    assert [str(trial.state) for trial in result.trials] == ["completed"] * 4
    seen = [line.split() for line in (own_directory / "ranks").read_text().splitlines()]
    by_trial: dict[str, set[str]] = {}
    for trial, _, name in seen:
        by_trial.setdefault(trial, set()).add(name)
    assert all(len(names) == GPUS for names in by_trial.values()), seen
    assert gpus_of(result)["trials_a_gpu"] == 2
    assert min(trial.gpu_share for trial in result.trials) < 0.75


@pytest.mark.slow
@pytest.mark.usefixtures("_gpus")
def test_a_trial_leaves_its_neighbour_for_a_gpu_that_nobody_waits_for(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remaining, "WORTH", 0.0)
    experiment = replace(shared_gpu.experiment, space={"step_s": tune.grid_search([0.1, 0.101, 0.102])})
    result = swept(
        own_directory, experiment, searcher="grid", at_end="spread",
        set={"steps": 200, "every": 10, "busy": 0.8, "saves": True},
    )  # fmt: skip
    assert [str(trial.state) for trial in result.trials] == ["completed"] * 3
    assert [trial.iterations for trial in result.trials] == [20] * 3
    assert len({trial.metrics["loss"] for trial in result.trials}) == 1, "as if they had trained in one piece"
    assert capfd.readouterr().err.count("goes on without neighbours on its GPU.") == 1
    seen = [line.split() for line in (own_directory / "ranks").read_text().splitlines()]
    gpus = {trial: {name for each, _, name in seen if each == trial} for trial, _, _ in seen}
    (moved,) = [trial for trial, names in gpus.items() if len(names) == 2]
    assert 0.5 < result.trials[int(moved[-3:])].gpu_share < 1
    assert result.trials[int(moved[-3:])].warm_start, "on the GPU to which it went"


@pytest.mark.slow
@pytest.mark.usefixtures("_gpus")
def test_a_population_shares_gpus_too(own_directory: Path) -> None:
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations={"train_loop_config": {"lr": tune.loguniform(1e-3, 1e-1)}},
    )
    result = swept(own_directory, trials=4, searcher="grid", trial_scheduler=scheduler, set={"steps": 60, "every": 15})
    assert [str(trial.state) for trial in result.trials] == ["completed"] * 4
