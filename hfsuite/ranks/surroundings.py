"""What surrounds a training function in a rank of a trial: imports, working directory, output. Runs in every rank."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.fs

SHOWN = 80  # characters of what is reported and is no usable number
OUTPUT_OF_RANK = "rank_{rank}.log"
LEFT_BY_RANK = ".left_by_{rank}"
SCRATCH = ".scratch_"
STARTED_BY = "HFSUITE_WORKER"  # in the environment of what a worker starts: its name
MEET_WITHIN_S, TRY_EVERY_S = 5.0, 0.002  # how long a rank waits for rank 0 to listen, before PyTorch tries by itself


def import_modules(names: Sequence[str]) -> None:
    """Imports what a trial will need. What cannot be imported is left to the trial, which says so with a traceback."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


def end_processes_of(workers: Sequence[str]) -> None:
    """Kills what these workers have started on this node: a worker that was killed cannot do so itself."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(STARTED_BY) in workers:
                process.kill()


@contextmanager
def in_scratch(scratch: Path, local_rank: int, local_world_size: int) -> Iterator[None]:
    """A new working directory that the ranks of a node share; the last of them to leave it removes it."""
    left = scratch / LEFT_BY_RANK.format(rank=local_rank)
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(scratch)
    try:
        yield
    finally:
        os.chdir(scratch.parent)
        with suppress(FileNotFoundError):  # a peer removes it at this moment
            left.touch()
            if len(list(scratch.glob(LEFT_BY_RANK.format(rank="*")))) >= local_world_size:
                shutil.rmtree(scratch, ignore_errors=True)
                with suppress(OSError):  # there may be more in it
                    scratch.parent.rmdir()


def name_of_scratch(owner: str) -> str:
    """What the names of all working directories begin with that an actor gives to its ranks.

    Args:
        owner: what all trials of a driver have in common, and those of a driver before it do not.
    """
    return f"{SCRATCH}{owner[:8]}_{uuid.uuid4().hex[:8]}"


def scratch_directory(run: Any, name: str, attempt: str, node: int) -> Path:
    """The working directory of the ranks of a node, new for each attempt at a trial.

    Args:
        run: Ray Train's context of the run.
        name: what it begins with, see `name_of_scratch`.
        attempt: at the trial.
        node: which of the run's nodes.
    """
    return _folder(run) / f"{name}_{attempt}_{node}"


def remove_scratch(filesystem: pyarrow.fs.FileSystem, directory: str, name: str) -> None:
    """Removes the working directories that killed ranks have left in a trial's directory. In the trial's actor.

    Its own ones, and what drivers before this one have left; not those of other actors of this driver. A member of a
    population that was paused unwinds in one actor while it goes on in another: neither takes the other's away.

    Args:
        filesystem: of the trial's directory.
        directory: the trial's.
        name: what the names of its own begin with.
    """
    owner, _, _ = name.rpartition("_")
    if filesystem.type_name == "local":
        for left in Path(directory).glob(f"{SCRATCH}*"):
            if left.name.startswith(f"{name}_") or not left.name.startswith(f"{owner}_"):
                shutil.rmtree(left, ignore_errors=True)


def _folder(run: Any) -> Path:
    """Where ranks work and print: in the trial's directory, or beside it if that is not on a file system."""
    storage = run.run_config.storage_context
    if storage.storage_filesystem.type_name == "local":  # then a checkpoint that is saved there need not be copied
        return Path(storage.experiment_fs_path)
    return Path(storage.local_working_directory, run.run_id)


@dataclass
class OutputFile:
    """What a rank prints, as `rank_N.log` in its trial's directory. Ray would print it twice in the driver.

    Args:
        filesystem: of the trial's directory.
        directory: the trial's.
        path: the file that is printed to, on this node: one of a remote file system cannot be.
    """

    filesystem: pyarrow.fs.FileSystem
    directory: str
    path: Path
    _before: list[int] = field(init=False, default_factory=list)

    def __enter__(self) -> None:
        """From now on everything this process prints, C++ included, goes to the file."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._before = [os.dup(1), os.dup(2)]
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def __exit__(self, *_: object) -> None:
        """Copies the file to the trial's directory, if it is not there, and prints where it printed before."""
        self.keep()
        for number, descriptor in enumerate(self._before, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        self._before = []

    def keep(self) -> None:
        """As at the end: what was printed so far reaches the trial's directory, and is there alone."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.filesystem.type_name == "local" or not self.path.is_file():
            return
        kept, earlier = f"{self.directory}/{self.path.name}", b""
        if self.filesystem.get_file_info(kept).is_file:  # of an attempt before this one
            with self.filesystem.open_input_stream(kept) as stream:
                earlier = stream.read()
        with self.filesystem.open_output_stream(kept) as stream:
            stream.write(earlier + self.path.read_bytes())
        self.path.unlink()


def output_file(run: Any, rank: int) -> OutputFile:
    """What a rank prints.

    Args:
        run: Ray Train's context of the run.
        rank: world rank.
    """
    storage = run.run_config.storage_context
    path = _folder(run) / OUTPUT_OF_RANK.format(rank=rank)
    return OutputFile(storage.storage_filesystem, storage.experiment_fs_path, path)


def meet_rank_zero(join: Callable[..., None], *args: Any, init_method: str, **kwargs: Any) -> None:
    """Joins the process group when rank 0 listens. PyTorch, if it comes too early, tries again after half a second.

    Runs in ranks above 0.

    Args:
        join: joins it; gets all other arguments.
        init_method: where rank 0 will listen.
    """
    address = (
        init_method if init_method != "env://" else f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    )
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    deadline = time.monotonic() + MEET_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=MEET_WITHIN_S):
            break
        time.sleep(TRY_EVERY_S)
    join(*args, init_method=init_method, **kwargs)


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
    """Numbers of NumPy, torch and the decimal module as Python's own, in nested dicts too; anything else as it is.

    Ray Tune computes with all that call themselves numbers: one that it cannot add to others (a complex one, a whole
    one beyond all floating-point numbers) is a text.
    """
    if isinstance(value, Mapping):
        return {name: python_numbers(each) for name, each in value.items()}
    if value is np.ma.masked:  # the mean of nothing
        return math.nan
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, Number) or isinstance(value, bool | float):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return _shortened(value)
    return value if isinstance(value, int) else number


def _shortened(value: Any) -> str:
    try:
        text = str(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = hex(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
