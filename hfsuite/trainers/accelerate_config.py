"""Accelerate's configuration: read on the driver, applied in every rank as `accelerate launch` would."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

from hfsuite.errors import ConfigurationError, did_you_mean

logger = logging.getLogger(__name__)

OLDEST = "1.10"  # of accelerate; as in pyproject.toml

# What Ray decides: a value of the user's is overridden, and named once.
DECIDED_BY_RAY: dict[str, Any] = {
    "num_machines": 1,
    "num_processes": 1,
    "machine_rank": 0,
    "gpu_ids": "all",
    "num_cpu_threads_per_process": None,
    "main_process_ip": None,
    "main_process_port": None,
    "same_network": True,
    "use_cpu": None,
    "rdzv_backend": "static",
    "main_training_function": "main",
}
_REQUIRED = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "NO",
    "mixed_precision": "no",
    "num_processes": 1,
    "use_cpu": False,
    "debug": False,
}
_RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class AccelerateConfig:
    """The contents of a configuration, so that they travel with the trainer: workers need not see the files.

    Args:
        settings: what the configuration file holds.
        deepspeed: the contents of the DeepSpeed JSON that it names, if any.
    """

    settings: dict[str, Any]
    deepspeed: dict[str, Any] | None = None

    @property
    def distributed_type(self) -> str:
        """DDP flavours are MULTI_GPU and MULTI_CPU; also FSDP, DEEPSPEED, MEGATRON_LM, NO."""
        return str(self.settings["distributed_type"])

    def merged(self, changes: Mapping[str, Any]) -> AccelerateConfig:
        """This configuration with a trial's changes over it; nested tables are merged too."""
        settings = dict(self.settings)
        for name, value in changes.items():
            own = settings.get(name)
            settings[name] = {**own, **value} if isinstance(own, Mapping) and isinstance(value, Mapping) else value
        if "deepspeed_config" in changes:
            return load(settings)
        _check(settings, "accelerate_config")
        return AccelerateConfig(settings, self.deepspeed)


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


def apply(config: AccelerateConfig, *, world_size: int, rank: int, use_cpu: bool, cpus: float, directory: str) -> None:
    """Sets the environment of this rank as `accelerate launch` would, then the process group's own values again.

    Args:
        config: what the driver read.
        world_size: number of ranks.
        rank: world rank of this worker.
        use_cpu: whether this worker's device is the CPU.
        cpus: CPUs of this worker, which become its threads.
        directory: where files that accelerate wants to read are written; it must outlive the training function.
    """
    from accelerate.commands import launch
    from accelerate.utils import launch as environments

    kept = {name: os.environ[name] for name in _RANK_VARIABLES if name in os.environ}
    settings = {name: value for name, value in config.settings.items() if name not in DECIDED_BY_RAY}
    settings |= {"num_processes": 1, "num_machines": world_size, "machine_rank": rank, "use_cpu": use_cpu}
    if config.deepspeed is not None:
        path = Path(directory) / "deepspeed_config.json"
        path.write_text(json.dumps(config.deepspeed), encoding="utf-8")
        settings["deepspeed_config"] = {**settings["deepspeed_config"], "deepspeed_config_file": str(path)}
    file = Path(directory) / "accelerate_config.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    arguments = launch.launch_command_parser().parse_args(["--config_file", str(file), "train.py"])
    arguments.num_cpu_threads_per_process = max(1, int(cpus))
    arguments.main_process_ip = kept.get("MASTER_ADDR", "127.0.0.1")
    arguments.main_process_port = 0  # any free one: `launch` refuses that of the process group, which there is already
    arguments, defaults, precision_from_file = launch._validate_launch_command(arguments)
    if arguments.use_deepspeed and not use_cpu:
        fields = list(defaults.deepspeed_config) + (["mixed_precision"] if precision_from_file else [])
        arguments.deepspeed_fields_from_accelerate_config = ",".join(fields)
        _, environment = environments.prepare_deepspeed_cmd_env(arguments)
        environment["OMP_NUM_THREADS"] = (
            arguments.num_cpu_threads_per_process
        )  # `launch` leaves it to DeepSpeed's launcher
    elif (arguments.use_fsdp or arguments.use_megatron_lm or arguments.multi_gpu) and not use_cpu:
        environment = environments.prepare_multi_gpu_env(arguments)
    else:
        arguments.use_cpu = use_cpu
        _, environment = environments.prepare_simple_launcher_cmd_env(arguments)
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ.update(kept)


def scratch_directory() -> tempfile.TemporaryDirectory[str]:
    """Where a rank keeps accelerate's files while its training function runs."""
    return tempfile.TemporaryDirectory(prefix="accelerate_")


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
