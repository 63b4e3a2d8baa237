"""Training by epochs: what `fit()` returns, and going on from its checkpoint."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from tests.tiny import train_function, train_function_local_dataset
from tests.trainers.training import checkpoints, ray_datasets, transformers_trainer


@pytest.mark.parametrize(
    ("save_strategy", "workers"),
    [
        pytest.param("no", 1, marks=pytest.mark.slow),
        pytest.param("no", 2, marks=pytest.mark.slow),
        pytest.param("epoch", 1, marks=pytest.mark.slow),
        pytest.param("epoch", 2, marks=pytest.mark.slow),
    ],
)
def test_four_epochs_then_a_fifth_from_the_checkpoint(tmp_path: Path, save_strategy: str, workers: int) -> None:
    config = {"epochs": 4, "save_strategy": save_strategy}
    result = transformers_trainer(tmp_path, config, workers=workers, datasets=ray_datasets()).fit()

    assert result.metrics["epoch"] == 4
    assert result.metrics["training_iteration"] == 4
    assert "eval_loss" in result.metrics
    assert isinstance(result.checkpoint, TransformersCheckpoint)
    assert manifest.verify(result.checkpoint)["world_size"] == workers
    assert len(checkpoints(result.path)) == (4 if save_strategy == "epoch" else 1)

    config = {"epochs": 5, "save_strategy": save_strategy}
    fifth = transformers_trainer(
        tmp_path, config, workers=workers, datasets=ray_datasets(), resume_from=result.checkpoint
    ).fit()

    assert fifth.metrics["epoch"] == 5
    assert fifth.metrics["training_iteration"] == 1
    assert fifth.metrics["step"] == result.metrics["step"] * 5 // 4
    assert "eval_loss" in fifth.metrics
    assert isinstance(fifth.checkpoint, TransformersCheckpoint)
    assert fifth.path != result.path


@pytest.mark.slow
def test_who_goes_on_from_a_checkpoint_trains_with_its_own_learning_rate(tmp_path: Path) -> None:
    steps = {"save_strategy": "steps", "logging_strategy": "steps", "eval_strategy": "no"}
    steps |= {"save_steps": 2, "logging_steps": 2, "max_steps": 4, "lr_scheduler_type": "constant"}
    first = transformers_trainer(
        tmp_path, {**steps, "learning_rate": 1e-2}, workers=1, function=train_function_local_dataset
    ).fit()
    config = {**steps, "max_steps": 8, "learning_rate": 1e-7, "lr_scheduler_type": "linear"}
    again = transformers_trainer(
        tmp_path, config, workers=1, function=train_function_local_dataset, resume_from=first.checkpoint
    ).fit()
    rates = again.metrics_dataframe["learning_rate"].tolist()
    assert rates == pytest.approx([1e-7 * 3 / 8, 1e-7 / 8]), "of the step before, as Transformers reports it"


@pytest.mark.slow
def test_resuming_a_finished_run_evaluates_it_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    config = {"epochs": 1, "save_strategy": "epoch"}
    finished = transformers_trainer(tmp_path, config, datasets=ray_datasets()).fit()
    again = transformers_trainer(tmp_path, config, datasets=ray_datasets(), resume_from=finished.checkpoint).fit()
    assert (again.metrics["epoch"], again.metrics["step"]) == (1, finished.metrics["step"])
    assert again.metrics["eval_loss"] == pytest.approx(finished.metrics["eval_loss"])
    assert again.checkpoint is not None
    assert manifest.verify(again.checkpoint)["step"] == finished.metrics["step"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_datasets_built_in_the_function_are_sharded_by_transformers(tmp_path: Path, workers: int) -> None:
    config = {"epochs": 2, "save_strategy": "no"}
    result = transformers_trainer(tmp_path, config, workers=workers, function=train_function_local_dataset).fit()

    assert result.metrics["epoch"] == 2
    assert result.metrics["training_iteration"] == 2
    assert result.metrics["step"] == 2 * 2 // workers  # 16 rows, batches of 8: each worker sees its part only
    assert "eval_loss" in result.metrics
    assert isinstance(result.checkpoint, TransformersCheckpoint)


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As `evaluate.load` makes one: of a class in a downloaded module, which only this process has imported."""
    modules = tmp_path / "modules"
    package = modules / "evaluate_modules" / "metrics"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "rows_seen.py").write_text(
        "class Metric:\n    def compute(self, prediction):\n        return {'rows_seen': len(prediction.label_ids)}\n"
    )
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("HF_MODULES_CACHE", str(modules))
    yield importlib.import_module("evaluate_modules.metrics.rows_seen").Metric()
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


def function_with(metric: Any) -> Any:
    def function(train_dataset: Any, eval_dataset: Any = None, **config: Any) -> Any:
        trainer = train_function_local_dataset(train_dataset, eval_dataset, **config)
        trainer.compute_metrics = metric.compute
        return trainer

    return function


@pytest.mark.slow
# https://github.com/ray-project/ray/issues/28084
def test_function_may_refer_to_a_downloaded_metric(tmp_path: Path, metric: Any) -> None:
    trainer = transformers_trainer(tmp_path, {"epochs": 1}, function=function_with(metric))
    trainer.run_config.worker_runtime_env = {"env_vars": {"HF_MODULES_CACHE": os.environ["HF_MODULES_CACHE"]}}
    assert trainer.fit().metrics["eval_rows_seen"] == 16


@pytest.mark.slow
def test_callers_configuration_is_not_changed(tmp_path: Path) -> None:
    config: dict[str, Any] = {"epochs": 1, "save_strategy": "no", "lr_scheduler_kwargs": {}}
    before = copy.deepcopy(config)

    trainer = transformers_trainer(tmp_path, config, datasets=ray_datasets())
    assert trainer.config == before
    trainer.fit()  # the function pops "epochs"
    assert config == before
    assert trainer.config == before


@pytest.mark.slow
def test_the_best_model_may_be_named_although_ray_keeps_the_checkpoints(tmp_path: Path) -> None:
    """Transformers looks for its best checkpoint when a training ends; its directory is uploaded and gone by then."""
    config = {"save_strategy": "epoch", "save_total_limit": 1, "metric_for_best_model": "eval_loss",
              "greater_is_better": False, "learning_rate": 1e-2}  # fmt: skip
    result = transformers_trainer(tmp_path, config, function=train_function_local_dataset).fit()
    assert result.metrics["epoch"] == 3
    assert len(checkpoints(result.path)) == 3


@pytest.mark.slow
def test_a_shard_of_ray_data_may_be_transformed(tmp_path: Path) -> None:
    """What `map` returns is another object: it must not be split a second time, which would wait for ever."""

    def function(train_dataset: Any, eval_dataset: Any, **config: Any) -> Any:
        return train_function(train_dataset.map(lambda row: row), eval_dataset, **config)

    config = {"max_steps": 2, "logging_strategy": "steps", "logging_steps": 1, "eval_strategy": "no"}
    result = transformers_trainer(tmp_path, config, workers=2, function=function, datasets=ray_datasets()).fit()
    assert result.metrics["step"] == 2
