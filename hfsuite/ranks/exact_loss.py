"""Losses of a `transformers.Trainer` that mean the same on any number of workers, and by any division into batches.

Transformers multiplies a loss by the number of ranks where it believes that the model divides it by the number of items
in the whole step, which classification heads do not; it averages the losses of evaluation batches as if all were
equally large, and leaves NaN out. Here each batch's loss is its own mean, whoever computes it (the model is asked for
the batch's own number of items), and all are averaged by what they are means of: tokens with a label, or rows. Which
it is, is found out (`hfsuite.ranks.weighing`). Runs in every rank.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from hfsuite.ranks.dealing import EVALUATION, dealt_rows, prepared_for, rows_at_hand
from hfsuite.ranks.weighing import DEPENDS, Weighing

if TYPE_CHECKING:
    import transformers

TRAINER = "transformers.trainer"  # the module whose `training_step` divides as is known
CLOSE = 1e-5  # relative


class ExactLoss:
    """Put before the class of a user's trainer: all that a subclass overrides stays in charge of what a loss is."""

    _hfsuite: Weighing  # all that this class keeps, so that no attribute of the user's is met
    _hfsuite_evaluates: list[torch.Tensor] | None = None  # by the evaluation at hand: losses times weights, and weights

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
        """The batches of an optimizer step, which are weighed; nobody needs to count the step's items."""
        rows: list[int] = []

        def dealt() -> Iterator[Any]:
            for batch in epoch_iterator:
                rows.append(rows_at_hand(self.accelerator, batch))  # as long as its loader has not ended
                yield batch

        batches, _ = super().get_batch_samples(dealt(), num_batches, device)  # type: ignore[misc]
        if batches:
            # Where a stream ends within a step, Transformers would make none, and add its gradient to the next one's.
            missing = num_batches - len(batches)
            batches, rows = batches + [copy.copy(batches[-1]) for _ in range(missing)], rows + [0] * missing
            self._hfsuite.test_training(self.model_wrapped, self.callback_handler.train_dataloader, batches[0])
            self._hfsuite.begin_step(batches, rows)
        return batches, None

    def _get_num_items_in_batch(self, *_: Any) -> None:
        """Nothing: a model is told what the batch at hand holds, where its loss is computed."""

    def training_step(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; the gradient is the batch's part in the step's."""
        share = self._hfsuite.share = self._hfsuite.shares.pop(0)
        with _weighed(self, share) as step:
            loss = super().training_step(model, *args, **kwargs)  # type: ignore[misc]
        if self._hfsuite.steps == 1:
            self._hfsuite.note_norms(model)
        # The mean of nothing may be NaN.
        return loss * step["factor"] if share else torch.zeros_like(loss)

    def compute_loss(
        self: Any, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        """The batch's own mean."""
        if isinstance(inputs, Mapping) and not self._hfsuite.is_trying:
            self._hfsuite.names = frozenset(inputs)
        count = self._hfsuite.items(inputs)
        with _as_if_alone(self.args):
            found = super().compute_loss(  # type: ignore[misc]
                model, inputs, return_outputs=return_outputs,
                num_items_in_batch=None if count is None else count.clamp(min=1), **kwargs,
            )  # fmt: skip
        self._hfsuite.last_loss = (found[0] if return_outputs else found).detach()
        return found

    def log(self: Any, *args: Any, **kwargs: Any) -> None:
        """As ever; what a loss that is only tried logs is nothing."""
        if not self._hfsuite.is_trying:
            super().log(*args, **kwargs)  # type: ignore[misc]

    def prediction_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; notes what the loss weighs."""
        own = super().prediction_step  # type: ignore[misc]
        if self._hfsuite_evaluates is None:
            return own(model, inputs, *args, **kwargs)
        rows, items = rows_at_hand(self.accelerator, inputs), self._hfsuite.items(inputs)
        batch = copy.copy(inputs)  # a user's own may take labels out of it
        found = own(model, inputs, *args, **kwargs)
        if (loss := found[0]) is None:
            return found

        def loss_of(model: Any, inputs: Any) -> torch.Tensor:
            again: torch.Tensor = own(model, copy.copy(inputs), *args, **kwargs)[0]
            return again.detach().mean()

        loader = self.callback_handler.eval_dataloader
        self._hfsuite.test_evaluation(self._hfsuite.evaluates, model, loader, batch, loss_of)
        (weight,) = self._hfsuite.weights([items], [rows])
        weighed = (
            loss.detach().mean().double() * weight if weight else torch.zeros_like(loss.mean(), dtype=torch.double)
        )
        self._hfsuite_evaluates.append(torch.stack([weighed, torch.full_like(weighed, weight)]))
        self._hfsuite.rows_of_loss = dealt_rows(self.accelerator)
        return found

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; the loss is the mean over all that was evaluated, NaN if any of it is."""
        known, prefix = self._hfsuite, kwargs.get("metric_key_prefix", args[4] if len(args) > 4 else "eval")
        # `compute_metrics` may evaluate too.
        before = self._hfsuite_evaluates, known.evaluates, known.is_in_evaluation, self.gather_function
        self._hfsuite_evaluates, known.evaluates, known.is_in_evaluation = [], prefix, False
        self.gather_function = _of_rows(self.gather_function, known, self.args.eval_batch_size)
        try:
            output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
            measured = self._hfsuite_evaluates
        finally:
            self._hfsuite_evaluates, known.evaluates, known.is_in_evaluation, self.gather_function = before
        if measured and (name := f"{prefix}_loss") in (output.metrics or {}):
            total, weight = self.accelerator.reduce(torch.stack(measured).sum(0), "sum").tolist()
            output.metrics[name] = total / weight if weight else math.nan
        return output


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
    trainer._hfsuite = weighing = Weighing(trainer)
    return weighing.told


# ---- inside


@contextmanager
def _weighed(trainer: Any, share: float) -> Iterator[dict[str, float]]:
    """`Accelerator.backward` gets the batch's part in the step's loss, of which it is given a mean.

    Transformers divides this mean by the number of batches of the step, unless there is a `compute_loss_func` or the
    user says that it has been divided. What a `training_step` of the user's does is seen by comparing what it comes to
    with what `compute_loss` gave it.
    """
    backward, known = trainer.accelerator.backward, trainer._hfsuite
    batches = trainer.current_gradient_accumulation_steps
    says = getattr(trainer, "loss_is_scaled_for_ga", None)
    divides = says is False or (says is None and trainer.compute_loss_func is None)
    step, is_own = {"factor": share * (batches if divides else 1)}, _has_own_step(type(trainer))
    known.last_loss, is_told = None, False

    def weighed(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        nonlocal is_told
        is_told = True
        if is_own:
            step["factor"] = share * _divisor(trainer, loss, batches)
        backward(loss * step["factor"] if share else _nothing_of(trainer, loss), *args, **kwargs)

    with mock.patch.object(trainer.accelerator, "backward", weighed):
        yield step
    known.has_own_step = known.has_own_step or not is_told


def _divisor(trainer: Any, loss: torch.Tensor, batches: int) -> float:
    """By what a user's own step has divided the mean of a batch of a step of so many."""
    planned, known = trainer.args.gradient_accumulation_steps, trainer._hfsuite
    if batches == planned == 1:
        return 1
    if known.last_loss is not None:
        mean, passed = float(known.last_loss.mean()), float(loss.detach())
        for divisor in (batches, 1, planned):
            if abs(mean - passed * divisor) <= CLOSE * abs(mean):
                return divisor
    known.has_own_step = True
    return batches


def _nothing_of(trainer: Any, loss: torch.Tensor) -> torch.Tensor:
    """A loss whose gradients are zeros. That of nothing may be NaN, and then all of its gradients are."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or bool(torch.isfinite(loss)):
        return loss * 0.0
    trained = (each for each in trainer.model.parameters() if each.requires_grad)
    return torch.stack([(each * 0.0).sum() for each in trained]).sum()


def _has_own_step(kind: type) -> bool:
    """Whether a user's class has a `training_step` of its own, which may call Transformers' or not."""
    owner = next(each for each in kind.__mro__ if "training_step" in vars(each) and each is not ExactLoss)
    return owner.__module__ != TRAINER


def _of_rows(gather: Callable[..., Any], known: Weighing, batch_size: int) -> Callable[..., Any]:
    """Has a batch's loss stand for as many rows as it has, where Transformers repeats it for a whole batch."""

    def gathered(data: Any, *args: Any, **kwargs: Any) -> Any:
        rows, known.rows_of_loss = known.rows_of_loss, None
        if rows is not None and isinstance(data, torch.Tensor) and data.ndim == 1 and len(data) == batch_size:
            data = data[: max(rows, 1)]
        return gather(data, *args, **kwargs)

    return gathered


@contextmanager
def _as_if_alone(args: Any) -> Iterator[None]:
    """Transformers then multiplies no loss by the number of ranks."""
    before, args.average_tokens_across_devices = args.average_tokens_across_devices, False
    try:
        yield
    finally:
        args.average_tokens_across_devices = before
