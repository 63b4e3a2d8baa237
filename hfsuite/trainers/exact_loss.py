"""Losses of a `transformers.Trainer` that mean the same on any number of workers, and by any division into batches.

Transformers multiplies a loss by the number of ranks where it believes that the model divides it by the number of items
in the whole step, which classification heads do not; it averages the losses of evaluation batches as if all were
equally large, and leaves NaN out. Here each batch's loss is its own mean, whoever computes it (the model is asked for
the batch's own number of items), and all are averaged by what they are means of: tokens with a label, or rows. Which
it is, is found out (`hfsuite.trainers.averaging`). Runs in every rank.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from hfsuite.trainers import averaging
from hfsuite.trainers.averaging import NEITHER, ROWS, Averaging, rows_of
from hfsuite.trainers.dealing import EVALUATION, prepared_for, shares_at_hand

if TYPE_CHECKING:
    import transformers

IGNORED = -100  # a label that counts nothing
ROUNDING, HALF_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5}, 2e-2  # of a loss of 1; up to 1e-6 was seen
DEPENDS_ON_BATCHES = "the size of evaluation batches and the number of workers: "
DEPENDS = {
    NEITHER: f"{DEPENDS_ON_BATCHES}the loss is a mean neither over labels nor over rows",
    "assumed": f"perhaps {DEPENDS_ON_BATCHES}what the loss is a mean over could not be found out",
    "draws": "random numbers: an evaluation's rows, or the batches made of them, are other ones each time",
    "batch norm": "how many rows a device trains on at once: batch normalization takes means of them",
    "parallel": "the number of workers and batches: in model-parallel trainings it is as Transformers computes it",
}


class ExactLoss:
    """Put before the class of a user's trainer: all that a subclass overrides stays in charge of what a loss is."""

    averaging: Averaging | None = None  # what the loss is a mean over, as far as it is known
    draws_to_evaluate = False  # whether evaluations of the same rows differ
    normalizes_batches = False
    is_tried = False  # see `averaging.without_trace`
    _names: frozenset[str] = frozenset()  # of what the last loss was computed from: a user's own may drop some before
    rows_trained: int | torch.Tensor = 0  # by all ranks
    _weights: deque[torch.Tensor]  # of the batches of the step at hand
    _total: torch.Tensor | None = None  # of all batches of all ranks of the step
    _share: torch.Tensor | None = None  # of the batch whose gradient is computed
    _measured: list[torch.Tensor] | None = None  # by the evaluation at hand: a loss times its weight, and the weight
    _evaluated: frozenset[str] = frozenset()  # what evaluations are called whose losses have been tested
    _is_new = False  # whether the evaluation at hand is none of them

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
        counts: list[int] | None = None  # of the last batch, as long as its loader has not ended

        def dealt() -> Iterator[Any]:
            nonlocal counts
            for batch in epoch_iterator:
                counts = shares_at_hand(self.accelerator)
                yield batch

        batches, _ = super().get_batch_samples(dealt(), num_batches, device)  # type: ignore[misc]
        if not batches:
            return batches, None
        if self.averaging is None:
            self.normalizes_batches = _normalizes_batches(self.model_wrapped)
            self.averaging = self._found_out(self.model_wrapped, self.callback_handler.train_dataloader, batches[0])
        rows = [rows_of(batch) for batch in batches]
        if counts is not None and not counts[self.accelerator.process_index]:
            rows[-1] = 0  # one that only stands in
        # Where a stream ends within a step, Transformers would make none, and add its gradient to the next one's.
        missing = num_batches - len(batches)
        batches, rows = batches + [copy.copy(batches[-1]) for _ in range(missing)], rows + [0] * missing
        weights = [self._weight(self._items(batch), count) for batch, count in zip(batches, rows, strict=True)]
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
        if isinstance(inputs, Mapping) and not self.is_tried:
            self._names = frozenset(inputs)
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

    def log(self: Any, *args: Any, **kwargs: Any) -> None:
        """As ever; what a loss that is only tried logs is nothing."""
        if not self.is_tried:
            super().log(*args, **kwargs)  # type: ignore[misc]

    def prediction_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; notes what the loss weighs."""
        if self._measured is None:
            return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        counts, rows, items = shares_at_hand(self.accelerator), rows_of(inputs), self._items(inputs)
        if counts is not None:
            rows = counts[self.accelerator.process_index]  # none, of a row that only stands in
        batch = copy.copy(inputs)  # a user's own may take labels out of it
        found = super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if (loss := found[0]) is None:
            return found
        if self._is_new:
            tested = self._found_out(model, self.callback_handler.eval_dataloader, batch)
            self.averaging = tested if self.averaging is None else Averaging.of([self.averaging, tested])
            self.draws_to_evaluate = self.draws_to_evaluate or tested.draws
            self._is_new = False
        weight = self._weight(items, rows).to(loss.device).double()
        nothing = torch.zeros((), dtype=torch.float64, device=loss.device)
        weighed = torch.where(weight > 0, loss.detach().mean().double() * weight, nothing)
        self._measured.append(torch.stack([weighed, weight]))
        return found

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; the loss is the mean over all that was evaluated, NaN if any of it is."""
        before = self._measured, self._is_new  # `compute_metrics` may evaluate too
        prefix = kwargs.get("metric_key_prefix", args[4] if len(args) > 4 else "eval")
        self._measured, self._is_new = [], prefix not in self._evaluated
        self._evaluated = self._evaluated | {prefix}
        try:
            output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
            measured = self._measured
        finally:
            self._measured, self._is_new = before
        if measured and (name := f"{prefix}_loss") in (output.metrics or {}):
            total, weight = self.accelerator.reduce(torch.stack(measured).sum(0), "sum").tolist()
            output.metrics[name] = total / weight if weight else math.nan
        return output

    def depends_on(self) -> str:
        """What the losses depend on that they should not; empty, where that is nothing."""
        known = self.averaging
        reasons = {
            NEITHER: known is not None and known.is_tested and known.over == NEITHER,
            "assumed": known is not None and not known.is_tested,
            "draws": self.draws_to_evaluate,
            "batch norm": self.normalizes_batches,
        }
        return "; ".join(DEPENDS[reason] for reason, holds in reasons.items() if holds)

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

    def _weight(self: Any, items: torch.Tensor | None, rows: int) -> torch.Tensor:
        """What the loss of a batch is a mean over; nothing of a batch that only stands in."""
        if items is None or not rows or self.averaging.weighs_by == ROWS:
            return torch.full((), float(rows), device=self.args.device)
        return items.to(self.args.device).float()

    def _found_out(self: Any, model: Any, loader: Any, batch: Any) -> Averaging:
        """What the loss of some of a loader's rows is a mean over. All ranks come to the same answer."""
        is_divided = self.is_fsdp_enabled or self.is_deepspeed_enabled  # only together can ranks compute then
        # DDP's own forward pass may wait for other ranks, and a compiled one would be compiled anew for other shapes.
        alone = model if is_divided else self.accelerator.unwrap_model(model, keep_torch_compile=False)
        found = [Averaging(items_off=math.inf if self._items(batch) is None else 0.0)]
        try:
            with averaging.without_trace(self, alone):
                groups, draws = averaging.batches_to_compare(loader, batch, self._labels)
                if self._agree(len(groups)):
                    found += [self._compared(alone, *group) for group in groups]
                found.append(Averaging(draws=draws))
        except Exception as error:  # noqa: BLE001  whatever batches that nobody has prepared lead to
            print(f"hfsuite: what the loss is a mean over could not be found out: {type(error).__name__}: {error}")
            found = found[:1]
        here = torch.tensor([Averaging.of(found).as_numbers()], device=self.args.device)
        return Averaging.of([Averaging.from_numbers(each) for each in gather(here).tolist()])

    def _compared(self: Any, model: Any, *batches: Any) -> Averaging:
        """How the loss of a batch follows from those of its parts."""
        losses = [float(self._loss_alone(model, each)) for each in batches]
        counts = [self._items(part) for part in batches[1:]]
        items = [] if any(count is None for count in counts) else [float(count) for count in counts]
        return averaging.compared(losses, items, [rows_of(part) for part in batches[1:]], self._rounding(model))

    def _loss_alone(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        if isinstance(inputs, Mapping) and self._names:
            inputs = {name: each for name, each in inputs.items() if name in self._names}
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach().mean()

    def _rounding(self: Any, model: Any) -> float:
        """By how much a loss of 1 may be off."""
        is_coarse = self.args.bf16 or self.args.fp16 or (
            self.args.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        )  # fmt: skip
        return HALF_ROUNDING if is_coarse else ROUNDING.get(next(model.parameters()).dtype, HALF_ROUNDING)

    def _labels(self: Any, batch: Any) -> tuple[float, list[Any]]:
        """How many labels of a batch count, and all of them."""
        items = self._items(batch)
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        return (1.0 if items is None else float(items)), labels.tolist() if isinstance(labels, torch.Tensor) else []

    def _agree(self: Any, count: int) -> bool:
        """Whether all ranks have as many."""
        counts = gather(torch.tensor([count], device=self.args.device)).tolist()
        return len(set(counts)) == 1


@contextmanager
def _as_if_alone(args: Any) -> Iterator[None]:
    """Transformers then multiplies no loss by the number of ranks."""
    before, args.average_tokens_across_devices = args.average_tokens_across_devices, False
    try:
        yield
    finally:
        args.average_tokens_across_devices = before


def _normalizes_batches(model: Any) -> bool:
    return any(
        isinstance(each, _BatchNorm) and not isinstance(each, SyncBatchNorm) and each.training
        for each in model.modules()
    )


def make_exact(trainer: transformers.Trainer) -> Callable[[], dict[str, str]]:
    """Gives a trainer exact losses, NaN among them.

    It changes the trainer's class, so that a user's own subclass stays in charge of everything else.

    Returns:
        What to tell of the losses, when it is known: the tag `loss_is_mean_over`, and `eval_loss_depends_on`.
    """
    trainer.args.logging_nan_inf_filter = False  # it would show NaN as 0, and leave it out of means
    if trainer.accelerator.torch_device_mesh is not None:  # ranks share rows then, which nobody counts here
        return lambda: {"eval_loss_depends_on": DEPENDS["parallel"]}
    own = trainer.__class__
    exact: Any = type(own.__name__, (ExactLoss, own), {"__module__": own.__module__, "__qualname__": own.__qualname__})
    trainer.__class__ = exact

    def told() -> dict[str, str]:
        known, depends = trainer.averaging, trainer.depends_on()
        kind = {} if known is None else {"loss_is_mean_over": known.over + ("" if known.is_tested else " (assumed)")}
        return kind | ({"eval_loss_depends_on": depends} if depends else {})

    return told
