"""Trial schedulers by name: Ray Tune's own, which stop trials that fall behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean

LONGEST = 10_000  # reports; beyond any trial, so that a schedule ends when the training does and not before

SCHEDULERS: dict[str, tuple[str, Callable[[], TrialScheduler]]] = {
    "asha": (
        "after reports 1, 3, 9, ... only the best third goes on",
        lambda: ASHAScheduler(max_t=LONGEST, grace_period=1, reduction_factor=3),
    ),
    "hyperband": ("brackets of successive halving; pauses trials", lambda: HyperBandScheduler(max_t=81)),
    "median": (
        "stops what is below the median of the others' running averages",
        lambda: MedianStoppingRule(time_attr="training_iteration", grace_period=1, min_samples_required=3),
    ),
    "fifo": ("stops nothing", FIFOScheduler),
}


def check_trial_scheduler(scheduler: str | TrialScheduler) -> None:
    """Refuses a name that does not exist.

    Raises:
        UnknownName: with the nearest names.
    """
    if isinstance(scheduler, str):
        if scheduler not in SCHEDULERS:
            raise UnknownName(f"There is no trial scheduler {scheduler!r}. {did_you_mean(scheduler, SCHEDULERS)}")
    elif not isinstance(scheduler, TrialScheduler):
        raise ConfigurationError(f"A trial scheduler is a name or one of Ray Tune's schedulers, got {scheduler!r}.")


def make_trial_scheduler(scheduler: str | TrialScheduler) -> TrialScheduler:
    """The trial scheduler of a sweep: one of `SCHEDULERS`, or any of Ray Tune's, which is taken as it is. Driver."""
    return SCHEDULERS[scheduler][1]() if isinstance(scheduler, str) else scheduler


def spent_its_budget(scheduler: TrialScheduler, result: Mapping[str, Any]) -> bool:
    """Whether a trial stopped at this report got all that its scheduler ever gives: then it was not pruned."""
    longest = getattr(scheduler, "_max_t", None) or getattr(scheduler, "_max_t_attr", None)
    time_attribute = getattr(scheduler, "_time_attr", "training_iteration")
    return longest is not None and result.get(time_attribute, 0) >= longest
