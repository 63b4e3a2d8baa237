"""What the loss was at each optimizer step, to the last bit, so that two trainings can be compared. Runs in rank 0.

Both trainers hand their losses to `Accelerator.backward`. There they are noted where they are, and read when a report
is made, which waits for the device anyway. A report carries eight hexadecimal digits for each step since the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    import torch

LOSS_BITS = "loss_bits"  # in a report: the digests of the steps since the last one, one after another
DIGITS = 8
READ_AFTER = 1_000  # steps without a report


class LossBits:
    """The losses since the last report."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._losses: list[torch.Tensor] = []
        self._ends: list[int] = []  # of each optimizer step, in `_losses`: it may have several, of accumulated batches

    def note(self, loss: torch.Tensor, *, ends_step: bool) -> None:
        """Takes the loss of a batch.

        Args:
            loss: a scalar, on whatever device.
            ends_step: whether the optimizer makes its step now.
        """
        self._losses.append(loss.detach())
        if ends_step:
            self._ends.append(len(self._losses))
        if len(self._ends) >= READ_AFTER:
            self._read()

    def take(self) -> str:
        """The digests of the steps that are complete; from then on it collects anew."""
        self._read()
        digests, self._digests = "".join(self._digests), []
        return digests

    def _read(self) -> None:
        import torch

        if not self._ends:
            return
        values = torch.stack([each.double() for each in self._losses[: self._ends[-1]]]).cpu().numpy()
        starts = [0, *self._ends]
        self._digests += [
            hashlib.sha256(values[start:end].tobytes()).hexdigest()[:DIGITS]
            for start, end in zip(starts, self._ends, strict=False)
        ]
        self._losses, self._ends = self._losses[self._ends[-1] :], []


@contextmanager
def noted() -> Iterator[LossBits]:
    """Notes the losses that are handed to `Accelerator.backward` meanwhile."""
    from accelerate import Accelerator

    bits, backward = LossBits(), Accelerator.backward

    def noting(accelerator: Accelerator, loss: torch.Tensor, **options: Any) -> None:
        bits.note(loss, ends_step=bool(accelerator.sync_gradients))
        backward(accelerator, loss, **options)

    with mock.patch.object(Accelerator, "backward", noting):
        yield bits


def by_step(report: Mapping[str, Any], step: int) -> dict[int, str]:
    """Of a report, the digest of each step.

    Args:
        report: a report.
        step: its optimizer step: the last of those that it tells of.
    """
    text = report.get(LOSS_BITS)
    if not isinstance(text, str):
        return {}
    digests = [text[start : start + DIGITS] for start in range(0, len(text), DIGITS)]
    return {step - len(digests) + place: digest for place, digest in enumerate(digests, start=1)}
