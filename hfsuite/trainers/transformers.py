"""TransformersTrainer: `transformers.Trainer` on N workers."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from huggingface_hub.constants import HF_HOME
from ray.train import Checkpoint, DataConfig, RunConfig, ScalingConfig

from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.ranks import ray_data
from hfsuite.ranks.transformers_loop import TransformersLoop
from hfsuite.trainers.arguments import check_function, check_types
from hfsuite.trainers.datasets import row_counts
from hfsuite.trainers.training import HuggingFaceTrainer

if TYPE_CHECKING:
    import transformers
    from ray.data import Dataset
    from ray.data.preprocessor import Preprocessor
    from ray.train.torch import TorchConfig

    TrainerInit = Callable[..., transformers.Trainer]

# A metric of `evaluate.load` is of a class in a module downloaded to here. The training function may refer to it, and
# workers import this file before they unpickle the function.
DOWNLOADED_MODULES = os.environ.get("HF_MODULES_CACHE", os.path.join(HF_HOME, "modules"))
if DOWNLOADED_MODULES not in sys.path:
    sys.path.append(DOWNLOADED_MODULES)

RESERVED_KEY = "_trainer_init_per_worker"


class TransformersTrainer(HuggingFaceTrainer):
    """Runs `transformers.Trainer.train()` in a group of workers, as one data-parallel training.

    Args:
        trainer_init_per_worker: called in every rank with the training set, the evaluation set (both None without Ray
            Datasets) and `trainer_init_config` as keywords; returns the `transformers.Trainer` of this rank.
        trainer_init_config: keywords for it; never changed.
        torch_config: backend and timeout of the process group; by default NCCL on GPUs and Gloo on CPUs.
        scaling_config: how many workers, and what each of them holds.
        dataset_config: how Ray Datasets are dealt out; by default "train" is split and "evaluation" whole everywhere.
        run_config: where results go, what happens on failure, which checkpoints stay.
        datasets: Ray Datasets "train" and "evaluation". A Hugging Face dataset can be built in the function instead;
            Transformers then shards it.
        preprocessor: fitted on "train", applied to all datasets, and stored with every checkpoint.
        resume_from_checkpoint: where to go on from. It must be complete: see `hfsuite.checkpoints.manifest`. The
            learning rate and its schedule are those of the arguments, not of the checkpoint.

    Raises:
        ValueError: on the driver, for arguments that contradict each other; in the workers, as the cause of
            `ray.train.TrainingFailedError`, for `TrainingArguments` that do (see `hfsuite.ranks.reporting`).
    """

    config_argument = "trainer_init_config"
    function_argument = "trainer_init_per_worker"
    imports = ("transformers.trainer", "accelerate")
    checkpoint_class = TransformersCheckpoint

    def __init__(
        self,
        trainer_init_per_worker: TrainerInit,
        *,
        trainer_init_config: Mapping[str, Any] | None = None,
        torch_config: TorchConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        dataset_config: DataConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        preprocessor: Preprocessor | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
    ) -> None:
        check_function("trainer_init_per_worker", trainer_init_per_worker)
        parameters = len(inspect.signature(trainer_init_per_worker).parameters)
        if parameters < 3:
            raise ValueError(
                "trainer_init_per_worker should take at least 3 arguments (train_dataset, eval_dataset, **config), "
                f"but it accepts {parameters}. AccelerateTrainer takes a training loop of (config)."
            )
        check_types(config=trainer_init_config, datasets=datasets)
        if RESERVED_KEY in (trainer_init_config or {}):
            raise ValueError(f"'{RESERVED_KEY}' is a reserved key in `trainer_init_config`.")
        if unknown := set(datasets or {}) - {ray_data.TRAIN, ray_data.EVALUATION}:
            raise ValueError(
                f"`datasets` may hold '{ray_data.TRAIN}' and '{ray_data.EVALUATION}', got also {sorted(unknown)}."
            )
        super().__init__(
            trainer_init_per_worker,
            config=trainer_init_config,
            torch_config=torch_config,
            scaling_config=scaling_config,
            dataset_config=dataset_config or DataConfig(datasets_to_split=[ray_data.TRAIN]),
            run_config=run_config,
            datasets=datasets,
            preprocessor=preprocessor,
            resume_from_checkpoint=resume_from_checkpoint,
        )

    @classmethod
    def restore(
        cls,
        path: str,
        trainer_init_per_worker: TrainerInit | None = None,
        trainer_init_config: Mapping[str, Any] | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        preprocessor: Preprocessor | None = None,
        scaling_config: ScalingConfig | None = None,
    ) -> Self:
        """The trainer of an interrupted or failed run: see `HuggingFaceTrainer.restored`. Driver."""
        return cls.restored(path, trainer_init_per_worker, trainer_init_config, datasets, preprocessor, scaling_config)

    def check_scaling(self) -> None:
        """Refuses what DDP under Transformers cannot use: more than one GPU a worker, or a part of one by accident."""
        gpus = self.scaling_config.num_gpus_per_worker
        if gpus > 1:
            raise ValueError(
                f"You have assigned {gpus:g} GPUs per worker. Transformers expects one GPU per worker in DDP mode: "
                "ask for more workers instead."
            )
        if gpus != int(gpus) and not self.is_trial:
            raise ValueError(
                f"You have assigned {gpus:g} GPUs per worker, but fractional GPUs are not supported by Transformers "
                "outside of trials. Under Ray Tune, ask for them in the param_space: "
                '{"scaling_config": {"resources_per_worker": {"GPU": ' + f"{gpus:g}" + "}}}."
            )
        super().check_scaling()

    def worker_loop(self) -> TransformersLoop:
        """What every rank runs."""
        rows = row_counts(self.datasets)
        return TransformersLoop(self.function, rows, self.is_trial, self.running_in_local_mode, self.conditions.metric)
