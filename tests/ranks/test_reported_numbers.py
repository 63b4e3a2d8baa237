"""What a TransformersTrainer reports: at which step, of how many rows, and after a resume within an epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.report import EARLIER, UNEVALUATED
from tests.ranks.numbers_in_ranks import classifier, padded, sentences
from tests.trainers.training import transformers_trainer

STEPS = {"logging_strategy": "steps", "eval_strategy": "steps", "save_strategy": "steps"}


def function(train_dataset: Any, eval_dataset: Any = None, **config: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    class NeedsSmallBatches(Trainer):
        """As on a device whose memory is too small for more than four rows."""

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if len(inputs["labels"]) > most:
                raise RuntimeError("CUDA out of memory.")
            if logs:
                self.log({"rows": len(inputs["labels"])})
            return super().training_step(model, inputs, *args, **kwargs)

    logs = config.pop("logs", False)
    most, dropout = config.pop("most", 1_000), config.pop("dropout", 0.0)
    rows, loss = config.pop("rows", 64), config.pop("loss", None)
    arguments = {"per_device_train_batch_size": 8, "disable_tqdm": True, "use_cpu": True, "report_to": [],
                 "learning_rate": 1e-3, **config}  # fmt: skip
    return NeedsSmallBatches(
        classifier(dropout),
        TrainingArguments("out", **arguments),
        train_dataset=sentences(rows).remove_columns("row").add_column("row", list(range(rows))),
        eval_dataset=sentences(20, seed=2),
        data_collator=lambda rows: {name: each for name, each in padded([{"row": 0, **row} for row in rows]).items()
                                    if name != "row"},
        compute_loss_func=sum_of_losses if loss == "sum" else None,
    )  # fmt: skip


def sum_of_losses(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(outputs.logits, labels, reduction="sum")


@pytest.mark.slow
def test_the_last_step_is_logged_and_evaluated_itself(tmp_path: Path) -> None:
    config = {**STEPS, "logging_steps": 4, "eval_steps": 4, "save_steps": 4, "max_steps": 10}
    result = transformers_trainer(tmp_path, config, function=function).fit()
    reports = result.metrics_dataframe
    assert reports["step"].tolist() == [4, 8, 10]
    assert reports["learning_rate"].tolist() == pytest.approx([1e-3 * left / 10 for left in (7, 3, 1)])
    assert reports["loss"].nunique() == 3
    assert reports["eval_loss"].nunique() == 3
    assert reports["samples"].tolist() == [32, 64, 80], "an epoch is 64 rows, of eight steps"


@pytest.mark.parametrize(
    ("config", "steps", "earlier"),
    [
        pytest.param({"logging_first_step": True}, [2, 4], [[1], []], id="first step", marks=pytest.mark.slow),
        pytest.param({"eval_delay": 3, "save_strategy": "no"}, [4], [[2]], id="delayed"),
        pytest.param({"eval_delay": 3}, [2, 4], [[], []], id="delayed, with checkpoints", marks=pytest.mark.slow),
        pytest.param({"logs": True}, [2, 4], [[0, 1], [2, 3]], id="logs of its own", marks=pytest.mark.slow),
    ],
)
def test_a_log_without_an_evaluation_joins_the_next_report(
    tmp_path: Path, config: dict[str, Any], steps: list[int], earlier: list[list[int]]
) -> None:
    config = {**STEPS, "logging_steps": 2, "eval_steps": 2, "save_steps": 2, "max_steps": 4, **config}
    reports = transformers_trainer(tmp_path, config, function=function).fit().metrics_dataframe
    assert reports["step"].tolist() == steps
    found = reports[EARLIER].tolist() if EARLIER in reports else [math.nan] * len(steps)
    assert [[each["step"] for each in logged] if isinstance(logged, list) else [] for logged in found] == earlier
    if UNEVALUATED in reports:
        assert reports["eval_loss"].isna().tolist() == [True, False]


@pytest.mark.slow
def test_a_smaller_batch_that_fits_is_what_is_recorded(tmp_path: Path) -> None:
    config = {**STEPS, "save_strategy": "no", "logging_steps": 4, "eval_steps": 4, "max_steps": 8, "most": 4,
              "auto_find_batch_size": True}  # fmt: skip
    result = transformers_trainer(tmp_path, config, function=function).fit()
    assert result.metrics["samples"] == 32
    facts = Path(result.path, "training.json").read_text()
    assert '"per_device": 4' in facts


@pytest.mark.slow
def test_a_training_resumed_within_an_epoch_goes_on_with_the_rows_that_are_left(tmp_path: Path) -> None:
    """Two workers, dropout, rows grouped by length: what a sweep's own experiment trains with."""
    config = {**STEPS, "save_strategy": "steps", "eval_strategy": "no", "logging_steps": 3, "save_steps": 3,
              "max_steps": 12, "rows": 70, "dropout": 0.1, "train_sampling_strategy": "group_by_length"}  # fmt: skip
    whole = transformers_trainer(tmp_path, config, function=function, workers=2).fit()
    # Two epochs of five steps: step 6 is the first of the second one.
    early = next(each for each, metrics in whole.best_checkpoints if metrics["step"] == 6)
    again = transformers_trainer(
        tmp_path, config, function=function, workers=2,
        resume_from=TransformersCheckpoint(early.path, early.filesystem),
    ).fit()  # fmt: skip
    expected = whole.metrics_dataframe.set_index("step").loc[9:]
    found = again.metrics_dataframe.set_index("step")
    assert found["loss"].tolist() == expected["loss"].tolist()
    assert found["samples"].tolist() == expected["samples"].tolist() == [70 + 64, 2 * 70 + 2 * 16]


@pytest.mark.slow
def test_a_loss_that_depends_on_the_batches_is_told(tmp_path: Path) -> None:
    config = {**STEPS, "save_strategy": "no", "logging_steps": 1, "eval_steps": 1, "max_steps": 1}
    result = transformers_trainer(tmp_path, {**config, "loss": "sum"}, function=function).fit()
    assert result.metrics["loss_is_mean_over"] == "neither"
    assert "evaluation batches" in result.metrics["eval_loss_depends_on"]
    usual = transformers_trainer(tmp_path, config, function=function).fit()
    assert usual.metrics["loss_is_mean_over"] == "items"
    assert "eval_loss_depends_on" not in usual.metrics
