"""From the logs of a `transformers.Trainer` to the reports of a training run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from hfsuite.checkpoints.base_model import save_beside
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.errors import ConfigurationError, WrongFunction
from hfsuite.ranks.dealing import separate_streams
from hfsuite.ranks.upload import moved
from hfsuite.report import EARLIER, TRAINING_FINISHED, UNEVALUATED

SAMPLES = "samples"  # rows that were trained on, by all ranks


class ReportCallback(TrainerCallback):
    """Makes one report of every evaluation, with the checkpoint if one was saved there. Runs in every rank.

    Transformers logs first, then evaluates (and logs again), then saves. So what was logged waits until the next step
    begins, and is then reported as one. A log without an evaluation waits for the next one with its own step, unless
    nothing is ever evaluated: then a log with the loss makes a report. All ranks report, rank 0's values count, and one
    rank hands over the checkpoint; all ranks do where every rank holds a part of it.

    Args:
        sharded: whether each rank saves a part of the checkpoint (FSDP, DeepSpeed).
        keep_local: whether the directory that Transformers wrote is the only one there will be.
        rows_trained: by all ranks since this process began to train.
        about: what there is to tell of the training in words; reported once.
        begins: called when a training begins, the first and one with a smaller batch that fits, and when it has first
            been evaluated.
    """

    def __init__(
        self,
        sharded: bool,
        keep_local: bool = False,
        *,
        rows_trained: Callable[[], int],
        about: Callable[[], dict[str, str]] = dict,
        begins: Callable[[], None] = lambda: None,
    ) -> None:
        self.sharded, self.keep_local = sharded, keep_local
        self.rows_trained, self.about, self.begins = rows_trained, about, begins
        self.rows_before = 0  # trained by a process before this one, less what an attempt that did not fit has trained
        self.told: dict[str, str] = {}
        self.pending: dict[str, Any] = {}
        self.earlier: list[dict[str, Any]] = []  # logs at steps before that of what is pending
        self.is_due = False
        self.last: dict[str, Any] = {}
        self.checkpoint: str | None = None
        self.logged_step = self.evaluated_step = self.saved_step = -1
        self.steps = 0  # made by this call of `train()`

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Collects what Transformers logs."""
        self._begin(state)
        state.log_history[-1][SAMPLES] = self.pending[SAMPLES]  # a resumed training counts on from it
        about = self.about()
        self.pending |= {name: "" for name in self.told if name not in about}  # it has turned out otherwise
        self.pending |= {name: text for name, text in about.items() if self.told.get(name) != text}
        self.told = about
        self.pending |= {**(logs or {}), "step": state.global_step, "epoch": state.epoch}
        if "loss" in (logs or {}):
            self.logged_step = state.global_step
            self.is_due = self.is_due or args.eval_strategy == IntervalStrategy.NO

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Remembers the checkpoint that goes with what was logged, or with nothing but its step."""
        self._begin(state)
        self.checkpoint = os.path.abspath(os.path.join(args.output_dir, f"checkpoint-{state.global_step}"))
        self.saved_step, self.is_due = state.global_step, True
        if args.should_save and not self.sharded:
            save_beside(model, self.checkpoint)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forgets the best checkpoint of an earlier run: its directory is not here."""
        state.best_model_checkpoint = None
        counted = [each[SAMPLES] for each in state.log_history if each["step"] <= state.global_step and SAMPLES in each]
        self.rows_before = max(counted, default=0) - self.rows_trained()
        separate_streams(ray.train.get_context().get_world_rank())
        self.begins()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """What an evaluation stops (`EarlyStoppingCallback`) is saved now: at the epoch's end nobody knew of it."""
        self._begin(state)
        if self.evaluated_step < 0:
            self.begins()
        self.evaluated_step, self.is_due = state.global_step, True
        control.should_save = control.should_save or control.should_training_stop
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Whatever ends the training, it ends with an evaluation, a log and a checkpoint."""
        if control.should_training_stop:
            control.should_log = state.global_step != self.logged_step
            control.should_evaluate = (
                state.global_step != self.evaluated_step and args.eval_strategy != IntervalStrategy.NO
            )
            control.should_save = state.global_step != self.saved_step
        self._expect_log(args, state, control)
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Counts what was trained."""
        self.steps += 1
        self._expect_log(args, state, control)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports the interval that has just ended."""
        self._report(args, state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports the interval that has just ended."""
        self._report(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last report; what its step was reported with before belongs to it too."""
        if not self.steps:
            return  # see `report_finished`
        before = self.last if self.last.get("step") == state.global_step else {}
        before = {name: value for name, value in before.items() if name not in (EARLIER, UNEVALUATED)}
        self.pending = {**before, **self.pending, TRAINING_FINISHED: True}
        self.is_due = True
        self._report(args, state)

    def report_finished(self, trainer: Any, checkpoint: str) -> None:
        """The one report of a training that had no step left to make: its checkpoint again, newly evaluated.

        Args:
            trainer: its `train()` has returned.
            checkpoint: the directory that it resumed from.
        """
        if trainer.args.eval_strategy != IntervalStrategy.NO:
            trainer.evaluate()
        is_first = ray.train.get_context().get_world_rank() == 0
        again = TransformersCheckpoint.from_directory(checkpoint) if is_first else None
        ray.train.report(self.pending | {TRAINING_FINISHED: True}, checkpoint=again)

    def _expect_log(self, args: Any, state: Any, control: Any) -> None:
        """The loss is logged next. In every rank, also where a user's `log` keeps it to the first."""
        if control.should_log and state.global_step != self.logged_step:
            self._begin(state)
            self.logged_step = state.global_step
            self.is_due = self.is_due or args.eval_strategy == IntervalStrategy.NO

    def _begin(self, state: Any) -> None:
        """From now on what is pending is of this step. In every rank: not all log, where an evaluation is a user's."""
        if self.pending.get("step", state.global_step) != state.global_step:
            texts = {name: each for name, each in self.pending.items() if isinstance(each, str)}
            self.earlier.append({name: each for name, each in self.pending.items() if name not in texts})
            self.pending = texts
        samples = self.rows_before + self.rows_trained()
        self.pending |= {SAMPLES: samples, "step": state.global_step, "epoch": state.epoch}

    def _report(self, args: Any, state: Any) -> None:
        if not self.is_due:
            return
        rated_step = self.logged_step if args.eval_strategy == IntervalStrategy.NO else self.evaluated_step
        is_rated = rated_step == self.pending.get("step") and self.steps > 0  # not at the start, without a loss
        added = {**({EARLIER: self.earlier} if self.earlier else {}), **({} if is_rated else {UNEVALUATED: True})}
        self.last, self.pending, self.earlier, self.is_due = {**self.pending, **added}, {}, [], False
        path, self.checkpoint = self.checkpoint, None
        context = ray.train.get_context()
        if path is None or not (self.sharded or context.get_world_rank() == 0):
            ray.train.report(self.last)
            return
        checkpoint = TransformersCheckpoint.from_directory(path)
        if self.keep_local or is_elsewhere(args.output_dir):
            ray.train.report(self.last, checkpoint=checkpoint)
            return  # a directory that the user chose is the user's
        ray.train.report(self.last, checkpoint=checkpoint, checkpoint_upload_fn=moved)
        if self.sharded:
            ray.train.collective.barrier()  # ranks of one node upload from the same directory
        if not self.sharded or context.get_local_rank() == 0:
            shutil.rmtree(path)
        state.best_model_checkpoint = None  # Transformers would look for it when the training ends


def check_arguments(args: Any, world_size: int, *, is_trial: bool = False) -> None:
    """Refuses training arguments under which reports, evaluations and checkpoints would not fall together.

    Args:
        args: the `TrainingArguments` of the user's trainer.
        world_size: number of ranks of this run.
        is_trial: whether other trials may run beside this one.

    Raises:
        ConfigurationError: a ValueError with every mistake in it, before any training step; a `WrongFunction` if other
            settings would hardly mend it.
    """
    faults, hopeless = list[str](), list[str]()
    logging, evaluation, saving = (str(getattr(s, "value", s)) for s in (
        args.logging_strategy, args.eval_strategy, args.save_strategy,
    ))  # fmt: skip
    if any(each not in ("no", logging) for each in (evaluation, saving)) or logging == "no":
        hopeless.append(
            "`logging_strategy`, `eval_strategy` and `save_strategy` must be the same, since a report is made at every "
            "logging interval; only evaluation and saving may be 'no'. "
            f"Got logging_strategy={logging!r}, eval_strategy={evaluation!r}, save_strategy={saving!r}."
        )
    if saving == "steps" and not _is_multiple(args.save_steps, args.logging_steps):
        faults.append(
            "`save_steps` must be a multiple of `logging_steps`, so that a checkpoint falls on a report. "
            f"Got save_steps={args.save_steps:g}, logging_steps={args.logging_steps:g}."
        )
    if evaluation == "steps" and args.eval_steps != args.logging_steps:
        faults.append(
            "`eval_steps` must equal `logging_steps`. "
            f"Got eval_steps={args.eval_steps:g}, logging_steps={args.logging_steps:g}."
        )
    if args.load_best_model_at_end:
        kept = (
            "A trial's best checkpoint is kept beside its last: load that of `result.best.checkpoint_path`."
            if is_trial
            else "Set `RunConfig(checkpoint_config=CheckpointConfig(checkpoint_score_attribute=...))`, and take the "
            "best one from the result: `result.get_best_checkpoint(...)`."
        )
        hopeless.append(f"Leave out `load_best_model_at_end=True`: checkpoints belong to Ray. {kept}")
    if is_trial and is_elsewhere(args.output_dir):
        kind = "the absolute path" if os.path.isabs(args.output_dir) else "outside of the working directory,"
        faults.append(
            f"`output_dir` is {kind} {args.output_dir}, where all trials of a sweep would write over "
            "each other: give a relative one; checkpoints are kept in the trial's own directory."
        )
    if args.world_size != world_size:
        hopeless.append(
            f"Transformers sees {args.world_size} processes where the run has {world_size} workers, so each would "
            "train on its own: build TrainingArguments inside trainer_init_per_worker, not before."
        )
    if args.fsdp and args.device.type == "cpu":
        faults.append(
            "FSDP was asked for on CPU workers. Accelerate ignores it there and trains plain DDP: "
            "use GPUs (ScalingConfig(use_gpu=True)) or remove `fsdp` from TrainingArguments."
        )
    if hopeless:
        raise WrongFunction([*hopeless, *faults])
    if faults:
        raise ConfigurationError(faults)


def is_elsewhere(directory: str) -> bool:
    """Whether a directory is not in the working directory, which each attempt at a training has for itself."""
    return not Path(directory).resolve().is_relative_to(Path.cwd().resolve())


def _is_multiple(number: float, of: float) -> bool:
    """Also of shares of all steps, which Transformers takes below 1: 0.3 is three times 0.1."""
    return number >= of and abs(number / of - round(number / of)) < 1e-9
