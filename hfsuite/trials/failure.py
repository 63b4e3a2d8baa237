"""Why a training has failed, as its ranks have written it down. In the trial's actor."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.exceptions import RayActorError

from hfsuite.errors import HFSuiteError, TrialFailed
from hfsuite.ranks.failure import FAILURE_OF_RANK
from hfsuite.ranks.surroundings import OUTPUT_OF_RANK

TIMED_OUT = re.compile(rb"Watchdog caught (collective operation timeout: .*? before timing out)")  # PyTorch's words
# PyTorch's words, those of CUDA's libraries, and of NCCL, which needs memory too.
NO_GPU_MEMORY = re.compile(
    r"(CUDA|HIP|CUDA error:) out of memory|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|"
    r"nccl.*(out of memory|Cuda failure 2)",
    re.IGNORECASE,
)
LAST_BYTES = 1 << 20  # of a rank's output: the watchdog's words, and the stacks of its threads behind them


def is_out_of_gpu_memory(failure: str) -> bool:
    """Whether what a trial failed of is that its GPU had no memory left.

    Args:
        failure: the text of the failure.
    """
    return NO_GPU_MEMORY.search(failure) is not None


def first_cause(error: BaseException) -> BaseException | None:
    """The exception that a rank raised, out of what Ray Train makes of it; None where a process just died."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        return getattr(failure, "_base_exc", failure)
    return getattr(error, "controller_failure", None)


def read_failures(filesystem: pyarrow.fs.FileSystem, directory: str) -> list[dict[str, Any]]:
    """What the ranks of a trial have left. A peer that was killed while it wrote has left nothing of use."""
    failures = []
    for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(directory)):
        if entry.is_file and fnmatch(entry.base_name, FAILURE_OF_RANK.format(rank="*")):
            with filesystem.open_input_stream(entry.path) as stream, suppress(ValueError):
                failures.append(json.loads(stream.read()))
    return failures


def in_words(errors: Mapping[int, BaseException]) -> str:
    """One line of what the ranks' errors say, each once."""
    told: dict[str, int] = {}
    for rank, error in sorted(errors.items()):
        cause = getattr(error, "health_check_failure", error)
        own = f"{cause}" if isinstance(cause, HFSuiteError) else f"{type(cause).__name__}: {cause}"
        told.setdefault("its process died" if isinstance(cause, RayActorError) else own.splitlines()[0], rank)
    return "; ".join(f"rank {rank}: {line}" for line, rank in told.items())


def explain(error: BaseException, filesystem: pyarrow.fs.FileSystem, directory: str, output: Path) -> TrialFailed:
    """The first failure of a rank, as that rank described it: its peers often fail too, by its absence.

    Args:
        error: what Ray Train makes of it.
        filesystem: of the trial's directory.
        directory: the trial's.
        output: where the ranks' output files are, on their nodes.
    """
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    dead = sorted(
        rank
        for rank, failure in failures.items()
        if isinstance(getattr(failure, "health_check_failure", None), RayActorError)
    )
    if dead:
        outputs = {rank: output / OUTPUT_OF_RANK.format(rank=rank) for rank in dead}
        timeouts = {rank: words for rank, path in outputs.items() if (words := _timeout_in(path))}
        rank = next(iter(timeouts), dead[0])
        why = timeouts.get(rank, "killed, out of memory, a collective that timed out, or a crash in native code")
        return TrialFailed(
            f"rank {rank}: the worker process died without a Python exception ({why}). Its last output is in "
            f"{outputs[rank]}",
            rank,
        )
    cause = first_cause(error) or error
    if isinstance(cause, TrialFailed):
        return cause
    if left := read_failures(filesystem, directory):
        first = min(left, key=lambda each: each["at"])
        return TrialFailed(f"rank {first['rank']}: {first['summary']}", first["rank"], first["traceback"])
    frames = "".join(traceback.format_exception(cause)).strip()
    return TrialFailed(f"{type(cause).__name__}: {cause}".splitlines()[0], None, frames)


def _timeout_in(output: Path) -> str:
    """What PyTorch's watchdog printed before it ended the process, if it did and the file is on this node."""
    if not output.is_file():
        return ""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - LAST_BYTES))
        found = TIMED_OUT.findall(file.read())
    return found[-1].decode(errors="replace") if found else ""
