"""Trial schedulers of Ray Tune's that pause trials, or make them go on from another's checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray import tune
from ray.train import Checkpoint, ScalingConfig
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    ResourceChangingScheduler,
)
from ray.tune.schedulers.resource_changing_scheduler import DistributeResources

from hfsuite import AccelerateTrainer, Experiment, StopTraining
from hfsuite.tracking import runs, store
from hfsuite.tracking.state import TrialState
from tests import toy

pytestmark = pytest.mark.slow


def test_hyperband_pauses_trials_and_lets_the_better_ones_go_on(own_directory: Path) -> None:
    result = toy.experiment.sweep(
        trials=4,
        workers=1,
        searcher="random",
        trial_scheduler=HyperBandScheduler(time_attr="training_iteration", max_t=4, reduction_factor=2),
        set={"reports": 4},
        name="hyperband",
    )
    states = [trial.state for trial in result.trials]
    assert set(states) == {TrialState.COMPLETED, TrialState.PRUNED}
    assert result.best.iterations == 4
    assert result.exit_code == 0
    client = store.open_store()
    for trial in result.trials:
        history = client.get_metric_history(trial.run_id, "loss")
        assert [point.step for point in history] == [10 * (n + 1) for n in range(trial.iterations)]


def test_a_population_exploits_checkpoints(own_directory: Path) -> None:
    diary = own_directory / "diary"
    result = toy.experiment.sweep(
        trials=3,
        workers=1,
        searcher="grid",
        trial_scheduler=population(),
        set={"reports": 6, "diary": str(diary)},
        name="population",
    )
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 3
    steps = toy.read(diary)
    resumed = [entry for entry in steps if entry["resumed_from"]]
    assert resumed, "somebody went on from a checkpoint"
    assert len({entry["pid"] for entry in steps}) == 3, "in the workers that were there from the beginning"
    trained = {(entry["x"], entry["step"] * 10) for entry in steps}
    for trial in result.trials:
        assert (trial.config["x"], trial.metrics["step"]) in trained, "the settings are those that reached the metrics"
    for trial in result.trials:
        run = store.open_store().get_run(trial.run_id)
        assert float(run.data.params["x"]) == trial.config["x"], "and those that MLflow draws from"
        assert f"x={trial.config['x']:.3g} " in run.info.run_name
    parent = runs.find_sweep(store.open_store(), "population")
    assert parent is not None
    assert len(runs.children(store.open_store(), parent)) == 3, "one run a trial, whatever it went through"


def slow_first_member(settings: dict[str, Any]) -> None:
    """The first member of the population is the last to report, and takes long to end. One may end before its time."""
    member = ray.train.get_context().get_experiment_name()
    is_slow = member == "trial_000"
    checkpoint = ray.train.get_checkpoint()
    done = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
    for step in range(done + 1, 5):
        time.sleep(0.7 if is_slow else 0.05)
        if step == 2 and member == settings["fails"]:
            raise ArithmeticError("asked to fail")
        if step == 2 and member == settings["returns"]:
            return
        Path("saved").mkdir()
        Path("saved/step").write_text(str(step))
        try:
            ray.train.report({"loss": settings["x"] / step}, checkpoint=Checkpoint.from_directory("saved"))
        except StopTraining:
            time.sleep(1.0 if is_slow else 0.0)
            raise
        shutil.rmtree("saved")


members = Experiment(
    name="members",
    trainer=AccelerateTrainer(slow_first_member, accelerate_config={}),
    space={"x": tune.uniform(0.5, 2.0)},
    metric="loss",
    mode="min",
    defaults={"x": 1.0, "fails": "", "returns": ""},
)


def test_a_member_keeps_its_working_directory_while_it_still_unwinds_where_it_was_paused(own_directory: Path) -> None:
    """The fast member's actor is free first, and takes the slow one, whose own actor is not done with it."""
    result = members.sweep(trials=2, workers=1, searcher="grid", trial_scheduler=population())
    assert [trial.failure for trial in result.trials] == [None, None]
    assert [trial.iterations for trial in result.trials] == [4, 4]


@pytest.mark.parametrize(
    ("ends", "iterations"),
    [({"fails": "trial_000"}, [1, 4]), ({"fails": "trial_001"}, [4, 1]), ({"returns": "trial_000"}, [1, 4])],
    ids=["the last one fails", "the first one fails", "the last one returns"],
)
def test_a_population_waits_for_no_member_that_has_ended(ends: dict[str, str], iterations: list[int]) -> None:
    result = members.sweep(trials=2, workers=1, searcher="grid", trial_scheduler=population(), set=ends)
    assert [trial.iterations for trial in result.trials] == iterations
    failed = [trial.state == TrialState.FAILED for trial in result.trials]
    assert failed == [trial == ends.get("fails") for trial in ("trial_000", "trial_001")]


def test_a_member_finds_what_it_shall_exploit_though_the_other_one_went_on_before(own_directory: Path) -> None:
    """There is a place for one of them, which saves more meanwhile than Ray Tune keeps."""
    taken = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"] - 1}])
    ray.get(taken.ready())
    experiment = dataclasses.replace(toy.experiment, space={"x": tune.grid_search([0.5, 1.0])})
    given = {"reports": 12, "diary": str(own_directory / "diary")}
    try:
        result = experiment.sweep(trials=2, workers=1, searcher="grid", trial_scheduler=population(every=6), set=given)
    finally:
        ray.util.remove_placement_group(taken)
    assert [trial.failure for trial in result.trials] == [None, None]
    assert [trial.iterations for trial in result.trials] == [12, 12]
    steps = toy.read(own_directory / "diary")
    assert len({entry["pid"] for entry in steps}) == 1, "one after the other"
    assert {entry["x"] for entry in steps if entry["step"] == 7} >= {0.5}, "the better one as it was"
    assert 1.0 not in {entry["x"] for entry in steps if entry["step"] == 7}, "the worse one exploits"


def population(every: int = 2) -> PopulationBasedTraining:
    """Whose members wait for each other at every second report, or another one."""
    return PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=every,
        hyperparam_mutations={"train_loop_config": {"x": tune.uniform(0.5, 2.0)}},
        resample_probability=0.0,
        synch=True,
    )


def waits_for_company(settings: dict[str, Any]) -> None:
    """Trial 0 reports twice. The other one goes on until it has two workers, and then for two reports more."""
    context = ray.train.get_context()
    is_short = context.get_experiment_name() == "trial_000"
    checkpoint = ray.train.get_checkpoint()
    done = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
    left = 2 if is_short or context.get_world_size() > 1 else 200
    for step in range(done + 1, done + left + 1):
        entry = {"step": step, "rank": context.get_world_rank(), "workers": context.get_world_size()}
        toy.note(settings["diary"], {**entry, "trial": context.get_experiment_name()})
        time.sleep(0.3)
        kept = None
        if context.get_world_rank() == 0:
            Path("saved").mkdir(exist_ok=True)
            Path("saved/step").write_text(str(step))
            kept = Checkpoint.from_directory("saved")
        ray.train.report({"loss": settings["x"] / step, "step": step}, checkpoint=kept)


@pytest.mark.parametrize("base", [FIFOScheduler, ASHAScheduler])
def test_a_trial_gets_the_workers_of_one_that_has_ended(base: Any, own_directory: Path) -> None:
    diary = own_directory / "diary"
    experiment = dataclasses.replace(
        members,
        trainer=AccelerateTrainer(
            waits_for_company,
            accelerate_config={},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 2}),
        ),
        space={"x": tune.grid_search([1.0, 0.5])},
        defaults={"x": 1.0, "diary": ""},
    )
    scheduler = ResourceChangingScheduler(
        base(grace_period=300, max_t=1000) if base is ASHAScheduler else base(), DistributeResources(add_bundles=True)
    )
    result = experiment.sweep(
        trials=2, searcher="grid", trial_scheduler=scheduler, set={"diary": str(diary)}, name="changing"
    )
    assert [trial.failure for trial in result.trials] == [None, None]
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 2
    steps = [entry for entry in toy.read(diary) if entry["trial"] == "trial_001" and entry["rank"] == 0]
    assert {entry["workers"] for entry in steps} == {1, 2}
    assert [entry["step"] for entry in steps] == list(range(1, len(steps) + 1)), "from its checkpoint, none twice"
    assert result.trials[1].iterations == len(steps)
    client = store.open_store()
    history = client.get_metric_history(str(result.trials[1].run_id), "loss")
    assert [point.step for point in history] == [entry["step"] for entry in steps]
