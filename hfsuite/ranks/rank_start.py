"""Where a rank's training begins, and how what goes wrong there reaches the driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.train import Checkpoint

from hfsuite.later import Later
from hfsuite.ranks.conditions import Conditions
from hfsuite.ranks.failure import ExceptionInWords, travels
from hfsuite.ranks.relative_paths import meant
from hfsuite.ranks.train_functions import extend_train_functions


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
        try:
            with self.conditions.in_force() as added:
                extend_train_functions(self.start_from, added)
                returned = self.loop(dict(config))
                if self.examination is not None:
                    self.examination.value.hold(dict(config))
            return returned
        except Exception as error:
            if path := meant(error, self.made_in):
                error.add_note(f"Ranks work in folders of their own. Give the whole path: {path}")
            if travels(error):
                raise
            raise ExceptionInWords(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__) from None
