"""Trial schedulers of Ray Tune's that pause trials, or make them go on from another's checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import tune
from ray.tune.schedulers import HyperBandScheduler, PopulationBasedTraining

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
        trial_scheduler=PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=2,
            hyperparam_mutations={"train_loop_config": {"x": tune.uniform(0.5, 2.0)}},
            resample_probability=0.0,
            synch=True,
        ),
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
    parent = runs.find_sweep(store.open_store(), "population")
    assert parent is not None
    assert len(runs.children(store.open_store(), parent)) == 3, "one run a trial, whatever it went through"
