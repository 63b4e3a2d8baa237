"""What goes wrong in a rank, in words that travel. In every rank."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle

from hfsuite.errors import ConfigurationError, HFSuiteError

FAILURE_OF_RANK = "failure_rank_{rank}.json"  # in the trial's directory, written by a rank that raises


class ExceptionInWords(RuntimeError):
    """Stands for an exception that cannot be sent to another process: its class and message, and its own traceback."""


def failure_path(directory: str, rank: int | str) -> str:
    """Where a rank describes its failure."""
    return f"{directory}/{FAILURE_OF_RANK.format(rank=rank)}"


def describe_failure(error: BaseException, rank: int) -> dict[str, Any]:
    """What goes wrong in a rank, in words: frames do not travel, and not every exception does."""
    frames = error.__traceback__
    outer = (str(Path(__file__).parents[1]), str(Path(ray.__file__).parent))
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename.startswith(outer):
        frames = frames.tb_next
    words = str(error) if isinstance(error, ExceptionInWords) else f"{type(error).__name__}: {error}"
    lines = words.splitlines() if isinstance(error, ConfigurationError) else words.splitlines()[:1]  # all mistakes
    return {
        "rank": rank,
        "at": time.time(),
        "summary": " ".join([*lines, *getattr(error, "__notes__", [])]),
        # What hfsuite refuses is explained by its message.
        "traceback": ""
        if isinstance(error, HFSuiteError)
        else "".join(traceback.format_exception(type(error), error, frames)).strip(),
    }


def travels(error: Exception) -> bool:
    """Whether an exception arrives as itself in another process."""
    try:
        return isinstance(cloudpickle.loads(cloudpickle.dumps(error)), type(error))
    except Exception:  # noqa: BLE001  anything may go wrong in a user's __reduce__ or __init__
        return False
