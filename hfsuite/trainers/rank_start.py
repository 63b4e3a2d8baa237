"""Where a rank's training begins, and how what goes wrong there reaches the driver."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import cloudpickle
from ray.train import Checkpoint

from hfsuite.trainers.conditions import Conditions
from hfsuite.trainers.later import Later


@dataclass(frozen=True)
class RankStart:
    """The first thing that a rank runs: sets where to start from, then the trainer's own loop.

    Args:
        loop: gets a copy of the configuration, so that what a rank pops from it stays with that rank.
        start_from: what `ray.train.get_checkpoint()` says until the run has a checkpoint of its own.
        conditions: seeds, determinism and what else surrounds the loop.
        examination: what follows it, if anything does.
        made_in: the driver's working directory.
    """

    loop: Callable[[dict[str, Any]], Any]
    start_from: Checkpoint | None
    conditions: Conditions
    examination: Later | None = None
    made_in: str = ""

    def __call__(self, config: dict[str, Any]) -> Any:
        """Runs in every rank, in the thread that Ray Train makes for it."""
        from hfsuite.trials.worker_group import extend_train_functions

        try:
            with self.conditions.in_force() as added:
                extend_train_functions(self.start_from, added)
                returned = self.loop(dict(config))
                if self.examination is not None:
                    self.examination.value.hold(dict(config))
            return returned
        except Exception as error:
            if isinstance(error, OSError) and (path := _meant(str(error), self.made_in)):
                error.add_note(f"Ranks work in folders of their own. Give the whole path: {path}")
            if _travels(error):
                raise
            raise ExceptionInWords(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__) from None


class ExceptionInWords(RuntimeError):
    """Stands for an exception that cannot be sent to another process: its class and message, and its own traceback."""


def first_cause(error: BaseException) -> BaseException | None:
    """The exception that a rank raised, out of what Ray Train makes of it; None where a process just died."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        return getattr(failure, "_base_exc", failure)
    return getattr(error, "controller_failure", None)


def _meant(said: str, made_in: str) -> str:
    """The file or folder of the driver's that a rank has looked for in its own working directory; empty if none is."""
    quoted = [each for pair in re.findall(r"'([^']+)'|\"([^\"]+)\"", said) for each in pair if each]
    for each in (*quoted, *(word for word in said.split() if os.sep in word)) if made_in else ():
        relative = os.path.relpath(each, os.getcwd()) if os.path.isabs(each) else each
        if not relative.startswith(os.pardir) and os.path.exists(path := os.path.join(made_in, relative)):
            return os.path.normpath(path)
    return ""


def _travels(error: Exception) -> bool:
    """Whether an exception arrives as itself in another process."""
    try:
        return isinstance(cloudpickle.loads(cloudpickle.dumps(error)), type(error))
    except Exception:  # noqa: BLE001  anything may go wrong in a user's __reduce__ or __init__
        return False
