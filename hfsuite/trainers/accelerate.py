"""AccelerateTrainer: a training loop written with Accelerate, on N workers."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from ray.train import Checkpoint, DataConfig, RunConfig, ScalingConfig

from hfsuite.ranks.accelerate_environment import AccelerateConfig
from hfsuite.ranks.accelerate_loop import AccelerateLoop
from hfsuite.trainers import accelerate_config as configuration
from hfsuite.trainers.arguments import check_function
from hfsuite.trainers.training import HuggingFaceTrainer

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.preprocessor import Preprocessor
    from ray.train.torch import TorchConfig

logger = logging.getLogger(__name__)


class AccelerateTrainer(HuggingFaceTrainer):
    """Runs a training loop in a group of workers, each set up as `accelerate launch` would.

    In the loop, `Accelerator()` without arguments picks everything up; metrics, checkpoints and datasets go through
    `ray.train.report`, `ray.train.get_checkpoint` and `ray.train.get_dataset_shard`.

    Args:
        train_loop_per_worker: takes the configuration, or nothing.
        train_loop_config: the configuration; never changed.
        accelerate_config: None for the file that `accelerate config` writes, a dict, or a path to a YAML or JSON file.
            Read here, with the DeepSpeed JSON that it may name. Numbers of machines and processes, ranks, addresses,
            ports, devices and threads are overridden: Ray knows them.
        torch_config: backend and timeout of the process group; by default NCCL on GPUs and Gloo on CPUs.
        scaling_config: how many workers, and what each of them holds.
        dataset_config: how Ray Datasets are dealt out; by default all are split.
        run_config: where results go, what happens on failure, which checkpoints stay.
        datasets: Ray Datasets by name.
        preprocessor: fitted on "train", applied to all datasets, and stored with every checkpoint.
        resume_from_checkpoint: what `ray.train.get_checkpoint()` returns at the start.

    Raises:
        ConfigurationError: the accelerate configuration cannot be read, or asks for what CPU workers cannot do.
        ImportError: accelerate, or DeepSpeed where it is asked for, is missing.
        NotImplementedError: TPU or SageMaker is asked for.
    """

    config_argument = "train_loop_config"
    function_argument = "train_loop_per_worker"
    imports = ("accelerate",)

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any],
        *,
        train_loop_config: Mapping[str, Any] | None = None,
        accelerate_config: Mapping[str, Any] | str | os.PathLike[str] | AccelerateConfig | None = None,
        torch_config: TorchConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        dataset_config: DataConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        preprocessor: Preprocessor | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
    ) -> None:
        check_function("train_loop_per_worker", train_loop_per_worker)
        configuration.check_installed()
        required = [
            parameter
            for parameter in inspect.signature(train_loop_per_worker).parameters.values()
            if parameter.default is parameter.empty and parameter.kind in (0, 1)
        ]
        if len(required) > 1:
            raise ValueError(
                "train_loop_per_worker should take the configuration or nothing, "
                f"but it needs {len(required)} arguments: {', '.join(p.name for p in required)}. A function of two "
                "datasets and the settings, which returns a transformers.Trainer, is one for TransformersTrainer."
            )
        self.accelerate_config = configuration.load(accelerate_config)
        super().__init__(
            train_loop_per_worker,
            config=train_loop_config,
            torch_config=torch_config,
            scaling_config=scaling_config,
            dataset_config=dataset_config,
            run_config=run_config,
            datasets=datasets,
            preprocessor=preprocessor,
            resume_from_checkpoint=resume_from_checkpoint,
        )
        configuration.check_for_device(self.accelerate_config, self.scaling_config.use_gpu)
        if not isinstance(accelerate_config, AccelerateConfig) and (
            values := configuration.overridden(self.accelerate_config, self.scaling_config.use_gpu)
        ):
            named = ", ".join(f"{name}={value!r}" for name, value in values.items())
            logger.warning("accelerate_config: Ray decides these itself, your values are not used: %s.", named)

    @classmethod
    def restore(
        cls,
        path: str,
        train_loop_per_worker: Callable[..., Any] | None = None,
        train_loop_config: Mapping[str, Any] | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        preprocessor: Preprocessor | None = None,
        scaling_config: ScalingConfig | None = None,
    ) -> Self:
        """The trainer of an interrupted or failed run: see `HuggingFaceTrainer.restored`. Driver."""
        return cls.restored(path, train_loop_per_worker, train_loop_config, datasets, preprocessor, scaling_config)

    def worker_loop(self) -> AccelerateLoop:
        """What every rank runs."""
        return AccelerateLoop(
            self.function,
            self.accelerate_config,
            self.scaling_config.num_cpus_per_worker,
            is_local=self.running_in_local_mode,
        )

    def definition(self) -> dict[str, Any]:
        """The arguments that make this trainer again, without its datasets."""
        return super().definition() | {"accelerate_config": self.accelerate_config}

    @classmethod
    def trial_settings(cls) -> dict[str, Callable[[Any, Any], Any]]:
        """What `param_space` may hold, and how each is merged over the trainer's own value."""
        return super().trial_settings() | {
            "accelerate_config": lambda own, new: configuration.merged(own, new) if isinstance(new, Mapping) else new
        }
