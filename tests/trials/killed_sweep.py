"""A program that runs a sweep with `ray.tune.Tuner`, to be killed: `python -m tests.trials.killed_sweep FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray import tune

from tests import toy

REPORTS, TRIALS = 60, 3


def tuner(folder: Path) -> tune.Tuner:
    settings = {"reports": REPORTS, "diary": str(folder / "diary"), "x": tune.grid_search([1.0, 2.0, 3.0])}
    return tune.Tuner(
        toy.trainer(1).as_trainable(),
        param_space={"train_loop_config": settings},
        tune_config=tune.TuneConfig(metric="loss", mode="min", max_concurrent_trials=2),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name="sweep",
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=3, checkpoint_at_end=False),
        ),
    )


if __name__ == "__main__":
    ray.init(log_to_driver=False, logging_level="ERROR")
    tuner(Path(sys.argv[1])).fit()
