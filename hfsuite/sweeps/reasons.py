"""Why a trial or a sweep ended, in words. Driver."""

from __future__ import annotations

from ray.tune.experiment import Trial

from hfsuite.errors import WrongFunction
from hfsuite.tracking.directory import FAILURE_FILE, SweepDirectory

SILENT = "The trial's process ended without a word: look at Ray's logs."


def failure_text(directory: SweepDirectory, name: str, trial: Trial) -> str:
    """The failed rank's own traceback; where no rank could write one, what Ray Tune knows.

    Args:
        directory: the sweep's.
        name: of the trial's directory in it.
        trial: Ray Tune's.
    """
    return (directory.read_text(f"{name}/{FAILURE_FILE}") or str(trial.get_error() or SILENT)).strip()


def is_hopeless(failure: str) -> bool:
    """Whether all other trials would fail in the same way."""
    return f"{WrongFunction.__name__}: " in first_line(failure)


def of_error(error: Exception) -> str:
    """An error in one line: its message, or what stands under the traceback that Ray Tune makes of another's."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if lines[0].startswith("Traceback") else f"{type(error).__name__}: {lines[0]}"


def first_line(text: str | None) -> str:
    """Of a text that may not be there."""
    return text.splitlines()[0] if text else ""
