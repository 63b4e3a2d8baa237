"""What surrounds a training function in a rank of a trial: imports, working directory, output. Runs in every rank."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs

OUTPUT_OF_RANK = "rank_{rank}.log"
LEFT_BY_RANK = ".left_by_{rank}"


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
        sys.stdout.flush()
        sys.stderr.flush()
        if self.filesystem.type_name != "local":
            with self.filesystem.open_output_stream(f"{self.directory}/{self.path.name}") as stream:
                stream.write(self.path.read_bytes())


def python_numbers(value: Any) -> Any:
    """Numbers of NumPy and torch as Python's own, in nested dicts too; anything else as it is."""
    if isinstance(value, Mapping):
        return {name: python_numbers(each) for name, each in value.items()}
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
