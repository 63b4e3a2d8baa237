"""A checkpoint of a Hugging Face model: its weights, tokenizer, training arguments and preprocessor."""

from __future__ import annotations

import os
import sys
from enum import EnumType
from typing import TYPE_CHECKING, Any

import pyarrow.fs
from ray import cloudpickle
from ray.train import Checkpoint

from hfsuite.checkpoints import manifest

if TYPE_CHECKING:
    import torch
    from ray.data.preprocessor import Preprocessor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

PREPROCESSOR = "preprocessor.pkl"
TRAINING_ARGUMENTS = "training_args.bin"
WEIGHTS = "model.safetensors"


class TransformersCheckpoint(Checkpoint):
    """A `ray.train.Checkpoint` that knows what is in it. Weights are safetensors.

    Args:
        path: a local path, absolute or not, or a URI.
        filesystem: where `path` is; by default as the path says.
    """

    def __init__(self, path: str | os.PathLike[str], filesystem: pyarrow.fs.FileSystem | None = None) -> None:
        text = os.fspath(path)
        super().__init__(text if filesystem is not None or "://" in text else os.path.abspath(text), filesystem)

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel | torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        path: str | os.PathLike[str],
        preprocessor: Preprocessor | None = None,
    ) -> TransformersCheckpoint:
        """Writes a model, and what it needs to be used, to the directory `path`.

        Args:
            model: a pretrained model, or any module (then only its state dict is stored).
            tokenizer: stored beside the model.
            path: a local directory; made if it does not exist.
            preprocessor: a fitted Ray Data preprocessor that inputs must go through.
        """
        from safetensors.torch import save_model
        from transformers import PreTrainedModel

        directory = os.path.abspath(os.fspath(path))
        os.makedirs(directory, exist_ok=True)
        if isinstance(model, PreTrainedModel):
            model.save_pretrained(directory)
        else:
            save_model(model, os.path.join(directory, WEIGHTS))
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)
        checkpoint = cls.from_directory(directory)
        if preprocessor is not None:
            store_preprocessor(checkpoint, preprocessor)
        return cls.seal(directory)

    @classmethod
    def seal(cls, path: str | os.PathLike[str]) -> TransformersCheckpoint:
        """Declares a local directory to be a complete checkpoint, by writing its manifest.

        Use it for directories that something else wrote, `transformers.Trainer` on its own for example.
        """
        directory = os.path.abspath(os.fspath(path))
        checkpoint: TransformersCheckpoint = cls.from_directory(directory)
        state = os.path.join(directory, "trainer_state.json")
        metrics: dict[str, Any] = {}
        if os.path.exists(state):
            import json

            with open(state, encoding="utf-8") as file:
                saved = json.load(file)
            metrics = {"step": saved.get("global_step"), "epoch": saved.get("epoch")}
        manifest.seal(checkpoint, metrics, world_size=1)
        return checkpoint

    def get_model(self, model: Any, **pretrained_kwargs: Any) -> Any:
        """The stored model.

        Args:
            model: a class with `from_pretrained` (`AutoModelForSequenceClassification`), or a module that has the
                right shape and is filled with the stored weights and returned.
            pretrained_kwargs: handed to `from_pretrained`.
        """
        import torch

        with self.as_directory() as directory:
            if not isinstance(model, torch.nn.Module):
                return model.from_pretrained(directory, **pretrained_kwargs)
            from safetensors.torch import load_model

            load_model(model, os.path.join(directory, WEIGHTS))
            return model

    def get_tokenizer(self, tokenizer: Any, **kwargs: Any) -> Any:
        """The stored tokenizer, read by the class `tokenizer` (`AutoTokenizer`)."""
        with self.as_directory() as directory:
            return tokenizer.from_pretrained(directory, **kwargs)

    def get_training_arguments(self) -> TrainingArguments | None:
        """The `TrainingArguments` of the run, or None where the checkpoint has none.

        The file is a pickle; only classes of training arguments are allowed to be in it. Import another library's own
        (`trl.SFTConfig`) before.
        """
        import torch

        with self.as_directory() as directory:
            path = os.path.join(directory, TRAINING_ARGUMENTS)
            if not os.path.exists(path):
                return None
            with torch.serialization.safe_globals(_argument_classes()):
                arguments: TrainingArguments = torch.load(path, map_location="cpu", weights_only=True)
                return arguments

    def get_preprocessor(self) -> Preprocessor | None:
        """The preprocessor stored with the model, or None. It is a pickle: ask only checkpoints that you trust."""
        with self.as_directory() as directory:
            path = os.path.join(directory, PREPROCESSOR)
            if not os.path.exists(path):
                return None
            with open(path, "rb") as file:
                preprocessor: Preprocessor = cloudpickle.load(file)
                return preprocessor


def store_preprocessor(checkpoint: Checkpoint, preprocessor: Preprocessor) -> None:
    """Adds a fitted preprocessor to a checkpoint that is not sealed yet."""
    filesystem: pyarrow.fs.FileSystem = checkpoint.filesystem
    with filesystem.open_output_stream(f"{checkpoint.path}/{PREPROCESSOR}") as stream:
        stream.write(cloudpickle.dumps(preprocessor))


def _argument_classes() -> list[Any]:
    """Everything that Transformers puts into `training_args.bin`.

    Arguments of another library's trainers, or of the user's own, are among them once their class has been imported,
    with the enumerations that its module knows.
    """
    import accelerate.state
    import accelerate.utils
    import torch
    import transformers.trainer_pt_utils
    import transformers.trainer_utils
    import transformers.training_args

    modules = [
        transformers.training_args,
        transformers.trainer_utils,
        transformers.trainer_pt_utils,
        accelerate.state,
        accelerate.utils,
    ]
    derived = _derived(transformers.training_args.TrainingArguments)
    known = [value for each in derived for value in vars(sys.modules[each.__module__]).values()]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__.split(".")[0] in ("transformers", "accelerate")
    ] + [set, torch.device, *derived, *(each for each in known if isinstance(each, EnumType))]


def _derived(kind: type) -> list[type]:
    """The classes that derive from one, directly or not, as far as they have been imported."""
    direct: list[type] = kind.__subclasses__()
    return [*direct, *(found for each in direct for found in _derived(each))]
