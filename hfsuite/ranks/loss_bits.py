"""What the loss was at each optimizer step, to the last bit, so that two trainings can be compared. Runs in rank 0.

Every loss is noted where its gradient is computed (`Tensor.backward`, whoever calls it), and each step where an
optimizer makes one. They are read when a report is made, which waits for the device anyway. A report carries eight
hexadecimal digits for each step since the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from hfsuite.report import LOSS_BITS

if TYPE_CHECKING:
    import torch

DIGITS = 8
READ_AFTER = 1_000  # steps without a report


class LossBits:
    """The losses since the last report."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._losses: list[torch.Tensor] = []
        self._ends: list[int] = []  # of each optimizer step, in `_losses`: it may have several, of accumulated batches

    def note(self, loss: torch.Tensor) -> None:
        """Takes the loss of a batch, a scalar on whatever device."""
        self._losses.append(loss.detach().clone())

    def end_step(self) -> None:
        """An optimizer has made a step."""
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
        read = self._losses[: self._ends[-1]]
        values = torch.stack([each.double() for each in read]).cpu().numpy() if read else None
        for start, end in zip([0, *self._ends], self._ends, strict=False):
            content = values[start:end].tobytes() if values is not None else b""
            self._digests.append(hashlib.sha256(content).hexdigest()[:DIGITS])
        self._losses, self._ends = self._losses[self._ends[-1] :], []


@contextmanager
def noted() -> Iterator[LossBits]:
    """Notes all losses and optimizer steps of this process meanwhile."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    bits, backward = LossBits(), torch.Tensor.backward

    def noting(tensor: torch.Tensor, *arguments: Any, **options: Any) -> None:
        if tensor.numel() == 1:
            bits.note(tensor)
        backward(tensor, *arguments, **options)

    hook = register_optimizer_step_post_hook(lambda *_: bits.end_step())
    try:
        with mock.patch.object(torch.Tensor, "backward", noting):
            yield bits
    finally:
        hook.remove()


def by_step(report: Mapping[str, Any], step: int, before: int) -> dict[int, str]:
    """Of a report, the digest of each step.

    Args:
        report: a report.
        step: its optimizer step.
        before: that of the report before it. Where other steps were counted in between than lie between the two (two
            optimizers, or steps that are counted otherwise), all of them are one digest, at the report's step.
    """
    text = report.get(LOSS_BITS)
    if not isinstance(text, str):
        return {}
    digests = [text[start : start + DIGITS] for start in range(0, len(text), DIGITS)]
    if len(digests) != step - before:
        return {step: hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}
    return {before + place: digest for place, digest in enumerate(digests, start=1)}
