"""The sentiment experiment, shorter, with a diary of its optimizer steps, for each way of running it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray.train
from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from transformers import Trainer, TrainerCallback

from experiments import sentiment
from hfsuite import Experiment, TransformersTrainer
from tests.benchmarks import workload

SETTINGS = {"train_rows": 320, "validation_rows": 100, "num_train_epochs": 1}


class StepDiary(TrainerCallback):
    """Rank 0 writes down how long each optimizer step took, and fetching its batches, without what follows an epoch."""

    def __init__(self) -> None:
        self.before = 0.0
        self.seconds: list[float] = []

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.before = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.before)
        self.before = now

    def on_train_end(self, *_: Any, **__: Any) -> None:
        workload.note("trained", seconds=self.seconds)


def trainer_init_per_worker(train_dataset: None, eval_dataset: None, *, diary: str, **settings: Any) -> Trainer:
    """The experiment's own trainer, with a diary."""
    os.environ["BENCH_DIARY"] = diary
    trainer = sentiment.trainer_init_per_worker(train_dataset, eval_dataset, **settings)
    trainer.add_callback(StepDiary())
    return trainer


def as_ray_documents_it(config: dict[str, Any]) -> None:
    """The training function of Ray's pattern: its report callback, and `prepare_trainer`."""
    from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer

    trainer = trainer_init_per_worker(None, None, **config)
    trainer.add_callback(RayTrainReportCallback())
    prepare_trainer(trainer).train()


def as_transformers_trains(config: dict[str, Any]) -> None:
    """The trainer as it is, without what this project changes of it."""
    trainer = trainer_init_per_worker(None, None, **config)
    trainer.train()
    if os.environ["RANK"] == "0":
        print(next(each["eval_loss"] for each in reversed(trainer.state.log_history) if "eval_loss" in each))


def rank(folder: Path, learning_rate: float, epochs: int) -> None:
    """What a rank of `torchrun` runs: Ray's local mode, which takes the ranks that there are, and changes nothing."""
    os.chdir(folder)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    settings = experiment.defaults | {"diary": os.environ["BENCH_DIARY"]}
    TorchTrainer(
        as_transformers_trains,
        train_loop_config=settings | {"learning_rate": learning_rate, "num_train_epochs": epochs},
        scaling_config=ScalingConfig(num_workers=0),
        run_config=ray.train.RunConfig(
            storage_path=str(folder / "torchrun"), name=f"{time.time():.3f}-{os.environ['RANK']}"
        ),
    ).fit()


experiment = Experiment(
    name="bench-sentiment",
    trainer=TransformersTrainer(trainer_init_per_worker, scaling_config=ScalingConfig(num_workers=2)),
    space={"learning_rate": tune.loguniform(1e-5, 1e-3)},
    metric="eval_accuracy",
    mode="max",
    defaults=sentiment.DEFAULTS | SETTINGS | {"diary": ""},
)

if __name__ == "__main__":
    rank(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
