"""Trainers as users write them: each computes its losses in a way of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer


class OwnLoss(Trainer):
    """A user's own, of logits and labels."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.loss(outputs.logits, labels)
        return (loss, {"logits": outputs.logits}) if return_outputs else loss


class Focal(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        likely = logits.softmax(-1).gather(1, labels[:, None])
        return (-((1 - likely) ** 2) * likely.log()).mean()


class Weighted(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels, weight=torch.tensor([1.0, 3.0, 0.2]))


class WeightedTokens(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits.transpose(1, 2), labels, weight=torch.tensor([1.0, 5.0, 0.1]))


class SumOfLosses(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels, reduction="sum")


class MeanOfRows(OwnLoss):
    """Of each row's own mean; a row without labels has a loss of 0."""

    def loss(self, logits: Any, labels: Any) -> Any:
        each = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return (each.sum(1) / labels.ne(-100).sum(1).clamp(min=1)).mean()


class Penalty(OwnLoss):
    """A small one, of the whole batch."""

    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels) + 0.1 * (logits.softmax(-1).mean(0) ** 2).sum()


class InBatch(OwnLoss):
    """Each row against the others of its batch."""

    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits @ logits.T, torch.arange(len(logits)))


class Counting(OwnLoss):
    """Counts and collects what it is asked, and logs it."""

    calls = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.collected: dict[str, list[float]] = {"losses": []}

    def loss(self, logits: Any, labels: Any) -> Any:
        loss = cross_entropy(logits, labels)
        self.collected["losses"].append(loss.item())
        self.calls += 1
        assert len(self.collected["losses"]) == self.calls
        self.log({"calls": self.calls})
        return loss


class Dropping(Trainer):
    """Takes a column out on the way, of which the loss knows nothing."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        del inputs["place"]
        return super().training_step(model, inputs, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        del inputs["place"]
        return super().prediction_step(model, inputs, *args, **kwargs)


class OfLists(Trainer):
    """Its batches have no names."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        ids, labels = inputs
        outputs = model(ids, labels=labels)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, self._prepare_inputs(inputs), return_outputs=True)
        return loss, outputs.logits, inputs[1]


class Nested(Trainer):
    """Evaluates something else in the middle of an evaluation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, compute_metrics=self.also, **kwargs)

    def also(self, _: Any) -> dict[str, float]:
        self.compute_metrics, own = None, self.compute_metrics
        found = self.evaluate(self.train_dataset, metric_key_prefix="other")
        self.compute_metrics = own
        return {"also": found["other_loss"]}


class WeightedInTraining(OwnLoss):
    """By class, and only in training."""

    def loss(self, logits: Any, labels: Any) -> Any:
        weight = torch.tensor([1.0, 3.0, 0.2]) if self.model.training else None
        return cross_entropy(logits, labels, weight=weight)


class WeightedMiddle(OwnLoss):
    """The first class and the last weigh the same."""

    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels, weight=torch.tensor([1.0, 3.0, 1.0]))


class MaskedMean(OwnLoss):
    """Of what has a label: of nothing it is not a number, and neither are its gradients."""

    def loss(self, logits: Any, labels: Any) -> Any:
        mask = labels.ne(-100).float()
        each = cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none")
        return (each * mask).sum() / mask.sum()


class OwnPrediction(Trainer):
    """Evaluates with another loss than it trains with."""

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            outputs = model(**self._prepare_inputs(inputs))
        weight = torch.tensor([1.0, 3.0, 0.2])
        return cross_entropy(outputs.logits, inputs["labels"], weight=weight), outputs.logits, inputs["labels"]


class OwnStep(Trainer):
    """Computes gradients itself; divides by what the arguments say."""

    def training_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs)) / self.args.gradient_accumulation_steps
        self.accelerator.backward(loss)
        return loss.detach()


class OwnStepOfTheModel(Trainer):
    """Takes the model's loss as it is, and divides as Transformers does."""

    def training_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        model.train()
        loss = model(**self._prepare_inputs(inputs)).loss / self.current_gradient_accumulation_steps
        self.accelerator.backward(loss)
        return loss.detach()


class UndividedStep(Trainer):
    """Does not divide."""

    def training_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs))
        self.accelerator.backward(loss)
        return loss.detach()


class PatchedInstance(Trainer):
    """Gets a loss of its own when it is there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compute_loss = self.another  # type: ignore[method-assign]

    def another(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class OfTexts(Trainer):
    """Its batches hold no tensors."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        ids = torch.tensor([[int(word) for word in text.split()] for text in inputs["text"]])
        outputs = model(ids, labels=torch.tensor(inputs["label"]))
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return loss, outputs.logits, torch.tensor(inputs["label"])


class WithNamesOfItsOwn(Trainer):
    """Keeps what this project could keep under the same names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._weights, self._share, self._total = torch.ones(3), 0.5, 7

    def _labels(self, inputs: Any, smooth: float) -> Any:
        return inputs["labels"] * smooth

    def _items(self) -> int:
        return len(self._weights)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        assert self._labels(inputs, 1.0).shape == inputs["labels"].shape
        assert (self._items(), self._share, self._total) == (3, 0.5, 7)
        return super().compute_loss(model, inputs, *args, **kwargs)


class LossesForMetrics(Trainer):
    """Its metrics are made of the losses of all rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, compute_metrics=self.of_losses, **kwargs)
        self.args.include_for_metrics = ["loss"]

    @staticmethod
    def of_losses(given: Any) -> dict[str, float]:
        assert len(given.losses) == len(given.predictions) == 9
        return {"mean": float(given.losses.mean())}
