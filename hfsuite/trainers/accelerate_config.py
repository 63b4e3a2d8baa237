"""Accelerate's configuration, read and checked. Driver; `hfsuite.ranks.accelerate_environment` applies it."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

from hfsuite.errors import ConfigurationError, did_you_mean
from hfsuite.ranks.accelerate_environment import DECIDED_BY_RAY, AccelerateConfig

logger = logging.getLogger(__name__)

OLDEST = "1.10"  # of accelerate; as in pyproject.toml

_REQUIRED = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "NO",
    "mixed_precision": "no",
    "num_processes": 1,
    "use_cpu": False,
    "debug": False,
}


def load(source: Mapping[str, Any] | str | os.PathLike[str] | AccelerateConfig | None) -> AccelerateConfig:
    """Reads a configuration. Driver, at construction of the trainer.

    Args:
        source: None for accelerate's default file, a dict, or a path to a YAML or JSON file.

    Raises:
        ConfigurationError: a file is missing or unreadable, or holds names that accelerate does not know.
        NotImplementedError: TPU or SageMaker.
    """
    if isinstance(source, AccelerateConfig):
        return source
    origin = "accelerate_config"
    if isinstance(source, Mapping):
        settings = dict(source)
    elif source is None:
        from accelerate.commands.config import default_config_file

        origin = default_config_file
        settings = _read(Path(origin)) if os.path.isfile(origin) else {}
    else:
        origin = os.fspath(source)
        settings = _read(Path(origin))
    settings = {**_REQUIRED, **settings}
    _check(settings, origin)
    return AccelerateConfig(settings, _read_deepspeed(settings))


def merged(config: AccelerateConfig, changes: Mapping[str, Any]) -> AccelerateConfig:
    """A configuration with a trial's changes over it; nested tables are merged too."""
    settings = dict(config.settings)
    for name, value in changes.items():
        own = settings.get(name)
        settings[name] = {**own, **value} if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    if "deepspeed_config" in changes:
        return load(settings)
    _check(settings, "accelerate_config")
    return AccelerateConfig(settings, config.deepspeed)


def check_installed() -> None:
    """Raises ImportError where accelerate is missing or too old. Driver."""
    try:
        version = importlib.metadata.version("accelerate")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version == "none" or Version(version) < Version(OLDEST):
        raise ImportError(
            f"AccelerateTrainer needs accelerate {OLDEST} or newer on every node, found {version}: "
            f"pip install 'accelerate>={OLDEST}'"
        )


def check_for_device(config: AccelerateConfig, use_gpu: bool) -> None:
    """Refuses what would silently train something else on CPU workers. Driver.

    Raises:
        ConfigurationError: FSDP, Megatron or DeepSpeed on CPU, which Accelerate ignores there.
        ImportError: DeepSpeed is asked for and not installed.
    """
    if config.distributed_type == "DEEPSPEED":
        from accelerate.utils import is_deepspeed_available

        if not is_deepspeed_available():
            raise ImportError("accelerate_config asks for DeepSpeed, which is not installed: pip install deepspeed")
    if not use_gpu and config.distributed_type in ("FSDP", "MEGATRON_LM", "DEEPSPEED"):
        raise ConfigurationError(
            f"accelerate_config asks for distributed_type: {config.distributed_type}, but the workers are on CPU. "
            "Accelerate ignores it there and trains plain DDP: use GPUs (ScalingConfig(use_gpu=True)) or "
            "distributed_type: MULTI_CPU."
        )


def overridden(config: AccelerateConfig, use_gpu: bool) -> dict[str, Any]:
    """Settings of the user's that Ray decides otherwise, apart from those that mean nothing in particular."""
    harmless = {None, "", "all"}
    return {
        name: value
        for name, default in DECIDED_BY_RAY.items()
        if (value := config.settings.get(name, default)) != default and str(value) not in {str(h) for h in harmless}
        and not (name == "use_cpu" and not (value is True and use_gpu))
    }  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        contents = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(
            f"The accelerate configuration {path} cannot be read ({error.strerror}). "
            "Give the path of a file that `accelerate config` wrote, a dict, or None for accelerate's own default file."
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"The accelerate configuration {path} is not valid YAML or JSON: {error}") from error
    if contents is not None and not isinstance(contents, dict):
        raise ConfigurationError(f"The accelerate configuration {path} holds a {type(contents).__name__}, not a table.")
    return contents or {}


def _check(settings: Mapping[str, Any], origin: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    environment, kind = str(settings["compute_environment"]), str(settings["distributed_type"])
    if environment == "AMAZON_SAGEMAKER":
        raise NotImplementedError(f"{origin}: SageMaker places its own workers and cannot be used with Ray Train.")
    if kind in ("XLA", "TPU"):
        raise NotImplementedError(f"{origin}: TPUs are not supported (distributed_type: {kind}).")
    known = set(ClusterConfig.__dataclass_fields__)
    if unknown := sorted(set(settings) - known - {"tpu_name", "tpu_zone", "command_file", "commands"}):
        raise ConfigurationError(
            [f"{origin}: accelerate has no setting {name!r}. {did_you_mean(name, known)}" for name in unknown]
        )


def _read_deepspeed(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    named = (settings.get("deepspeed_config") or {}).get("deepspeed_config_file")
    if not named or named == "none":
        return None
    return dict(named) if isinstance(named, Mapping) else _read(Path(named))
