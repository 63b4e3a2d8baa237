"""Why a trial or a sweep ended, in words. Driver."""

from __future__ import annotations

from collections.abc import Sequence

from ray.tune.experiment import Trial

from hfsuite.errors import ConfigurationError, WrongFunction
from hfsuite.report import FAILURE_FILE
from hfsuite.tracking.directory import SweepDirectory

SILENT = "The trial's process ended without a word: look at Ray's logs."


def failure_text(directory: SweepDirectory, name: str, trial: Trial) -> str:
    """The failed rank's own traceback; where no rank could write one, what Ray Tune knows.

    Args:
        directory: the sweep's.
        name: of the trial's directory in it.
        trial: Ray Tune's.
    """
    return (directory.read_text(f"{name}/{FAILURE_FILE}") or str(trial.get_error() or SILENT)).strip()


def is_hopeless(failure: str, before: Sequence[str]) -> bool:
    """Whether all other trials would fail in the same way.

    Args:
        failure: of a trial.
        before: the first lines of others' failures: whatever their settings, what was asked for could not be.
    """
    line = first_line(failure)
    refused = line.partition(f" {ConfigurationError.__name__}: ")[2]
    return f"{WrongFunction.__name__}: " in line or any(refused and each.endswith(refused) for each in before)


def of_error(error: Exception) -> str:
    """An error in one line: its message, or what stands under the traceback that Ray Tune makes of another's."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if lines[0].startswith("Traceback") else f"{type(error).__name__}: {lines[0]}"


def first_line(text: str | None) -> str:
    """Of a text that may not be there."""
    return text.splitlines()[0] if text else ""
