"""Ray Data as Transformers sees it: iterable Hugging Face datasets in torch format, with a length where known.

In every rank.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ray.train

if TYPE_CHECKING:
    import datasets
    from ray.data import DataIterator
    from torch.utils.data import DataLoader

TRAIN = "train"
EVALUATION = "evaluation"

SHARD_OF_RAY_DATA = "This worker's shard: Ray Data has split the dataset already."

logger = logging.getLogger(__name__)


def worker_datasets(rows: Mapping[str, int | None]) -> tuple[Any, Any]:
    """This rank's training shard and the whole evaluation set, None where there is none. Runs in every rank.

    Args:
        rows: what `row_counts` said on the driver.
    """
    if TRAIN in rows and rows[TRAIN] is None:
        logger.warning(
            "The training dataset is streamed, so its length is unknown: set `max_steps` in TrainingArguments, "
            "or call `.materialize()` on the dataset."
        )
    world_size = ray.train.get_context().get_world_size()
    train_rows, evaluation_rows = rows.get(TRAIN), rows.get(EVALUATION)
    train = evaluation = None
    if TRAIN in rows:
        train = _as_hugging_face(ray.train.get_dataset_shard(TRAIN), train_rows and train_rows // world_size)
        train.info.description = SHARD_OF_RAY_DATA  # kept by `map`, `shuffle` and the like
    if EVALUATION in rows:
        evaluation = _as_hugging_face(ray.train.get_dataset_shard(EVALUATION), evaluation_rows)
    return train, evaluation


def keep_ray_split(trainer: Any) -> None:
    """Makes a `transformers.Trainer` read a training set that Ray Data has split already without splitting it again.

    It changes the trainer's class, so that a user's own subclass and its data loader stay in charge of everything else.
    """
    info = getattr(trainer.train_dataset, "info", None)
    if SHARD_OF_RAY_DATA not in (getattr(info, "description", None) or ""):
        return
    own_class = trainer.__class__

    class RayDataTrainer(own_class):  # type: ignore[misc, valid-type]
        def get_train_dataloader(self) -> DataLoader[Any]:
            from accelerate.data_loader import prepare_data_loader

            prepare = self.accelerator.prepare
            self.accelerator.prepare = lambda loader: prepare_data_loader(
                loader,
                self.accelerator.device,
                num_processes=1,
                process_index=0,
                put_on_device=self.accelerator.device_placement,
                dispatch_batches=False,
            )
            try:
                loader: DataLoader[Any] = super().get_train_dataloader()
                return loader
            finally:
                self.accelerator.prepare = prepare

    RayDataTrainer.__name__ = RayDataTrainer.__qualname__ = own_class.__name__
    trainer.__class__ = RayDataTrainer


def _as_hugging_face(shard: DataIterator, rows: int | None) -> datasets.IterableDataset:
    import datasets
    from datasets.iterable_dataset import ExamplesIterable

    def examples() -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(shard.iter_rows())

    # Not `from_generator`: it pickles what it is given to take a fingerprint, and not every shard can be pickled.
    dataset = datasets.IterableDataset(ExamplesIterable(examples, {})).with_format("torch")
    if rows:
        sized = type("SizedIterableDataset", (type(dataset),), {"__len__": lambda self: rows})
        dataset.__class__ = sized
    return dataset
