"""Two programs that train in turns on the same GPUs: a machine's pace changes more than what is compared."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.benchmarks import workload

STEPS_A_TURN = 20
PATIENCE_S = 300.0


class InTurns(TrainerCallback):
    """Every rank of a program trains so many steps, then waits until every rank of the other one has.

    Args:
        folder: where both note that they have ended a turn.
        way: this program's name.
        other: that of the other one.
        first: whether it begins.
    """

    def __init__(self, folder: Path, way: str, other: str, *, first: bool) -> None:
        self.folder, self.way, self.other, self.first = folder, way, other, first
        self.began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        turn, place = divmod(state.global_step, STEPS_A_TURN)
        if place == 0:
            self._wait_for_the_other(turn - 1 if self.first else turn, args.world_size)
            self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        turn, place = divmod(state.global_step, STEPS_A_TURN)
        if place == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - self.began
            workload.note("turn", way=self.way, turn=turn - 1, seconds=seconds, steps=STEPS_A_TURN)
            (self.folder / f"{self.way}-{turn - 1}-{args.process_index}").touch()

    def _wait_for_the_other(self, turn: int, ranks: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while turn >= 0 and not all((self.folder / f"{self.other}-{turn}-{rank}").exists() for rank in range(ranks)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.other} has not ended its turn {turn} within {PATIENCE_S:.0f} s")
            time.sleep(0.005)
