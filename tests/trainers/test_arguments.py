"""What a trainer cannot be built with is one sentence, where it is built."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import ray.train
import transformers
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, TransformersTrainer
from hfsuite.errors import ConfigurationError


def loop(config: dict[str, Any]) -> None: ...


async def awaits(config: dict[str, Any]) -> None: ...


def yields(config: dict[str, Any]) -> Any:
    yield 1


def init(train_dataset: Any, eval_dataset: Any, **config: Any) -> Any: ...


ONE = ScalingConfig(num_workers=1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AccelerateTrainer(awaits, scaling_config=ONE), "but awaits is an `async def`: it would not run"),
        (lambda: AccelerateTrainer(functools.partial(awaits), scaling_config=ONE), "is an `async def`"),
        (lambda: AccelerateTrainer(yields, scaling_config=ONE), "but yields has a `yield`"),
        (lambda: AccelerateTrainer(dict, scaling_config=ONE), "must be a function, got the class dict"),
        (lambda: AccelerateTrainer(3, scaling_config=ONE), "must be a function, got 3"),
        (lambda: AccelerateTrainer(loop, scaling_config=2), r"must be a ray\.train\.ScalingConfig\(.*\), got 2"),
        (
            lambda: AccelerateTrainer(loop, scaling_config=ONE, run_config={}),
            r"ray\.train\.RunConfig.*got {}",
        ),
        (
            lambda: AccelerateTrainer(loop, scaling_config=ONE, train_loop_config=[1]),
            r"config of a .* got \[1\]",
        ),
        (lambda: AccelerateTrainer(loop, scaling_config=ONE, datasets=[1]), r"datasets of a trainer .* got \[1\]"),
        (
            lambda: TransformersTrainer(init, scaling_config=ONE, trainer_init_config=[1]),
            r"config of a .* \[1\]",
        ),
        (lambda: TransformersTrainer(transformers.Trainer, scaling_config=ONE), "got the class Trainer"),
    ],
)
def test_it_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_what_can_be_called_is_taken() -> None:
    for each in (loop, functools.partial(loop), lambda config: ray.train.report({})):
        AccelerateTrainer(each, accelerate_config={}, scaling_config=ONE)
