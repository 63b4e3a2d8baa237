"""Under which a training function runs: seeds, determinism, what is noted beside it. Runs in every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import ray.train

from hfsuite.ranks import facts, loss_bits, pace
from hfsuite.ranks.determinism import compute_deterministically, seed_all
from hfsuite.report import LOSS_BITS

Added = Callable[[Mapping[str, Any]], dict[str, Any]]  # from a report to what is to be added to it


def nothing(_: Mapping[str, Any]) -> dict[str, Any]:
    """What is added to a report where there is nothing to add."""
    return {}


@dataclass(frozen=True)
class Conditions:
    """Under which a training function runs.

    Args:
        seed: from which all generators are seeded before it; None leaves them as they are.
        deterministic: whether PyTorch shall compute the same bits each time.
        notes_losses: whether reports carry the digests of the losses; see `loss_bits`.
        ends_at_first_step: whether the training is only begun, to learn what it is given: see `facts`.
        logged_to: from a world rank to what takes what its training function logs itself, which yields what is told of
            each report, and answers with what is to be added to it; None for nothing.
        metric: what a sweep optimises; empty where none does.
        keeps_batch: whether a training that goes on is refused if a step takes another number of rows than before.
        paced: the trial and its slot, where the driver is told how fast it trains: see `pace`.
    """

    seed: int | None = None
    deterministic: bool = False
    notes_losses: bool = False
    ends_at_first_step: bool = False
    logged_to: Callable[[int], AbstractContextManager[Added]] | None = None
    metric: str = ""
    keeps_batch: bool = False
    paced: tuple[str, str] | None = None

    @contextmanager
    def in_force(self) -> Iterator[Added]:
        """Runs in every rank; yields what is to be added to each of its reports."""
        if self.seed is not None:
            seed_all(self.seed)
        if self.deterministic:
            compute_deterministically()
        if self.ends_at_first_step:
            with ended_at_first_step() as end:
                yield end
            return
        rank = ray.train.get_context().get_world_rank()
        with (
            facts.batch_kept() if self.keeps_batch and rank == 0 else nullcontext(),
            pace.told(*self.paced, rank) if self.paced is not None else nullcontext(),
            self.logged_to(rank) if self.logged_to is not None else nullcontext(nothing) as met,
        ):
            if not self.notes_losses or rank > 0:
                yield met
                return
            with loss_bits.noted() as bits:
                yield lambda report: {**met(report), **({LOSS_BITS: text} if (text := bits.take()) else {})}


class FirstStepReached(Exception):
    """Ends a training that was only begun."""


@contextmanager
def ended_at_first_step() -> Iterator[Added]:
    """Raises `FirstStepReached` where the first gradient would be computed; yields what does so in a report."""
    import torch

    def end(*_: Any, **__: Any) -> dict[str, Any]:
        raise FirstStepReached

    with mock.patch.object(torch.Tensor, "backward", end):
        yield end
