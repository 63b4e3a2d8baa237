"""Learns what a training would be given and where it would run, without training: it ends before its first step."""

from __future__ import annotations

import json
import uuid
from typing import Any

from ray.train import RunConfig, TrainingFailedError

from hfsuite.declaration import Declaration
from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.ranks.conditions import Conditions, FirstStepReached
from hfsuite.report import FACTS_FILE
from hfsuite.sweeps import cluster
from hfsuite.sweeps.request import Request
from hfsuite.sweeps.storage import absolute
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.trials.failure import first_cause


def facts_of(experiment: Declaration, request: Request) -> dict[str, Any]:
    """What `training.json` of such a training would say; see `hfsuite.ranks.facts`. Driver.

    Args:
        experiment: what is trained.
        request: how. Its storage is one that the driver and rank 0 both see; nothing stays there.

    Raises:
        ConfigurationError: the experiment has no such settings.
        TrialFailed: the training raised before its first step.
    """
    if faults := experiment.setting_faults(request.set):
        raise ConfigurationError(faults)
    cluster.connect()
    scaling = {"num_workers": request.workers, "use_gpu": None if request.gpu is None else bool(request.gpu)}
    name = f".facts-{uuid.uuid4().hex[:12]}"
    directory = SweepDirectory.at(absolute(request.storage), name)
    trainer = experiment.trainer.with_settings(
        {
            experiment.trainer.config_argument: {**experiment.defaults, **request.set},
            "scaling_config": {key: value for key, value in scaling.items() if value is not None},
        },
        run_config=RunConfig(name=name, storage_path=absolute(request.storage)),
    )
    asked = request.deterministic
    deterministic = not trainer.scaling_config.use_gpu if asked is None else asked
    trainer.conditions = Conditions(request.seed, deterministic, ends_at_first_step=True)
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
