"""Learns what a training would be given and where it would run, without training: it ends before its first step."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray.train import RunConfig, TrainingFailedError

from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.sweeps import cluster
from hfsuite.sweeps.plan import absolute
from hfsuite.tracking.record import SweepDirectory
from hfsuite.trainers.conditions import Conditions, FirstStepReached
from hfsuite.trainers.facts import FACTS_FILE
from hfsuite.trainers.rank_start import first_cause

if TYPE_CHECKING:
    from hfsuite.sweeps.experiment import Experiment


def facts_of(
    experiment: Experiment,
    config: Mapping[str, Any],
    *,
    workers: int | None,
    gpu: bool | float | None,
    seed: int,
    deterministic: bool | None,
    storage: str,
) -> dict[str, Any]:
    """What `training.json` of such a training would say; see `hfsuite.trainers.facts`. Driver.

    Args:
        experiment: what is trained.
        config: settings over its defaults.
        workers: how many; None for the trainer's.
        gpu: whether each has one; None for the trainer's.
        seed: of the training.
        deterministic: whether it is to compute the same bits each time; None: on CPUs.
        storage: a folder or URI that the driver and rank 0 both see; nothing stays there.

    Raises:
        ConfigurationError: the experiment has no such settings.
        TrialFailed: the training raised before its first step.
    """
    if faults := experiment.setting_faults(config):
        raise ConfigurationError(faults)
    cluster.connect()
    scaling = {"num_workers": workers, "use_gpu": gpu}
    name = f".facts-{uuid.uuid4().hex[:12]}"
    directory = SweepDirectory.at(absolute(storage), name)
    trainer = experiment.trainer.with_settings(
        {
            experiment.trainer.config_argument: {**experiment.defaults, **config},
            "scaling_config": {key: value for key, value in scaling.items() if value is not None},
        },
        run_config=RunConfig(name=name, storage_path=absolute(storage)),
    )
    deterministic = not trainer.scaling_config.use_gpu if deterministic is None else deterministic
    trainer.conditions = Conditions(seed, deterministic, ends_at_first_step=True)
    try:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            cause = first_cause(error)
            if not isinstance(cause, FirstStepReached):
                raise TrialFailed(f"It fails before its first step: {type(cause).__name__}: {cause}") from error
        text = directory.read_text(FACTS_FILE)
    finally:
        directory.remove()
    if text is None:
        raise TrialFailed("It ends before its first step, and does not say what it was given.")
    found: dict[str, Any] = json.loads(text)
    return found
