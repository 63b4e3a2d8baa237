"""What surrounds a training function in a rank of a trial: imports, working directory, output. Runs in every rank."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs

OUTPUT_OF_RANK = "rank_{rank}.log"
LEFT_BY_RANK = ".left_by_{rank}"
MEET_WITHIN_S, TRY_EVERY_S = 5.0, 0.002  # how long a rank waits for rank 0 to listen, before PyTorch tries by itself


def import_modules(names: Sequence[str]) -> None:
    """Imports what a trial will need. What cannot be imported is left to the trial, which says so with a traceback."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


@contextmanager
def in_scratch(scratch: Path, local_rank: int, local_world_size: int) -> Iterator[None]:
    """A working directory that the ranks of a node share; the last of them to leave it removes it."""
    left = scratch / LEFT_BY_RANK.format(rank=local_rank)
    scratch.mkdir(parents=True, exist_ok=True)
    left.unlink(missing_ok=True)  # of an attempt before this one
    os.chdir(scratch)
    try:
        yield
    finally:
        os.chdir(scratch.parent)
        with suppress(FileNotFoundError):  # a peer removes it at this moment
            left.touch()
            if len(list(scratch.glob(LEFT_BY_RANK.format(rank="*")))) >= local_world_size:
                shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class OutputFile:
    """What a rank prints, as `rank_N.log` in its trial's directory. Ray would print it twice in the driver.

    Args:
        filesystem: of the trial's directory.
        directory: the trial's.
        rank: world rank.
        scratch: a folder of this node; a file of a remote file system cannot be printed to, so it is written there.
    """

    filesystem: pyarrow.fs.FileSystem
    directory: str
    rank: int
    scratch: Path

    @property
    def path(self) -> Path:
        """The file that is printed to, on this node."""
        folder = Path(self.directory) if self.filesystem.type_name == "local" else self.scratch
        return folder / OUTPUT_OF_RANK.format(rank=self.rank)

    def __enter__(self) -> None:
        """From now on everything this process prints, C++ included, goes to the file."""
        sys.stdout.flush()
        sys.stderr.flush()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def __exit__(self, *_: object) -> None:
        """Copies the file to the trial's directory, if it is not there."""
        self.keep()

    def keep(self) -> None:
        """As at the end: what was printed so far reaches the trial's directory."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.filesystem.type_name != "local" and self.path.is_file():
            with self.filesystem.open_output_stream(f"{self.directory}/{self.path.name}") as stream:
                stream.write(self.path.read_bytes())


def output_file(run: Any, rank: int, node: int = 0) -> OutputFile:
    """What a rank prints, and the working directory of the ranks of its node.

    Args:
        run: Ray Train's context of the run.
        rank: world rank.
        node: which of the run's nodes the rank is on.
    """
    storage = run.run_config.storage_context
    if storage.storage_filesystem.type_name == "local":  # then a checkpoint that is saved there need not be copied
        scratch = Path(storage.experiment_fs_path, f".node_{node}")
    else:
        scratch = Path(storage.local_working_directory, run.run_id)
    return OutputFile(storage.storage_filesystem, storage.experiment_fs_path, rank, scratch)


def meet_rank_zero(*args: Any, init_method: str, **kwargs: Any) -> None:
    """Joins the process group when rank 0 listens. PyTorch, if it comes too early, tries again after half a second.

    For ranks above 0, in the place of Ray's own function and with its arguments.
    """
    from ray.train.torch.config import _setup_torch_process_group  # imports torch: the trial's actor need not wait

    address = (
        init_method if init_method != "env://" else f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    )
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    deadline = time.monotonic() + MEET_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=MEET_WITHIN_S):
            break
        time.sleep(TRY_EVERY_S)
    _setup_torch_process_group(*args, init_method=init_method, **kwargs)


class NoDatasets:
    """What a trainer without Ray Datasets offers; Ray Train would start an actor to say so."""

    def get_dataset_shard(self, dataset_info: Any) -> Any:
        """There is none.

        Raises:
            KeyError: always, with what to do.
        """
        raise KeyError(
            f"The trainer was given no Ray Dataset, so there is no {dataset_info.dataset_name!r}: give it "
            "`datasets`, or build the data in the training function."
        )


def python_numbers(value: Any) -> Any:
    """Numbers of NumPy and torch as Python's own, in nested dicts too; anything else as it is."""
    if isinstance(value, Mapping):
        return {name: python_numbers(each) for name, each in value.items()}
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
