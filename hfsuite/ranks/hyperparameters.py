"""What a training that goes on from a checkpoint takes from it: states, and no hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import transformers

OF_OPTIMIZERS = ("initial_lr", "weight_decay", "betas", "eps", "momentum")  # what is not state


def keep_own(trainer: transformers.Trainer) -> None:
    """Has a `transformers.Trainer` that resumes go by its own arguments, not by those of the checkpoint. In every rank.

    PyTorch keeps hyperparameters in the state of optimizer and scheduler, so that a member of a population that goes
    on from another's checkpoint would train with the other's learning rate, whatever its own is now. Where the two are
    the same nothing is touched. DeepSpeed restores its optimizer by itself: there the checkpoint's rate stays.
    """
    load = trainer._load_optimizer_and_scheduler

    def load_state(checkpoint: str | None) -> None:
        own = [{name: group[name] for name in OF_OPTIMIZERS if name in group} for group in _groups(trainer)]
        load(checkpoint)
        if checkpoint is None or trainer.is_deepspeed_enabled:
            return
        groups = _groups(trainer)
        if [{name: group.get(name) for name in each} for each, group in zip(own, groups, strict=True)] == own:
            return
        for group, each in zip(groups, own, strict=True):
            group.update(each)
        schedule = trainer.lr_scheduler
        if hasattr(schedule, "lr_lambdas"):  # all schedules of Transformers' but the one that waits for a plateau
            schedule.base_lrs = [each["initial_lr"] for each in own]
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            rates = [rate * factor for rate, factor in zip(schedule.base_lrs, factors, strict=True)]
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            schedule._last_lr = rates

    trainer._load_optimizer_and_scheduler = load_state


def keep_states_of_callbacks(trainer: transformers.Trainer) -> None:
    """Has callbacks of a `transformers.Trainer` that resumes go on where they were (`ExportableState`). In every rank.

    Transformers leaves them as new ones: an `EarlyStoppingCallback` would forget for how long nothing has improved, and
    stop later than without the interruption. What a callback was built with stays its own. Where the user asks for
    `restore_callback_states_from_checkpoint`, Transformers makes all of them anew; what reports stays the last of them.
    """
    from transformers.trainer_callback import ExportableState

    load = trainer._load_callback_state

    def load_states() -> None:
        before = list(trainer.callback_handler.callbacks)
        if trainer.args.restore_callback_states_from_checkpoint:
            load()
            trainer.callback_handler.callbacks.sort(key=lambda each: each is before[-1])
            return
        for name, saved in trainer.state.stateful_callbacks.items():
            own = [each for each in before if type(each).__name__ == name and isinstance(each, ExportableState)]
            for callback, state in zip(own, saved if isinstance(saved, list) else [saved], strict=False):
                for attribute, value in state.get("attributes", {}).items():
                    setattr(callback, attribute, value)

    trainer._load_callback_state = load_states


def _groups(trainer: transformers.Trainer) -> list[dict[str, Any]]:
    return list(trainer.optimizer.param_groups) if trainer.optimizer is not None else []
