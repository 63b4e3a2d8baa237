"""What a rank of a trial leaves for people to read: its output, and its failure. Runs in every rank."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray

from hfsuite.errors import HFSuiteError
from hfsuite.trainers.rank_start import ExceptionInWords

OUTPUT_OF_RANK = "rank_{rank}.log"
LEFT_BY_RANK = ".left_by_{rank}"
FAILURE_OF_RANK = "failure_rank_{rank}.json"  # in the trial's directory, written by a rank that raises


def failure_path(directory: str, rank: int | str) -> str:
    """Where a rank describes its failure."""
    return f"{directory}/{FAILURE_OF_RANK.format(rank=rank)}"


def read_failures(filesystem: pyarrow.fs.FileSystem, directory: str) -> list[dict[str, Any]]:
    """What the ranks of a trial have left. A peer that was killed while it wrote has left nothing of use."""
    failures = []
    for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(directory)):
        if entry.is_file and fnmatch(entry.base_name, FAILURE_OF_RANK.format(rank="*")):
            with filesystem.open_input_stream(entry.path) as stream, suppress(ValueError):
                failures.append(json.loads(stream.read()))
    return failures


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


def describe_failure(error: BaseException, rank: int) -> dict[str, Any]:
    """What goes wrong in a rank, in words: frames do not travel, and not every exception does."""
    frames = error.__traceback__
    outer = (str(Path(__file__).parents[1]), str(Path(ray.__file__).parent))
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename.startswith(outer):
        frames = frames.tb_next
    words = str(error) if isinstance(error, ExceptionInWords) else f"{type(error).__name__}: {error}"
    return {
        "rank": rank,
        "at": time.time(),
        "summary": words.splitlines()[0],
        # What hfsuite refuses is explained by its message.
        "traceback": ""
        if isinstance(error, HFSuiteError)
        else "".join(traceback.format_exception(type(error), error, frames)).strip(),
    }
