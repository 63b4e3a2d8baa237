"""A sweep ends when its space holds nothing more to try, and says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest
from ray import tune
from ray.tune.schedulers import HyperBandScheduler

from tests import toy


@pytest.mark.slow
def test_a_sweep_ends_when_all_has_been_tried(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = dataclasses.replace(toy.experiment, space={"x": tune.choice([0.5, 1.0]), "reports": tune.qrandint(1, 3, 2)})
    result = few.sweep(
        trials=5, workers=1, searcher="tpe", trial_scheduler=HyperBandScheduler(max_t=4, reduction_factor=2), name="few"
    )
    assert [trial.failure for trial in result.trials] == [None, None]
    assert sorted(trial.config["x"] for trial in result.trials) == [0.5, 1.0]
    assert {trial.config["reports"] for trial in result.trials} == {2}
    assert (result.planned, result.exit_code) == (5, 0)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("The search ends here: its space holds 2 configurations, and each of them has been tried.") == 1
    study = optuna.load_study(study_name="few", storage="sqlite:///results/few/optuna.db")
    states = [trial.state.name for trial in study.trials if "hfsuite.state" not in trial.user_attrs]
    assert states == ["COMPLETE"] * 2
