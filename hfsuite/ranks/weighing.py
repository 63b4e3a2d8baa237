"""What the losses of a `transformers.Trainer`'s batches weigh, and what is known of what they are means over.

One object a trainer, which `hfsuite.ranks.exact_loss` asks. Runs in every rank.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather
from torch.nn.modules.batchnorm import _BatchNorm

from hfsuite.ranks.averaging import NEITHER, ROWS, Averaging, compared, untested
from hfsuite.ranks.probing import (
    Labels,
    groups_to_compare,
    in_full_precision,
    rows_of,
    without_mixed_precision,
    without_trace,
)

IGNORED = -100  # a label that counts nothing
ROUNDING, HALF_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5}, 2e-2  # of a loss of 1; up to 1e-6 was seen
TESTED_AT = {2**power for power in range(20)}  # steps, and evaluations: what a loss is may change as a model learns
ON_BATCHES = "the size of evaluation batches and the number of workers: "
DEPENDS = {
    NEITHER: f"{ON_BATCHES}the loss is a mean neither over labels nor over rows",
    "untested": f"perhaps {ON_BATCHES}what the loss is a mean over could not be found out",
    "own step": f"perhaps {ON_BATCHES}a `training_step` that computes no loss by `compute_loss` divides as it likes",
    "router": f"{ON_BATCHES}what a router of experts adds is of a whole batch",
    "draws": "random numbers: the rows of an evaluation, or their losses, are drawn anew each time",
    "batch norm": "how many rows a device trains on at once: batch normalization takes means of them",
    "parallel": "the number of workers and batches: in model-parallel trainings it is as Transformers computes it",
}

Part = Callable[[Any, Any], torch.Tensor]  # from a model and a batch to its loss


class Weighing:
    """What a batch's loss weighs: labels or rows, whichever it is a mean over.

    Args:
        trainer: whose losses these are.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.averaging: Averaging | None = None  # None: nothing was trained or evaluated yet
        self.draws = self.normalizes = self.has_own_step = False
        self.is_trying = False  # losses that nobody trains with
        self.names: frozenset[str] = frozenset()  # of what the last loss was computed from; some may have been dropped
        self.rows_trained = 0  # by all ranks
        self.shares: list[float] = []  # of the batches of the step at hand, in its loss; times the number of ranks
        self.share = 0.0  # of the batch at hand
        self.steps = 0
        self.evaluated: dict[tuple[str, int], int] = {}  # how often, by names and datasets
        self.is_in_evaluation = False  # whether the first batch of the evaluation at hand is over
        self.evaluates = ""  # the name of the evaluation at hand
        self.last_loss: torch.Tensor | None = None  # that `compute_loss` gave
        self.rows_of_loss: int | None = None  # that the loss stands for which is gathered next, where rows are dealt

    # ---- a batch

    def items(self, inputs: Any) -> torch.Tensor | None:
        """How many labels of a batch count; None where they cannot be counted."""
        labels = inputs.get("shift_labels") if isinstance(inputs, Mapping) else None
        if labels is None:
            labels = self._labels(inputs)
            if labels is not None and self.trainer._loss_shifts_labels and labels.ndim > 1:
                labels = labels[..., 1:]
        if not isinstance(labels, torch.Tensor):
            return None
        if labels.is_floating_point():
            return torch.full((), labels.numel(), device=labels.device)
        return labels.ne(IGNORED).sum()

    def weights(self, items: Sequence[torch.Tensor | None], rows: Sequence[int]) -> list[float]:
        """What the losses of batches are means over; nothing of a batch that only stands in."""
        by_rows = self.averaging is not None and self.averaging.weighs_by == ROWS
        if by_rows or any(each is None for each in items):
            return [float(each) for each in rows]
        counts: list[float] = torch.stack([each.float() for each in items]).tolist()  # type: ignore[union-attr]
        return [count if row else 0.0 for count, row in zip(counts, rows, strict=True)]

    def begin_step(self, batches: Sequence[Any], rows: Sequence[int]) -> None:
        """An optimizer step of these batches, with so many rows each, begins in all ranks."""
        weights = self.weights([self.items(batch) for batch in batches], rows)
        here = torch.tensor([sum(weights), float(sum(rows))], device=self.trainer.args.device)
        total, trained = self.trainer.accelerator.reduce(here, "sum").tolist()
        self.rows_trained += int(trained)
        self.shares = [weight * self.trainer.accelerator.num_processes / max(total, 1.0) for weight in weights]
        self.steps += 1

    # ---- what a loss is a mean over

    def test_training(self, model: Any, loader: Any, batch: Any) -> None:
        """By the loss that is trained with; again in a few later steps."""
        if self.steps == 0 or self.steps in TESTED_AT:
            self._add(self._found_out(model, loader, batch, self._trained_loss, trains=True))

    def test_evaluation(self, name: str, model: Any, loader: Any, batch: Any, loss_of: Part) -> None:
        """By the loss of an evaluation, when its first batch is at hand; again in a few later ones."""
        if self.is_in_evaluation:
            return
        self.is_in_evaluation = True
        evaluation = name, id(getattr(loader, "dataset", None))
        self.evaluated[evaluation] = self.evaluated.get(evaluation, 0) + 1
        if self.evaluated[evaluation] not in TESTED_AT:
            return
        found = self._found_out(model, loader, batch, loss_of, trains=False)
        self.draws = self.draws or found.draws
        self._add(found)

    def note_norms(self, model: Any) -> None:
        """Whether a model that trains now normalizes batches."""
        self.normalizes = any(each.training for each in _batch_norms(model))

    def told(self) -> dict[str, str]:
        """The tags `loss_is_mean_over` and, if there is something, `eval_loss_depends_on`."""
        if (known := self.averaging) is None:
            return {}
        reasons = {
            NEITHER: known.is_tested and known.over == NEITHER, "untested": not known.is_tested, "draws": self.draws,
            "router": known.over != NEITHER and self._has_router(),
            "own step": self.has_own_step, "batch norm": self.normalizes,
        }  # fmt: skip
        depends = "; ".join(DEPENDS[reason] for reason, holds in reasons.items() if holds)
        kind = known.over + ("" if known.is_tested else " (assumed)")
        return {"loss_is_mean_over": kind, **({"eval_loss_depends_on": depends} if depends else {})}

    # ---- inside

    def _labels(self, inputs: Any) -> torch.Tensor | None:
        names: list[str] = list(self.trainer.label_names or [])
        labels = inputs.get(names[0] if len(names) == 1 else "labels") if isinstance(inputs, Mapping) else None
        return labels if isinstance(labels, torch.Tensor) else None

    def _has_router(self) -> bool:
        """Whether a mixture of experts adds a loss that is too small to be seen in a few rows."""
        return bool(getattr(getattr(self.trainer.model, "config", None), "output_router_logits", False))

    def _add(self, found: Averaging) -> None:
        if self.averaging is None or not self.averaging.is_tested:
            self.averaging = found
        elif found.is_tested:
            self.averaging = Averaging.of([self.averaging, found])

    def _found_out(self, model: Any, loader: Any, batch: Any, loss_of: Part, *, trains: bool) -> Averaging:
        """What the loss of some of a loader's rows is a mean over. All ranks come to the same answer."""
        is_divided = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled  # ranks compute together then
        # DDP's own forward pass may wait for other ranks, and a compiled one would be compiled anew for other shapes.
        alone = model if is_divided else self.trainer.accelerator.unwrap_model(model, keep_torch_compile=False)
        found = [untested(None if (items := self.items(batch)) is None else float(items))]
        fails: Exception | None = None
        self.is_trying = True
        try:
            with without_trace(self.trainer, alone):
                groups: list[list[Any]] = []
                try:
                    groups, draws = groups_to_compare(loader, batch, self._labels_of_row, self._label_columns())
                    found.append(Averaging(draws=draws))
                except Exception as error:  # noqa: BLE001  whatever a user's dataset or collator does with a few rows
                    fails = error
                if self._all_have(len(groups)) and groups:  # or some would compute, and wait for others
                    try:
                        found += self._compared(alone, groups, loss_of, trains=trains)
                    except Exception as error:  # noqa: BLE001  whatever a batch leads to that nobody has prepared
                        fails = error
        finally:
            self.is_trying = False
        if fails is not None:
            print(f"hfsuite: what the loss is a mean over could not be found out: {type(fails).__name__}: {fails}")
            found = found[:1]
        here = torch.tensor([Averaging.of(found).as_numbers()], device=self.trainer.args.device)
        return Averaging.of([Averaging.from_numbers(each) for each in gather(here).tolist()])

    def _compared(self, model: Any, groups: list[list[Any]], loss_of: Part, *, trains: bool) -> list[Averaging]:
        """How the loss of each first batch follows from those of its parts."""
        rounding = ROUNDING.get(next(model.parameters()).dtype, HALF_ROUNDING)
        is_exact = in_full_precision(model) and not (self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled)
        if not is_exact and (self.trainer.args.bf16 or self.trainer.args.fp16):
            rounding = HALF_ROUNDING

        def loss(batch: Any) -> float:
            if isinstance(batch, Mapping) and self.names:
                batch = {name: each for name, each in batch.items() if name in self.names}
            if not is_exact:
                return float(loss_of(model, batch))
            with without_mixed_precision(model):
                return float(loss_of(model, batch))

        if trains and not self.trainer.args.gradient_checkpointing and not _batch_norms(model):
            # A loss may be another one in training. What is drawn there cannot be compared, and means would be moved.
            model.train()
        first = [loss(groups[0][0]) for _ in range(2)]
        is_same = abs(first[0] - first[1]) <= rounding or first[0] != first[0]
        if not is_same and model.training:
            model.eval()
            is_same = True
        found = [Averaging(draws=not is_same)]
        for group in groups:
            counts = [self.items(part) for part in group[1:]]
            items = [] if any(count is None for count in counts) else [float(count) for count in counts]  # type: ignore[arg-type]
            rows = [rows_of(part) or 1 for part in group[1:]]
            found.append(compared([loss(each) for each in group], items, rows, rounding))
        return found

    def _trained_loss(self, model: Any, batch: Any) -> torch.Tensor:
        inputs = self.trainer._prepare_inputs(copy.copy(batch))
        with self.trainer.compute_loss_context_manager():
            loss: torch.Tensor = self.trainer.compute_loss(model, inputs)
        return loss.detach().mean()

    def _labels_of_row(self, batch: Any) -> Labels:
        items, labels = self.items(batch), self._labels(batch)
        return (1.0 if items is None else float(items)), [] if labels is None else labels.flatten().tolist()

    def _label_columns(self) -> list[str]:
        return [*(self.trainer.label_names or ()), "labels"]

    def _all_have(self, count: int) -> bool:
        """Whether all ranks have as many."""
        return len(set(gather(torch.tensor([count], device=self.trainer.args.device)).tolist())) == 1


def _batch_norms(model: Any) -> list[_BatchNorm]:
    return [each for each in model.modules() if isinstance(each, _BatchNorm)]
