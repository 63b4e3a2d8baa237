"""A job: an experiment, what is asked of it, and what for; and what follows from these alone. Driver."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from numbers import Real
from typing import Any

from ray.tune.schedulers import HyperBandScheduler, PopulationBasedTraining, ResourceChangingScheduler

from hfsuite.declaration import Declaration
from hfsuite.errors import ConfigurationError
from hfsuite.own_values import is_written
from hfsuite.search.own_choices import OwnChoices
from hfsuite.search.searchers import SAMPLERS
from hfsuite.search.spaces import OnlyWhere, can_count, constants_of, grid_size, outside
from hfsuite.seeds import SETTING, SeedRule
from hfsuite.sweeps.request import AUTO, SPREAD, STAY, AtEnd, Request
from hfsuite.sweeps.storage import absolute
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.record import SweepRecord
from hfsuite.trainers.training import HuggingFaceTrainer
from hfsuite.trainers.transformers import TransformersTrainer
from hfsuite.trials.resources import FINEST

MOVE_TRIALS = HyperBandScheduler, PopulationBasedTraining, ResourceChangingScheduler  # pause them, change their workers
SEARCH, TRAINING = "sweep", "train"  # kinds of jobs, as records name them


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What trials are run for.

    Args:
        kind: `SEARCH`, or `TRAINING` for one on its own.
        confirms: run id and name of the sweep whose finalists these are; each trial that ends by itself is then tested.
        conditions: which settings count only where others have certain values; None for the experiment's.
        reports: after how many a training ends, whatever it still would do; None for its own end.
        reproduces: the run that a training repeats.
        resumed: the record of the sweep that is taken up again.
        retry_failed: whether its failed trials are tried again.
    """

    kind: str = SEARCH
    confirms: tuple[str, str] | None = None
    conditions: OnlyWhere | None = None
    reports: int | None = None
    reproduces: str | None = None
    resumed: SweepRecord | None = None
    retry_failed: bool = False


@dataclass(frozen=True)
class Job:
    """An experiment, what is asked of it, and what for. All that follows is sound once `checks.check` has passed it."""

    experiment: Declaration
    request: Request
    purpose: Purpose = field(default_factory=Purpose)

    @cached_property
    def name(self) -> str:
        """Of the sweep."""
        experiment = self.experiment.name.replace(" ", "_")  # commands name the sweep
        return self.request.name or f"{experiment}-{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]

    @cached_property
    def storage(self) -> str:
        """The folder or URI that the sweep is in, as it is meant from here."""
        return absolute(self.request.storage)

    @property
    def directory(self) -> SweepDirectory:
        """The sweep's."""
        return SweepDirectory.at(self.storage, self.name)

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The settings that are not searched, as trials get them."""
        return OwnChoices.of(self.experiment.space, self.experiment.defaults).read(self.request.set)

    @cached_property
    def choices(self) -> OwnChoices:
        """Those values of settings that searchers and files know by texts."""
        return OwnChoices.of(self.experiment.space, self.experiment.defaults, self.fixed)

    @cached_property
    def space(self) -> dict[str, Any]:
        """What is searched, and constants."""
        searches = self.purpose.kind == SEARCH
        return {name: each for name, each in self.experiment.space.items() if searches and name not in self.fixed}

    @cached_property
    def constants(self) -> dict[str, Any]:
        """The settings that no trial changes, the space's own ones aside."""
        return {**self.experiment.defaults, **self.fixed}

    @property
    def every_constant(self) -> dict[str, Any]:
        """The same, with those of the space."""
        return {**self.experiment.defaults, **constants_of(self.space), **self.fixed}

    @cached_property
    def only_where(self) -> OnlyWhere:
        """The conditions that the searcher is told of: Ray Tune's own know none."""
        if not isinstance(self.request.searcher, str) or self.request.searcher not in SAMPLERS:
            return {}
        return {name: each for name, each in self.experiment.only_where.items() if name in self.space}

    @cached_property
    def can_vary(self) -> dict[str, Any]:
        """What of the space counts in any trial at all."""
        constants = self.every_constant
        return {
            name: each for name, each in self.space.items() if can_count(name, self.only_where, self.space, constants)
        }

    @property
    def conditions(self) -> OnlyWhere:
        """Which settings count only where others have certain values."""
        return self.experiment.only_where if self.purpose.conditions is None else self.purpose.conditions

    @cached_property
    def trainer(self) -> HuggingFaceTrainer:
        """The experiment's, with the workers that are asked for.

        Raises:
            ConfigurationError: it cannot have so many, or such parts of GPUs.
        """
        return _scaled(self.experiment.trainer, self.request.workers, self.request.gpu)

    def trainer_in_slots(self, slots: int) -> HuggingFaceTrainer:
        """The same, where so many trials share their GPUs: see `hfsuite.trials.gpu_slots`."""
        trainer = copy.copy(self.trainer)
        trainer.has_own_gpus = True
        if not trainer.scaling_config.use_gpu:
            return trainer
        own = trainer.scaling_config.resources_per_worker or {}
        resources = {**own, "GPU": math.floor(FINEST / slots) / FINEST}
        return trainer.with_settings({"scaling_config": {"resources_per_worker": resources}})

    @property
    def gpu_share(self) -> float | str | None:
        """The part of a GPU that each worker takes: a number, or `AUTO` where it is measured; None without GPUs.

        Trials whose workers change while they run, and a training on its own, have whole ones.
        """
        scaling, asked = self.trainer.scaling_config, self.request.gpu
        if not scaling.use_gpu:
            return None
        if _is_part(asked):
            return float(asked)  # type: ignore[arg-type]
        own = (scaling.resources_per_worker or {}).get("GPU")
        can_share = self.purpose.kind == SEARCH and self.trials > 1
        changes = isinstance(self.request.trial_scheduler, ResourceChangingScheduler)
        is_open = asked in (True, AUTO) or own is None
        return AUTO if can_share and is_open and not changes and scaling.num_gpus_per_worker == 1 else 1.0 * (own or 1)

    @property
    def at_end(self) -> AtEnd:
        """What becomes of GPUs for which no trial waits; nothing where a trial scheduler moves trials itself."""
        if self.request.at_end is not None:
            return self.request.at_end
        goes_on = isinstance(self.trainer, TransformersTrainer) and not self.is_moved_otherwise
        return SPREAD if self.purpose.kind == SEARCH and goes_on else STAY

    @property
    def is_moved_otherwise(self) -> bool:
        """Whether the trial scheduler pauses trials or gives them other workers."""
        return isinstance(self.request.trial_scheduler, MOVE_TRIALS)

    @property
    def trials(self) -> int:
        """How many there will be."""
        return grid_size(self.space) or self.request.trials

    @property
    def seeds(self) -> SeedRule:
        """Where each trial's seed comes from."""
        is_free = SETTING in self.experiment.defaults and SETTING not in self.fixed and SETTING not in self.space
        return SeedRule(self.request.seed, per_trial=self.purpose.kind == SEARCH, fills_setting=is_free)

    @property
    def is_deterministic(self) -> bool:
        """Whether PyTorch shall compute the same bits each time."""
        asked = self.request.deterministic
        return not self.trainer.scaling_config.use_gpu if asked is None else asked

    @property
    def tries_defaults(self) -> bool:
        """Whether the first trial has the default settings."""
        return self.request.try_defaults and not outside(self.can_vary, self.experiment.defaults)

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked for, as it is recorded."""
        unwritten = [name for name, value in self.fixed.items() if not is_written(value)]
        return self.request.as_record(self.fixed, unwritten)


def _is_part(gpu: Any) -> bool:
    """Whether a part of a GPU is asked for by its number."""
    return isinstance(gpu, Real) and not isinstance(gpu, bool)


def _scaled(trainer: HuggingFaceTrainer, workers: int | None, gpu: Any) -> HuggingFaceTrainer:
    changes: dict[str, Any] = {}
    if workers is not None:
        if workers < 1:
            raise ConfigurationError(f"The number of workers must be at least 1, got {workers}.")
        changes["num_workers"] = workers
    if gpu is not None:
        changes["use_gpu"] = bool(gpu)
    if _is_part(gpu):
        if not 1 / FINEST <= gpu <= 1:
            raise ConfigurationError(
                f"The part of a GPU that a worker takes is at least {1 / FINEST:g} and at most 1, got {gpu:g}."
            )
        gpu = math.floor(gpu * FINEST) / FINEST  # six of 1/6 shall fit
        others = trainer.scaling_config.resources_per_worker or {}
        is_lone = (workers or trainer.scaling_config.num_workers) == 1
        changes["resources_per_worker"] = {**others, "GPU": gpu if is_lone else 1}  # each of several has its own
    try:
        return trainer.with_settings({"scaling_config": changes})
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
