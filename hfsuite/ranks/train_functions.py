"""What `ray.train` offers to a training function, completed. In every rank.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.train import Checkpoint
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.train_fn_utils import get_train_fn_utils

from hfsuite.checkpoints import manifest
from hfsuite.errors import WrongFunction
from hfsuite.ranks.conditions import Added, nothing
from hfsuite.ranks.surroundings import python_numbers
from hfsuite.ranks.upload import moved


def extend_train_functions(start_from: Checkpoint | None, added: Added = nothing) -> None:
    """Completes what `ray.train` offers in this rank. Runs in every rank, before the trainer's loop.

    `ray.train.get_checkpoint()` falls back to `start_from`. Each report is numbered (`training_iteration`), and its
    numbers are Python's own: Ray Train fails on NumPy's where there is a checkpoint, and MLflow would not record them.
    A checkpoint whose directory shall be deleted after the report is moved instead of copied. A report also carries
    what `added` says to it.
    """
    functions = get_train_fn_utils()
    own_checkpoint, own_report = functions.get_checkpoint, functions.report
    given = earlier = own_checkpoint()  # of an attempt before this one, in the same run
    if given is not None:
        storage = get_train_context().get_storage()
        earlier = manifest.complete_or_older(given, storage.storage_filesystem, storage.experiment_fs_path)
    reports = (manifest.read(earlier)["training_iteration"] or 0) if earlier is not None else 0

    def get_checkpoint() -> Checkpoint | None:
        newest = own_checkpoint()
        return newest if newest is not given else earlier or start_from

    def report(metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        nonlocal reports
        if not isinstance(metrics, Mapping):
            raise WrongFunction(f"ray.train.report takes a dict of what is reported, got {metrics!r}.")
        reports += 1
        if kwargs.get("delete_local_checkpoint_after_upload") and not kwargs.get("checkpoint_upload_fn"):
            kwargs["checkpoint_upload_fn"] = moved
        own_report({**python_numbers(metrics), **added(metrics), "training_iteration": reports}, *args, **kwargs)

    functions.get_checkpoint, functions.report = get_checkpoint, report
