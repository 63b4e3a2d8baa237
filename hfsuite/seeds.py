"""Seeds: one number a trial, and out of it one for each thing that draws at random. Pure functions.

A sweep has a seed, its trials have numbers: `Seeds.of_trial(seed, number)` is the trial's own. What draws in a training
draws from streams with names, so that a change of one (another dropout) does not change another (the order of the
rows). Both follow from NumPy's `SeedSequence`, which is made for this: whatever goes in, streams are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

SETTING = "seed"  # the setting of an experiment that gets the trial's seed
LIMIT = 2**32  # NumPy's generators take no more


@dataclass(frozen=True)
class Seeds:
    """The streams of one training, each a number below 2**31.

    Args:
        seed: the training's.
    """

    seed: int

    @classmethod
    def of_trial(cls, sweep_seed: int, number: int) -> Seeds:
        """Of a trial, by the seed of its sweep and its number there."""
        return cls(_draw(sweep_seed, (number,)))

    def stream(self, name: str) -> int:
        """A stream of one's own, by its name."""
        return _draw(self.seed, tuple(name.encode()))

    @property
    def python(self) -> int:
        """Of the module `random`."""
        return self.stream("python")

    @property
    def numpy(self) -> int:
        """Of NumPy's global generator."""
        return self.stream("numpy")

    @property
    def torch(self) -> int:
        """Of PyTorch's default generators: dropout, for example."""
        return self.stream("torch")

    @property
    def data_order(self) -> int:
        """In which order rows are trained on."""
        return self.stream("data order")

    @property
    def initial_weights(self) -> int:
        """Of what a model does not load."""
        return self.stream("initial weights")


@dataclass(frozen=True)
class SeedRule:
    """Where the seed of a trial comes from. Driver, and the trial's actor.

    Args:
        seed: of the sweep, or of a single training.
        per_trial: whether each trial has one of its own.
        fills_setting: whether the setting `seed` gets it: the experiment has one, and the user gave no value.
    """

    seed: int
    per_trial: bool
    fills_setting: bool

    def of(self, number: int) -> int:
        """The seed of a trial."""
        return Seeds.of_trial(self.seed, number).seed if self.per_trial else self.seed


def seed_fault(value: Any) -> str | None:
    """A sentence if a value cannot be a seed."""
    if isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < LIMIT:
        return None
    return f"A seed is a whole number from 0 to {LIMIT - 1}, got {value!r}."


def _draw(seed: int, key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0] >> 1)
