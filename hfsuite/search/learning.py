"""What Optuna's samplers learn from trials that were stopped or have failed. Driver.

Optuna's Gaussian processes and CMA-ES look at complete trials only: what fails or is stopped leaves no trace, and the
same point is proposed again and again. TPE looks at stopped trials too, and not at those that failed. Here a sampler is
shown a study in which such trials have values, so that it keeps away. In the study itself they stay pruned and failed:
it can be counted, its best trial is one that was trained to its end, and the values follow from all that is known at
each proposal, also for trials that failed before anything was known.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Container, Sequence
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

STATE = "hfsuite.state"  # user attribute of those that were never trained to any end: what became of them
REPEATED, LOST = "repeated", "lost"
MARGIN = 0.1  # of the span of what is known: by how much a failed trial is worse than the worst
FAILED_TO_A_KNOWN_ONE = 9  # TPE counts the best tenth of all trials as good ones: none that failed shall be among them


class Shown(Protocol):
    """From the trials of a study to what a sampler is shown of them."""

    def __call__(self, trials: Sequence[FrozenTrial], *, larger_is_better: bool) -> list[FrozenTrial]:
        """In the order of the study."""


def all_complete(trials: Sequence[FrozenTrial], *, larger_is_better: bool) -> list[FrozenTrial]:
    """For samplers that look at complete trials only: stopped and failed ones are complete with a poor value.

    A stopped trial was worse than others that had come as far. What it would have reached is not known: its last value
    is one of a short training. So it has that value, or the median of those that were trained to their end if that is
    worse (a short training shall not look better than it was), and at most the worst of them (one value of a training's
    first steps shall not make all others look alike).

    A failed one is a tenth of the span of all these values worse than the worst of them.
    """
    sign = -1.0 if larger_is_better else 1.0  # less is better from here on
    ends = [sign * value for trial in trials if (value := _end(trial)) is not None]
    stopped = {trial.number: sign * value for trial in trials if (value := _stopped_at(trial)) is not None}
    if ends:
        median, worst = statistics.median(ends), max(ends)
        stopped = {number: min(max(value, median), worst) for number, value in stopped.items()}
    known = [*ends, *stopped.values()]
    if not known:
        return list(trials)
    span = max(known) - min(known) or abs(max(known)) or 1.0
    failed = max(known) + MARGIN * span
    return [
        _as(trial, TrialState.COMPLETE, sign * stopped.get(trial.number, failed)) if _counts_as_bad(trial) else trial
        for trial in trials
    ]


def failed_are_stopped(trials: Sequence[FrozenTrial], *, larger_is_better: bool) -> list[FrozenTrial]:
    """For TPE, which ranks stopped trials behind complete ones: failed ones are stopped without a value, its worst."""
    known = sum(_end(trial) is not None or _stopped_at(trial) is not None for trial in trials)
    failed = [trial.number for trial in trials if trial.state == TrialState.FAIL and _counts_as_bad(trial)]
    shown = set(failed[-FAILED_TO_A_KNOWN_ONE * known :] if known else [])
    return [_as(trial, TrialState.PRUNED, None) if trial.number in shown else trial for trial in trials]


class Learning(optuna.samplers.BaseSampler):
    """A sampler of Optuna's that is shown more of a study than it would look at.

    Args:
        sampler: which proposes.
        shown: what it is shown.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler, shown: Shown) -> None:
        self.sampler, self.shown = sampler, shown

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Which settings are proposed together."""
        space: dict[str, BaseDistribution]
        space = self.sampler.infer_relative_search_space(_ShownStudy(study, self.shown), trial)
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of those."""
        values: dict[str, Any] = self.sampler.sample_relative(_ShownStudy(study, self.shown), trial, search_space)
        return values

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of another one."""
        return self.sampler.sample_independent(_ShownStudy(study, self.shown), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A proposal begins."""
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """A trial has ended."""
        self.sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Draws differently from here on."""
        self.sampler.reseed_rng()


class _ShownStudy(optuna.Study):
    """A study as a sampler sees it: Optuna does the same for its Hyperband."""

    def __init__(self, study: optuna.Study, shown: Shown) -> None:
        super().__init__(study.study_name, study._storage, sampler=study.sampler, pruner=study.pruner)
        self._thread_local = study._thread_local  # holds the trials that were read for this proposal
        self._shown = shown

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        larger_is_better = self.direction == optuna.study.StudyDirection.MAXIMIZE
        trials = self._shown(super()._get_trials(deepcopy, None, use_cache), larger_is_better=larger_is_better)
        return [trial for trial in trials if states is None or trial.state in states]


def _counts_as_bad(trial: FrozenTrial) -> bool:
    """Whether it says something about its settings, though it was not trained to its end."""
    return trial.state in (TrialState.PRUNED, TrialState.FAIL) and STATE not in trial.user_attrs


def _end(trial: FrozenTrial) -> float | None:
    is_known = trial.state == TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    return trial.value if is_known else None


def _stopped_at(trial: FrozenTrial) -> float | None:
    is_known = trial.state == TrialState.PRUNED and trial.value is not None and math.isfinite(trial.value)
    return trial.value if is_known else None


def _as(trial: FrozenTrial, state: TrialState, value: float | None) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.state, shown.value = state, value
    if value is None:
        shown.intermediate_values = {}
    return shown
