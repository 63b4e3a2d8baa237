"""How a trial's configurations are merged over those that its trainer was built with. Driver and trial's actor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray.train import CheckpointConfig, RunConfig

from hfsuite.errors import ConfigurationError, UnknownName

SET_BY_A_TRIAL = {"failure_config", "callbacks", "worker_runtime_env"}  # of a run_config; Tune says all else


def merged_dataclass(own: Any, new: Any) -> Any:
    """A whole configuration replaces the trainer's own; a dict changes the fields that it names."""
    if not isinstance(new, Mapping):
        return new
    if unknown := sorted(set(new) - {field.name for field in dataclasses.fields(own)}):
        raise UnknownName([f"{type(own).__name__} has no field {name!r}." for name in unknown])
    try:
        return dataclasses.replace(own, **new)
    except DeprecationWarning as refusal:  # how Ray says that a field is gone
        raise ConfigurationError(f"{type(own).__name__}: {refusal}") from refusal


def merged_run_config(own: RunConfig, new: Any) -> Any:
    """As `merged_dataclass`, without what belongs to Ray Tune: it would be ignored."""
    named = set(new) if isinstance(new, Mapping) else set()
    if not isinstance(new, Mapping) and new.checkpoint_config != CheckpointConfig():
        named = {"checkpoint_config"}
    if owned_by_tune := sorted(named & ({field.name for field in dataclasses.fields(own)} - SET_BY_A_TRIAL)):
        raise ConfigurationError(
            [
                f"run_config.{name} of a trial belongs to Ray Tune: give it to the Tuner, in tune.RunConfig."
                for name in owned_by_tune
            ]
        )
    return merged_dataclass(own, new)
