"""Learns what a training would be given and where it would run, without training: it ends before its first step."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import RunConfig, TrainingFailedError

from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.sweeps import cluster
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
    gpu: bool | None,
    seed: int,
    deterministic: bool | None,
) -> dict[str, Any]:
    """What `training.json` of such a training would say; see `hfsuite.trainers.facts`. Driver.

    Args:
        experiment: what is trained.
        config: settings over its defaults.
        workers: how many; None for the trainer's.
        gpu: whether each has one; None for the trainer's.
        seed: of the training.
        deterministic: whether it is to compute the same bits each time; None: on CPUs.

    Raises:
        ConfigurationError: the experiment has no such settings.
        TrialFailed: the training raised before its first step.
    """
    if faults := experiment.setting_faults(config):
        raise ConfigurationError(faults)
    cluster.connect()
    scaling = {"num_workers": workers, "use_gpu": gpu}
    with tempfile.TemporaryDirectory() as folder:
        trainer = experiment.trainer.with_settings(
            {
                experiment.trainer.config_argument: {**experiment.defaults, **config},
                "scaling_config": {name: value for name, value in scaling.items() if value is not None},
            },
            run_config=RunConfig(name=f"facts-{uuid.uuid4().hex[:8]}", storage_path=folder),
        )
        deterministic = not trainer.scaling_config.use_gpu if deterministic is None else deterministic
        trainer.conditions = Conditions(seed, deterministic, ends_at_first_step=True)
        try:
            trainer.fit()
        except TrainingFailedError as error:
            cause = first_cause(error)
            if not isinstance(cause, FirstStepReached):
                raise TrialFailed(f"It fails before its first step: {type(cause).__name__}: {cause}") from error
        found: dict[str, Any] = json.loads(Path(folder, str(trainer.run_config.name), FACTS_FILE).read_text())
    return found
