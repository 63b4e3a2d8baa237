"""`Tuner.restore`: trials that failed, and a driver that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import tune

from tests import program, toy
from tests.trials.killed_sweep import REPORTS, TRIALS
from tests.trials.test_trainable import tune_toy

pytestmark = pytest.mark.slow


def steps_of(diary: Path, x: float) -> list[tuple[int, int]]:
    """Step, and the step that it was resumed from, in the order in which a trial trained them."""
    return [(each["step"], each["resumed_from"]) for each in toy.read(diary) if each["x"] == x]


def test_a_failed_trial_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    settings = {"diary": str(tmp_path / "diary"), "fails_at": 3, "fails_once": str(tmp_path / "failed")}
    (failed,) = tune_toy(tmp_path, {"train_loop_config": settings}, workers=1)
    assert failed.error is not None
    restored = tune.Tuner.restore(str(tmp_path / "sweep"), toy.trainer(1).as_trainable(), resume_errored=True)
    (result,) = restored.fit()
    assert result.error is None
    assert result.metrics["training_iteration"] == 3
    assert steps_of(tmp_path / "diary", 1.0) == [(1, 0), (2, 0), (3, 0), (3, 2)]


def test_a_killed_driver_loses_nothing(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    sweep = program.start("-m", "tests.trials.killed_sweep", str(tmp_path))
    program.wait_for(lambda: program.has_lines(diary, 30), sweep)
    sweep.kill()
    sweep.communicate()
    program.wait_for_free_cpus()
    before = len(toy.read(diary))

    results = tune.Tuner.restore(str(tmp_path / "sweep"), toy.trainer(1).as_trainable()).fit()
    assert not results.errors
    assert len(results) == TRIALS
    assert [result.metrics["step"] for result in results] == [REPORTS * 10] * TRIALS
    resumed = [entry["resumed_from"] for entry in toy.read(diary)[before:] if entry["resumed_from"]]
    assert resumed, "what ran goes on from its checkpoint"
    for x in (1.0, 2.0, 3.0):
        assert {step for step, _ in steps_of(diary, x)} == set(range(1, REPORTS + 1)), "no step is missing"
