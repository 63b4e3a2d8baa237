"""An experiment whose settings are chosen among tuples, classes and enums."""

from __future__ import annotations

import enum
import os
from typing import Any

import ray.train
from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment
from tests import toy


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Kind(str, enum.Enum):  # noqa: UP042  as people write it
    PLAIN = "plain"
    FANCY = "fancy"


class Small:
    size = 1


class Large:
    size = 2


SPACE = {
    "x": tune.uniform(0.5, 2.0),
    "betas": tune.choice([(0.9, 0.99), (0.9, 0.999)]),
    "model": tune.choice([Small, Large]),
    "other": tune.choice([None, Small, Large]),
    "colour": tune.choice([Colour.RED, Colour.BLUE]),
    "kind": tune.choice([Kind.PLAIN, Kind.FANCY]),
}
if gone := os.environ.get("GONE"):  # a choice that the experiment no longer has
    SPACE[gone] = tune.choice([None])


def loop(settings: dict[str, Any]) -> None:
    told = {name: settings[name] for name in SPACE}
    for step in range(1, settings["reports"] + 1):
        toy.note(settings["diary"], {"step": step, "got": repr(told)})
        ray.train.report({"loss": settings["x"] * settings["model"].size / step - settings["betas"][1], "step": step})


experiment = Experiment(
    name="choices",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1)),
    space=SPACE,
    metric="loss",
    mode="min",
    defaults={
        "x": 1.0,
        "betas": (0.9, 0.99),
        "model": Small,
        "other": None,
        "colour": Colour.RED,
        "kind": Kind.PLAIN,
        "reports": 1,
        "diary": "",
        "seed": 0,
    },
)
