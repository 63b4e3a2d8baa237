"""What a rank of a trial leaves for people to read: its output, and its failure. Runs in every rank."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def send_output_to(path: Path) -> None:
    """Everything this process prints, C++ included, goes to a file. Ray would print it twice in the driver."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def describe_failure(error: BaseException, rank: int) -> dict[str, Any]:
    """What goes wrong in a rank, in words: frames do not travel, and not every exception does."""
    frames = error.__traceback__
    ours = str(Path(__file__).parents[1])
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename.startswith(ours):
        frames = frames.tb_next
    return {
        "rank": rank,
        "at": time.time(),
        "summary": f"{type(error).__name__}: {error}".splitlines()[0],
        "traceback": "".join(traceback.format_exception(type(error), error, frames)).strip(),
    }
