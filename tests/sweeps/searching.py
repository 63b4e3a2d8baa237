"""A program that sweeps with a searcher of Ray Tune's, to be killed: `python -m tests.sweeps.searching hyperopt`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray import tune
from ray.train import Checkpoint, ScalingConfig
from ray.tune.schedulers import HyperBandForBOHB

from hfsuite import AccelerateTrainer, Experiment
from tests import toy

TRIALS = 4
LIBRARIES = {"hyperopt": ["hyperopt"], "nevergrad": ["nevergrad"], "bohb": ["ConfigSpace", "hpbandster"],
             "zoopt": ["zoopt"]}  # fmt: skip
SPACE = {
    "x": tune.uniform(0.01, 2.0),
    "size": tune.randint(1, 9),
    "kind": tune.choice(["plain", "fancy"]),
    "is_deep": tune.choice([True, False]),
    "betas": tune.choice([(0.9, 0.99), (0.9, 0.999)]),
}
DEFAULTS = {"x": 1.0, "size": 1, "kind": "plain", "is_deep": False, "betas": (0.9, 0.99), "pace": 0.0, "diary": ""}


def loop(settings: dict[str, Any]) -> None:
    checkpoint = ray.train.get_checkpoint()
    done = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
    for step in range(done + 1, 4):
        toy.note(settings["diary"], {"step": step, "got": repr({name: settings[name] for name in SPACE})})
        time.sleep(settings["pace"])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step))
            ray.train.report({"loss": settings["x"] / step}, checkpoint=Checkpoint.from_directory(folder))


experiment = Experiment(
    name="searching",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1)),
    space=SPACE,
    metric="loss",
    mode="min",
    defaults=DEFAULTS,
)


def chosen(name: str) -> dict[str, Any]:
    """A searcher, new each time, and the trial scheduler that it takes."""
    searcher: Any
    match name:
        case "hyperopt":
            from ray.tune.search.hyperopt import HyperOptSearch

            searcher = HyperOptSearch(n_initial_points=2, random_state_seed=1)
        case "nevergrad":
            import nevergrad
            from ray.tune.search.nevergrad import NevergradSearch

            searcher = NevergradSearch(optimizer=nevergrad.optimizers.OnePlusOne)
        case "zoopt":
            from ray.tune.search.zoopt import ZOOptSearch

            searcher = ZOOptSearch(algo="Asracos", budget=TRIALS, parallel_num=2)
        case "bohb":
            from ray.tune.search.bohb import TuneBOHB

            scheduler = HyperBandForBOHB(time_attr="training_iteration", max_t=3)
            return {"searcher": TuneBOHB(seed=1), "trial_scheduler": scheduler}
    return {"searcher": searcher, "trial_scheduler": "fifo"}


if __name__ == "__main__":
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    settings = {"pace": 1.0, "diary": str(Path("diary").absolute())}
    experiment.sweep(trials=TRIALS, set=settings, name="cut", **chosen(sys.argv[1]))
