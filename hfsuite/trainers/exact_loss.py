"""Losses of a `transformers.Trainer` that mean the same on any number of workers, and by any division into batches.

Transformers multiplies a loss by the number of ranks where it believes that the model divides it by the number of items
in the whole step, which classification heads do not; it averages the losses of evaluation batches as if all were
equally large, and leaves NaN out. Here each batch's loss is its own mean, whoever computes it (the model is asked for
the batch's own number of items), and all are averaged by what they are means of: tokens with a label, or rows. Which
it is, is found out: the loss of a batch is compared with those of its halves. Runs in every rank.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers.trainer_pt_utils import find_batch_size

from hfsuite.trainers.dealing import EVALUATION, prepared_for, shares_at_hand

if TYPE_CHECKING:
    import transformers

ITEMS, ROWS, NEITHER = "items", "rows", "neither"  # what a loss is a mean of
IGNORED = -100  # a label that counts nothing
KINDS = (ITEMS, ROWS, NEITHER)
TOLERANCES, HALF_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}, 2e-2  # of a loss, relative
DEPENDS = (
    "the size of evaluation batches and the number of workers: the loss is a mean neither over labels nor over rows"
)

PARALLEL = "the number of workers and batches: in model-parallel trainings it is as Transformers computes it"


class ExactLoss:
    """Put before the class of a user's trainer: all that a subclass overrides stays in charge of what a loss is."""

    averages_over: str | None = None  # ITEMS, ROWS or NEITHER, when it is known
    is_assumed = False  # whether that could not be found out
    rows_trained: int | torch.Tensor = 0  # by all ranks
    _weights: deque[torch.Tensor]  # of the batches of the step at hand
    _total: torch.Tensor | None = None  # of all batches of all ranks of the step
    _share: torch.Tensor | None = None  # of the batch whose gradient is computed
    _measured: list[torch.Tensor] | None = None  # by the evaluation at hand: a loss times its weight, and the weight

    def get_train_dataloader(self: Any) -> Any:
        """The user's, whose rows are dealt for whole optimizer steps."""
        with prepared_for(self.accelerator, self.args.gradient_accumulation_steps):
            return super().get_train_dataloader()  # type: ignore[misc]

    def get_eval_dataloader(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The user's, of all rows."""
        with prepared_for(self.accelerator, EVALUATION):
            return super().get_eval_dataloader(*args, **kwargs)  # type: ignore[misc]

    def get_test_dataloader(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The user's, of all rows."""
        with prepared_for(self.accelerator, EVALUATION):
            return super().get_test_dataloader(*args, **kwargs)  # type: ignore[misc]

    def get_batch_samples(self: Any, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[Any, Any]:
        """The batches of an optimizer step, and what they weigh over all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        if not batches:
            return batches, None
        if self.averages_over is None:
            self._find_out(self.model_wrapped, batches[0])
        counts = shares_at_hand(self.accelerator)
        stands_in = counts is not None and not counts[self.accelerator.process_index]
        last = len(batches) - 1
        rows = [0 if stands_in and place == last else _rows(batch) for place, batch in enumerate(batches)]
        weights = [self._weight(batch, count) for batch, count in zip(batches, rows, strict=True)]
        sums = torch.stack([sum(weights), torch.full_like(weights[0], float(sum(rows)))])
        sums = self.accelerator.reduce(sums, "sum")
        self.rows_trained = self.rows_trained + sums[1].long()
        self._weights, self._total = deque(weights), sums[0]
        return batches, self._total

    def _get_num_items_in_batch(self, *_: Any) -> None:
        """Nothing: a model is told what the batch at hand holds, where its loss is computed."""

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; the batches of a step are weighed instead of counted."""
        self.current_gradient_accumulation_steps = 1
        self._share = self._weights.popleft() * self.accelerator.num_processes / self._total.clamp(min=1)
        try:
            return super().training_step(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._share = None

    def compute_loss(
        self: Any, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        """The batch's own mean; in training, its part in the step's."""
        count = self._items(inputs)
        with _as_if_alone(self.args):
            found = super().compute_loss(  # type: ignore[misc]
                model, inputs, return_outputs=return_outputs,
                num_items_in_batch=None if count is None else count.clamp(min=1), **kwargs,
            )  # fmt: skip
        if self._share is None:
            return found
        loss, outputs = found if return_outputs else (found, None)
        share = self._share.to(loss.device)
        loss = torch.where(share > 0, loss * share, torch.zeros_like(loss))  # the mean of nothing may be NaN
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; notes what the loss weighs."""
        if self._measured is None:
            return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        counts, rows = shares_at_hand(self.accelerator), _rows(inputs)
        if counts is not None:
            rows = counts[self.accelerator.process_index]  # none, of a row that only stands in
        if self.averages_over is None:
            self._find_out(model, inputs)
        weight = self._weight(inputs, rows)
        found = super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if (loss := found[0]) is not None:
            weight = weight.to(loss.device).double()
            nothing = torch.zeros((), dtype=torch.float64, device=loss.device)
            weighed = torch.where(weight > 0, loss.detach().mean().double() * weight, nothing)
            self._measured.append(torch.stack([weighed, weight]))
        return found

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; the loss is the mean over all that was evaluated, NaN if any of it is."""
        before, self._measured = self._measured, []  # `compute_metrics` may evaluate too
        try:
            output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
            measured = self._measured
        finally:
            self._measured = before
        prefix = kwargs.get("metric_key_prefix", args[4] if len(args) > 4 else "eval")
        if measured and (name := f"{prefix}_loss") in (output.metrics or {}):
            total, weight = self.accelerator.reduce(torch.stack(measured).sum(0), "sum").tolist()
            output.metrics[name] = total / weight if weight else math.nan
        return output

    # ---- inside

    def _items(self: Any, inputs: Any) -> torch.Tensor | None:
        """How many labels of a batch count; None where they cannot be counted."""
        labels = inputs.get("shift_labels") if isinstance(inputs, Mapping) else None
        if labels is None:
            labels = inputs.get("labels") if isinstance(inputs, Mapping) else None
            if isinstance(labels, torch.Tensor) and self._loss_shifts_labels and labels.ndim > 1:
                labels = labels[..., 1:]
        if not isinstance(labels, torch.Tensor):
            return None
        if labels.is_floating_point():
            return torch.full((), labels.numel(), device=labels.device)
        return labels.ne(IGNORED).sum()

    def _weight(self: Any, inputs: Any, rows: int) -> torch.Tensor:
        """What the loss of a batch is a mean over; nothing of a batch that only stands in."""
        items = self._items(inputs) if self.averages_over == ITEMS else None
        if items is None or not rows:
            return torch.full((), float(rows), device=self.args.device)
        return items.to(self.args.device).float()

    def _find_out(self: Any, model: Any, inputs: Any) -> None:
        """Compares the loss of a batch with those of its halves. In every rank; rank 0's answer counts.

        Where that cannot be done, a loss with labels is taken for a mean over them: a single row tells nothing, other
        shapes would be compiled anew, and a user's own class may prepare its batches on the way.
        """
        rows = _rows(inputs)
        assumed = ITEMS if self._items(inputs) is not None else ROWS
        found = None
        if rows >= 2 and not self.args.torch_compile:
            # DDP's own forward pass may wait for other ranks.
            alone = model.module if isinstance(model, DistributedDataParallel) else model
            try:
                found = self._found_out(alone, inputs, rows)
            except Exception as error:  # noqa: BLE001  whatever half a batch, or one that nobody prepared, leads to
                print(f"hfsuite: what the loss is a mean of could not be found out: {type(error).__name__}: {error}")
        told = torch.zeros(2, device=self.args.device)
        if self.accelerator.is_main_process:
            told += torch.tensor([KINDS.index(found or assumed), found is None], device=self.args.device)
        kind, is_assumed = self.accelerator.reduce(told, "sum").tolist()
        self.averages_over, self.is_assumed = KINDS[int(kind)], bool(is_assumed)

    def _found_out(self: Any, model: Any, inputs: Any, rows: int) -> str | None:
        parts = [_part(inputs, start, end, rows) for start, end in ((0, rows), (0, rows // 2), (rows // 2, rows))]
        with _tried_out(model):
            losses = [float(self._loss_alone(model, part)) for part in parts]
            dtype = next(model.parameters()).dtype
        items = [self._items(part) for part in parts]
        counts = [float(each) for each in items if each is not None]
        tolerance = HALF_TOLERANCE if self.args.bf16 or self.args.fp16 else TOLERANCES.get(dtype, HALF_TOLERANCE)
        return _mean_over(losses, [rows, rows // 2, rows - rows // 2], counts, tolerance)

    def _loss_alone(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach().mean()


def _mean_over(losses: list[float], rows: list[int], items: list[float], tolerance: float) -> str | None:
    """What the first loss is a mean over, given the losses of its two parts, and what each holds; None: not to be told.

    Args:
        losses: of a batch and of its halves.
        rows: likewise.
        items: likewise; empty where they cannot be counted.
        tolerance: relative.
    """
    whole, *parts = losses
    is_countable = bool(items) and all(items)
    if not all(map(math.isfinite, losses)):
        return None
    allowed = tolerance * max(*map(abs, losses), 1e-8)

    def off(counts: Sequence[float]) -> float:
        return abs(whole - sum(part * count for part, count in zip(parts, counts[1:], strict=True)) / counts[0])

    if is_countable and off(items) <= allowed and off(items) <= off(rows) + allowed / 100:
        return ITEMS
    return ROWS if off(rows) <= allowed else NEITHER


@contextmanager
def _as_if_alone(args: Any) -> Iterator[None]:
    """Transformers then multiplies no loss by the number of ranks."""
    before, args.average_tokens_across_devices = args.average_tokens_across_devices, False
    try:
        yield
    finally:
        args.average_tokens_across_devices = before


@contextmanager
def _tried_out(model: Any) -> Iterator[None]:
    """A model may be asked for losses that nobody trains with: without dropout, without a trace in random numbers."""
    was_training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    states = np.random.get_state(), random.getstate()
    with torch.no_grad(), torch.random.fork_rng(devices):
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)
            np.random.set_state(states[0])
            random.setstate(states[1])


def _rows(inputs: Any) -> int:
    return find_batch_size(inputs) or 0


def _part(inputs: Any, start: int, end: int, rows: int) -> Any:
    """Some rows of a batch, in a container of its kind."""
    if isinstance(inputs, Mapping):
        return {name: _part(each, start, end, rows) for name, each in inputs.items()}
    if isinstance(inputs, list | tuple) and any(isinstance(each, torch.Tensor) for each in inputs):
        return type(inputs)(_part(each, start, end, rows) for each in inputs)
    is_by_row = isinstance(inputs, torch.Tensor) and inputs.ndim > 0 and len(inputs) == rows
    return inputs[start:end] if is_by_row or (isinstance(inputs, list) and len(inputs) == rows) else inputs


def make_exact(trainer: transformers.Trainer) -> Callable[[], dict[str, str]]:
    """Gives a trainer exact losses, NaN among them.

    It changes the trainer's class, so that a user's own subclass stays in charge of everything else.

    Returns:
        What to tell of the losses, when it is known: the tag `loss_is_mean_over`, and `eval_loss_depends_on`.
    """
    trainer.args.logging_nan_inf_filter = False  # it would show NaN as 0, and leave it out of means
    if trainer.accelerator.torch_device_mesh is not None:  # ranks share rows then, which nobody counts here
        return lambda: {"eval_loss_depends_on": PARALLEL}
    own = trainer.__class__
    exact: Any = type(own.__name__, (ExactLoss, own), {"__module__": own.__module__, "__qualname__": own.__qualname__})
    trainer.__class__ = exact

    def told() -> dict[str, str]:
        over = trainer.averages_over
        said = f"{over} (assumed)" if trainer.is_assumed else over
        return ({} if said is None else {"loss_is_mean_over": said}) | (
            {"eval_loss_depends_on": DEPENDS} if over == NEITHER else {}
        )

    return told
