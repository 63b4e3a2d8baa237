"""The environment in which Accelerate finds its configuration, as `accelerate launch` would set it. In every rank."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
