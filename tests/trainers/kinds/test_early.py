"""A training that stops early stops at the same step when it was interrupted and has gone on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray.train import FailureConfig

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from tests.trainers.kinds import early, in_ranks
from tests.trainers.training import transformers_trainer


def function(train_dataset: Any, eval_dataset: Any = None, **config: Any) -> Any:
    return early.stopping(**config)


def states_of(checkpoint: Any) -> dict[str, Any]:
    state = json.loads(Path(checkpoint.path, "trainer_state.json").read_text())
    return dict(state["stateful_callbacks"])


@pytest.mark.slow
@pytest.mark.parametrize("restores", [False, True])
def test_an_attempt_after_a_failure_stops_where_the_first_would_have(tmp_path: Path, restores: bool) -> None:
    trainer = transformers_trainer(
        tmp_path, {"mark": str(tmp_path / "failed"), "restores": restores}, function=function, workers=2
    )
    trainer.run_config.failure_config = FailureConfig(max_failures=1)
    result = trainer.fit()
    assert Path(tmp_path, "failed").exists()
    assert (result.metrics["step"], result.metrics["eval_seen"]) == (early.STOPS_AT, early.STOPS_AT)
    assert manifest.verify(result.checkpoint)["step"] == early.STOPS_AT
    assert states_of(result.checkpoint)["EarlyStoppingCallback"]["attributes"] == {
        "early_stopping_patience_counter": early.PATIENCE
    }


@pytest.mark.slow
def test_callbacks_go_on_with_their_state_and_are_built_as_this_training_builds_them(tmp_path: Path) -> None:
    first = transformers_trainer(tmp_path, {"label": "first"}, function=function).fit()
    assert first.metrics["step"] == early.STOPS_AT
    early_one = next(each for each, metrics in first.best_checkpoints if metrics["step"] == 2)
    again = transformers_trainer(
        tmp_path, {"label": "second"}, function=function, resume_from=TransformersCheckpoint(early_one.path)
    ).fit()
    assert (again.metrics["step"], again.metrics["eval_seen"]) == (early.STOPS_AT, early.STOPS_AT)
    assert states_of(again.checkpoint)["Counts"] == {
        "args": {"label": "second"}, "attributes": {"seen": early.STOPS_AT}
    }  # fmt: skip


@pytest.mark.slow
def test_a_trial_that_is_taken_up_again_stops_where_it_would_have(own_directory: Path) -> None:
    mark = str(own_directory / "failed")
    experiment = in_ranks.experiment(["early.stopping"], metric="eval_score", mode="max", mark=mark)
    first = experiment.sweep(searcher="grid", trial_scheduler="fifo", name="early")
    assert "Interrupted" in (first.trials[0].failure or "")
    again = experiment.resume("early", retry_failed=True)
    (trial,) = again.trials
    reports = in_ranks.reports_of(trial)
    assert [report["step"] for report in reports] == list(range(1, early.STOPS_AT + 1))
    assert reports[-1]["eval_seen"] == early.STOPS_AT
    assert manifest.verify(trial.checkpoint)["step"] == 2, "the best, of the attempt that failed"
