"""What trainers are built with, looked at before anything is computed with it. Driver."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from ray.train import ScalingConfig

from hfsuite.errors import ConfigurationError


def check_function(argument: str, function: Any) -> None:
    """Refuses what ranks cannot call, or would call in vain.

    Args:
        argument: what it is called in the trainer's signature.
        function: the user's.

    Raises:
        ConfigurationError: it is no function, or one that returns before it has run.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    told = getattr(inner, "__name__", repr(inner))
    if not callable(function) or inspect.isclass(inner):
        got = f"the class {told}" if inspect.isclass(inner) else repr(function)
        raise ConfigurationError(f"{argument} must be a function, got {got}.")
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(
            f"{argument} must be a plain function, but {told} is an `async def`: it would not run."
        )
    if inspect.isgeneratorfunction(inner):
        raise ConfigurationError(f"{argument} must be a plain function, but {told} has a `yield`: it would never run.")


def check_types(**given: Any) -> None:
    """Refuses configurations of another type.

    Args:
        given: by their names in the trainer's signature; None for one that is left out.

    Raises:
        ConfigurationError: all of them.
    """
    faults = []
    for name, value in given.items():
        if value is None:
            continue
        if name == "scaling_config" and not isinstance(value, ScalingConfig):
            faults.append(f"scaling_config must be a ray.train.ScalingConfig(num_workers=...), got {value!r}.")
        elif name == "run_config" and not hasattr(value, "storage_path"):
            faults.append(f"run_config must be a ray.train.RunConfig(...), got {value!r}.")
        elif name in ("config", "datasets") and not isinstance(value, Mapping):
            what = "settings to their values" if name == "config" else "datasets to them"
            faults.append(f"The {name} of a trainer must be a dict from the names of {what}, got {value!r}.")
    if faults:
        raise ConfigurationError(faults)
