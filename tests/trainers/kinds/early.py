"""Trainings that end early by what an evaluation says, with an interruption or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from tests.trainers.kinds.variants import classifier

SCORES = [1.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4]  # at each step; the second is the best
PATIENCE = 3
STOPS_AT = 2 + PATIENCE


class Counts(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Keeps how many steps it has seen, and how it was built."""

    def __init__(self, label: str = "") -> None:
        self.label, self.seen = label, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"args": {"label": self.label}, "attributes": {"seen": self.seen}}


class Interrupted(Exception):
    """What ends a training the first time."""


class FailsOnce(TrainerCallback):  # type: ignore[misc]
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.mark and state.global_step == STOPS_AT and not Path(self.mark).exists():
            if state.is_world_process_zero:
                Path(self.mark).touch()
            raise Interrupted("in the step before the last evaluation")


class Scored(Trainer):
    """Evaluates to what is written."""

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.compute_metrics = lambda _: {
            "score": SCORES[self.state.global_step - 1],
            "seen": next(each.seen for each in self.callback_handler.callbacks if isinstance(each, Counts)),
        }
        return super().evaluate(*args, **kwargs)


def stopping(mark: str = "", *, restores: bool = False, label: str = "") -> Trainer:
    return classifier(
        Scored, callbacks=[Counts(label), EarlyStoppingCallback(PATIENCE), FailsOnce(mark)], max_steps=len(SCORES),
        save_strategy="steps", save_steps=1, metric_for_best_model="score", greater_is_better=True,
        restore_callback_states_from_checkpoint=restores,
    )  # fmt: skip
