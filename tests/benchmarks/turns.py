"""Two programs that train in turns on the same GPUs: a machine's pace changes more than what is compared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.benchmarks import workload

OTHER = {"ours": "bare", "bare": "ours"}
STEPS_A_TURN = 20
PATIENCE_S = 300.0
FAILED = "failed"  # a file beside those of the turns: one of the two is over, and its turn will never end


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
        ended = [self.folder / f"{self.other}-{turn}-{rank}" for rank in range(ranks)] if turn >= 0 else []
        _wait_for(self.folder, f"{self.other}'s turn {turn}", lambda: all(file.exists() for file in ended))


def take_turn(way: str) -> None:
    """Leaves this rank's GPU to a trial of the other way, and waits for its own turn.

    By files, a rank each: a communicator that is made for it here would not be made within the trial.
    """
    give_turn(way)
    turn = _turn(int(os.environ["RANK"]))
    _wait_for(turn.parent, f"{OTHER[way]}'s trial", lambda: turn.read_text() == way)
    workload.note("goes on", way=way)


def give_turn(way: str, ranks: int | None = None) -> None:
    """It is the other way's turn: on this rank's GPU, or on those of all ranks."""
    for rank in range(ranks) if ranks is not None else [int(os.environ["RANK"])]:
        _turn(rank).write_text(OTHER[way])


def _wait_for(folder: Path, what: str, is_over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_over():
        if (folder / FAILED).exists():
            raise RuntimeError(f"{what} will not end: that program has failed")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} has not ended within {PATIENCE_S:.0f} s")
        time.sleep(0.005)


def _turn(rank: int) -> Path:
    return Path(os.environ["BENCH_DIARY"]).with_name(f"turn-{rank}")


def seconds_a_trial(diary: list[dict[str, Any]], way: str) -> list[float]:
    """From the end of one trial to that of the next one, without the turns of the other way."""

    def times(event: str) -> list[float]:
        return [entry["at"] for entry in diary if entry["event"] == event and entry["way"] == way]

    begins, goes_on, ends = times("begins")[1:], times("goes on")[1:], times("ends")
    return [
        (begin - before) + (end - on)
        for before, begin, on, end in zip(ends[:-1], begins, goes_on, ends[1:], strict=True)
    ]
