"""What a training ran with, as its rank 0 saw it: `training.json` in the run's directory. Runs in rank 0.

Tracking reads it there, so that neither the driver nor a trial's actor need PyTorch, the data or the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import ray.train

from hfsuite.errors import ConfigurationError
from hfsuite.ranks import fingerprints
from hfsuite.report import FACTS_FILE

if TYPE_CHECKING:
    from accelerate import Accelerator

TRAINING, EVALUATION, BASE_MODEL = "training", "evaluation", "base model"
HALF = {"bfloat16", "float16"}
LOST_CHANGES = (  # measured on bfloat16 and a learning rate of 5e-5
    "without a copy in float32: most changes of a small learning rate are rounded away. Load the model with "
    "dtype=torch.float32, and compute in half precision by mixed precision (bf16=True in TrainingArguments)."
)
DEALT_OTHERWISE = "the number of workers, between which Accelerate deals them in its own way:"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


_rows_before: tuple[int, int] | None = None  # of a step, and workers, where a training shall keep its batch


@contextmanager
def batch_kept() -> Iterator[None]:
    """Meanwhile a training goes on that had fewer workers before: a step has to take as many rows as it did then."""
    global _rows_before
    storage = ray.train.get_context().get_storage()
    with storage.storage_filesystem.open_input_stream(f"{storage.experiment_fs_path}/{FACTS_FILE}") as stream:
        before = json.loads(stream.read())
    if (rows := _rows(before["batch"], before["world_size"])) is None:
        raise ConfigurationError(
            "How many rows a step takes is not known, so nobody can say whether it would be as many with more workers: "
            "give Accelerator.prepare() a DataLoader that shuffles."
        )
    _rows_before = rows, before["world_size"]
    try:
        yield
    finally:
        _rows_before = None


class Facts:
    """Collects what a training was given and where it runs.

    Args:
        is_local: whether this is the driver's own process. Then it does nothing, as in other ranks than the first.
    """

    def __init__(self, is_local: bool = False) -> None:
        self.is_first = not is_local and ray.train.get_context().get_world_rank() == 0
        self.inputs: dict[tuple[str, str], dict[str, Any]] = {}
        self.batch: dict[str, int] = {}
        self.saves_only_model = False  # checkpoints lack what the training needs to go on as it was
        self.precision = "no"  # of what is computed in less than the default type
        self.seeds: dict[str, Any] = {}  # that the training uses, by name
        self.weights: list[str] = []  # the types of the weights that are trained
        self.keeps_copy = False  # whether the weights have a copy in float32, which is what is trained
        self.not_dealt: list[str] = []  # why ranks do not divide rows as `hfsuite.ranks.dealing` says

    def note(self, context: str, given: Any) -> None:
        """Takes a fingerprint of something that the training was given.

        Args:
            context: TRAINING, EVALUATION or BASE_MODEL.
            given: a dataset or a model; None is passed over.
        """
        if not self.is_first or given is None:
            return
        if context == BASE_MODEL:
            self.weights = sorted({*self.weights, *dtypes_of_trained(given)})
        taken = fingerprints.of_model(given) if context == BASE_MODEL else fingerprints.of_dataset(given)
        if taken is not None:
            self.inputs[context, taken["digest"]] = {"context": context, **taken}

    def note_batch(self, per_device: int | None, accumulation: int) -> None:
        """Takes how an optimizer step is divided: rows at once in each rank, and how often before the step.

        Raises:
            ConfigurationError: a training shall keep its batch, and does not.
        """
        if per_device is not None:
            self.batch = {"per_device": per_device, "accumulation": accumulation}
        if _rows_before is not None:
            workers = ray.train.get_context().get_world_size()
            rows, (former, fewer) = _rows(self.batch, workers), _rows_before
            if rows != former:
                raise ConfigurationError(
                    f"With {workers} workers a step would take {rows} rows, and with {fewer} it took {former}. Have "
                    "hfsuite.split_batch(rows, world size) say what each worker takes."
                )

    def note_dealing(self, not_dealt: list[str]) -> None:
        """Takes why loaders that have been prepared deal rows to ranks in another way than usual."""
        self.not_dealt = not_dealt

    def note_precision(self, accelerator: Accelerator) -> None:
        """Takes what is computed in less than the default type, and whether weights of such a type have a copy."""
        from accelerate import DistributedType

        self.precision = str(accelerator.mixed_precision)
        self.keeps_copy = accelerator.distributed_type == DistributedType.DEEPSPEED or (
            accelerator.distributed_type == DistributedType.FSDP and self.precision != "no"
        )

    def write(self) -> None:
        """Puts what was collected into the run's directory."""
        if not self.is_first:
            return
        storage = ray.train.get_context().get_storage()
        facts = surroundings() | {
            "seeds": self.seeds,
            "batch": self.batch,
            "saves_only_model": self.saves_only_model,
            "precision": self.precision,
            "weights_dtype": ", ".join(self.weights) or None,
            "weights_trained_in": self._caution(),
            "rows_depend_on": f"{DEALT_OTHERWISE} {'; '.join(self.not_dealt)}" if self.not_dealt else None,
            "inputs": list(self.inputs.values()),
        }
        with storage.storage_filesystem.open_output_stream(f"{storage.experiment_fs_path}/{FACTS_FILE}") as stream:
            stream.write(json.dumps(facts).encode())

    def _caution(self) -> str | None:
        """What is said of weights that take no small changes."""
        half = sorted(HALF & set(self.weights))
        return f"{', '.join(half)}, {LOST_CHANGES}" if half and not self.keeps_copy else None


def _rows(batch: Mapping[str, int], workers: int) -> int | None:
    """Of an optimizer step, all ranks together; None if the training has not told."""
    return batch["per_device"] * batch["accumulation"] * workers if batch else None


def dtypes_of_trained(model: Any) -> set[str]:
    """The types of a model's weights that are trained; nothing of what is no model (an optimizer, a schedule)."""
    parameters = model.parameters() if hasattr(model, "parameters") else ()
    return {str(each.dtype).removeprefix("torch.") for each in parameters if each.requires_grad}


def surroundings() -> dict[str, Any]:
    """World size, device, threads, switches and versions of this rank."""
    import ray.train.torch
    import torch

    device = ray.train.torch.get_device()
    found: dict[str, Any] = {
        "world_size": ray.train.get_context().get_world_size(),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "torch": torch.__version__,
    }
    if device.type != "cuda":
        return found
    driver = re.search(r"\b(\d+\.\d+(\.\d+)?)\b", NVIDIA_DRIVER.read_text()) if NVIDIA_DRIVER.is_file() else None
    return found | {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "driver": driver[1] if driver else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


@contextmanager
def of_prepared(seeds: Mapping[str, Any], is_local: bool) -> Iterator[None]:
    """Notes what a training loop gives to `Accelerator.prepare`: models, and the datasets of its loaders.

    Args:
        seeds: that the loop uses, by name.
        is_local: as for `Facts`.
    """
    from accelerate import Accelerator
    from torch.utils.data import DataLoader, RandomSampler

    from hfsuite.ranks.dealing import why_not_dealt

    facts, prepare = Facts(is_local), Accelerator.prepare
    facts.seeds = dict(seeds)
    facts.write()

    def noting(accelerator: Accelerator, *given: Any, **options: Any) -> Any:
        facts.note_precision(accelerator)
        for each in given:
            if isinstance(each, DataLoader):
                is_training = isinstance(each.sampler, RandomSampler)
                facts.note(TRAINING if is_training else EVALUATION, each.dataset)
                if is_training:
                    facts.note_batch(each.batch_size, accelerator.gradient_accumulation_steps)
            else:
                facts.note(BASE_MODEL, each)
        prepared = prepare(accelerator, *given, **options)
        facts.note_dealing(why_not_dealt(accelerator))
        facts.write()
        return prepared

    with mock.patch.object(Accelerator, "prepare", noting):
        yield
