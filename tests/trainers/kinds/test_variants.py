"""Arguments and callbacks that users give: the same numbers as without this project, and nothing lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from tests.trainers.kinds import in_ranks
from tests.trainers.training import checkpoints, transformers_trainer

SAME = [
    "variants.predicting", "variants.flattened", "variants.smoothed", "variants.smoothed_language",
    "variants.adafactor", "variants.plateau", "variants.included", "variants.on_boards", "variants.logging_in_one_rank",
    "variants.without_a_number", "variants.adapted", "variants.adapted_reentrant_all_used", "variants.compiled",
    "variants.compiled_again", "variants.compiled_by_inductor",
]  # fmt: skip
ONLY_RUN = ["variants.noisy", "variants.stopping", "variants.stopping_without_checkpoints"]
USUAL = ["variants.predicting", "variants.logging_in_one_rank", "variants.adapted"]
EVERY = [*SAME, *ONLY_RUN]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", in_ranks.marked(SAME, USUAL))
def test_the_numbers_are_those_of_one_process_without_this_project(kind: str, found: in_ranks.Compared) -> None:
    reports = in_ranks.reports_of(found.trials[kind])
    in_ranks.assert_same(reports, found.alone[kind])
    rates = [each["learning_rate"] for each in found.alone[kind] if "learning_rate" in each]
    assert [each["learning_rate"] for each in reports] == pytest.approx(rates)
    assert "reported.eval_loss_depends_on" not in found.tags[kind]


@pytest.mark.slow
def test_a_metric_that_is_no_number_is_recorded_as_what_it_is(others: in_ranks.Compared) -> None:
    metrics, tags = (each["variants.without_a_number"] for each in (others.trials, others.tags))
    assert math.isnan(metrics.metrics["eval_score"])
    assert tags["infinite.eval_other"] == "+inf at step 1, +inf at step 2, +inf at step 3"
    assert tags["reported.eval_note"] == "none"


@pytest.mark.slow
def test_noise_on_embeddings_is_none_in_evaluations(others: in_ranks.Compared) -> None:
    assert str(others.trials["variants.noisy"].state) == "completed"
    assert "reported.eval_loss_depends_on" not in others.tags["variants.noisy"]


@pytest.mark.parametrize("kind", in_ranks.marked(["variants.stopping", "variants.stopping_without_checkpoints"], USUAL))
def test_a_callback_ends_a_trial_with_an_evaluation(kind: str, found: in_ranks.Compared) -> None:
    reports = in_ranks.reports_of(found.trials[kind])
    assert [each["step"] for each in reports] == [1, 2]
    assert all("eval_loss" in each for each in reports)
    assert reports[-1]["training_finished"] is True


def function(train_dataset: Any, eval_dataset: Any = None, *, kind: str) -> Any:
    return in_ranks.kind_named(kind)()


@pytest.mark.slow
def test_a_checkpoint_that_a_callback_asks_for_is_of_its_own_step(tmp_path: Path) -> None:
    """Between two evaluations: it was taken for one of the next report's step."""
    config = {"kind": "variants.saving_between_reports"}
    result = transformers_trainer(tmp_path, config, function=function, workers=2).fit()
    stored = [TransformersCheckpoint(each) for each in checkpoints(result.path)]
    assert [manifest.verify(each)["step"] for each in stored] == [2, 3, 4]
    assert result.metrics_dataframe["step"].tolist() == [2, 3, 4]
    assert result.metrics_dataframe["eval_loss"].isna().tolist() == [False, True, False]


@pytest.mark.slow
def test_what_a_training_lacks_is_said_and_costs_no_other_trial(own_directory: Path) -> None:
    kinds = ["variants.on_boards_that_are_missing", "variants.adapted_reentrant", "variants.best_at_end",
             "variants.smoothed"]  # fmt: skip
    trials = in_ranks.swept(kinds)
    assert [str(trials[kind].state) for kind in kinds] == ["failed", "failed", "failed", "completed"]
    assert "WandbCallback requires wandb to be installed" in (trials[kinds[0]].failure or "")
    assert "Expected to mark a variable ready only once" in (trials[kinds[1]].failure or ""), "as DDP alone"
    assert "Leave out `load_best_model_at_end=True`" in (trials[kinds[2]].failure or "")
