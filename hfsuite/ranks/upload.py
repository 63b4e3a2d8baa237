"""How a checkpoint gets from a rank's working directory to the run's storage. Runs in the rank that hands it over."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint


def moved(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Persists a checkpoint whose directory will not be needed again: without a copy, where that can be.

    For `ray.train.report(checkpoint_upload_fn=...)`. On one file system every file gets a second name in the run's
    directory, so nothing is written twice; whoever owns the first name must remove it, and not write to it.

    Args:
        checkpoint: a local directory.
        name: of the directory to make in the run's directory; other ranks may add files of their own.
    """
    storage = ray.train.get_context().get_storage()
    if not _on_one_file_system(checkpoint, storage):
        persisted: Checkpoint = storage.persist_current_checkpoint(checkpoint, name)
        return persisted
    target = Path(storage.experiment_fs_path, name)
    shutil.copytree(checkpoint.path, target, copy_function=_second_name, dirs_exist_ok=True)
    return Checkpoint(str(target), storage.storage_filesystem)


def _on_one_file_system(checkpoint: Checkpoint, storage: Any) -> bool:
    if checkpoint.filesystem.type_name != "local" or storage.storage_filesystem.type_name != "local":
        return False
    target = Path(storage.experiment_fs_path)  # missing on another node, if storage is not shared: Ray Train says so
    return target.is_dir() and os.stat(checkpoint.path).st_dev == target.stat().st_dev


def _second_name(source: str, target: str) -> None:
    own = f"{target}.{uuid.uuid4().hex}"  # peers may do the same at this moment, and an attempt before may have done it
    try:
        os.link(os.path.realpath(source), own)
    except OSError:  # not every network folder knows second names
        shutil.copy2(source, own)
    os.replace(own, target)
    Path(own).unlink(missing_ok=True)  # two names of one file replace nothing: both stay
