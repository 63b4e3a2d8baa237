"""Optuna behind Ray Tune's searcher interface: what it is told, and what it may propose. Driver."""

from __future__ import annotations

import functools
import math
import operator
import random
import warnings
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any, TypeAlias, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from hfsuite.report import FAILED_AT_END, TRAINING_FINISHED
from hfsuite.search.domains import Steps
from hfsuite.search.learning import LOST, REPEATED, STATE
from hfsuite.search.optuna_space import DependentSpace, Point, as_ray_draws, drawn_ahead, quantised
from hfsuite.search.spaces import OnlyWhere
from hfsuite.search.trial_schedulers import Budget
from hfsuite.search.work import expected_work

Key: TypeAlias = tuple[tuple[str, str], ...]

MOST_AHEAD = 1_000  # proposals that are drawn before they are asked for
REDRAWS = 5  # of a sampler that repeats itself; a Gaussian process takes seconds for each at the end of a long sweep


class TrialAwareOptunaSearch(OptunaSearch):
    """Ray Tune's `OptunaSearch`, which also tells Optuna the truth about stopped and failed trials.

    The stock class tells Optuna that a trial stopped early is complete, with its truncated value; samplers then mix
    what was trained fully with what was not. Here it is pruned, with its intermediate values. One that ends without a
    usable number has failed; the stock class leaves it running for ever.

    Where settings depend on others, Optuna is asked for those that count, and the others keep their default values: its
    samplers then learn nothing from what made no difference. (TPE and random draws know such spaces. The others of
    Optuna's samplers draw what is not in every trial independently of all else.)

    Nothing is proposed twice. What a sampler repeats is drawn again; if it insists, one of the configurations is taken
    that were not tried; and if there is none, the search is over. In the study a repetition has failed, with the user
    attribute `hfsuite.state`.

    The first proposals of most samplers do not depend on any result. They are drawn at once, and made in the order of
    the work that they are expected to be (`expected_work`), the longest first.

    Args:
        budget: of the trial scheduler: a trial stopped at its end is complete.
        only_where: which settings count only where others have certain values.
        defaults: of all settings.
        tries_defaults: whether they are the first proposal.
        free: how many proposals are drawn without regard to results, and may come in any order.
        draws: which draws those.
    """

    def __init__(
        self, *, budget: Budget, only_where: OnlyWhere | None = None, defaults: Mapping[str, Any] | None = None,
        tries_defaults: bool = False, free: int = 0, draws: optuna.samplers.BaseSampler | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._budget, self._only_where, self._defaults = budget, only_where or {}, defaults or {}
        self._tries_defaults, self._free, self._draws = tries_defaults, free, draws
        self._went_on_after: dict[str, int] = {}
        self._steps: dict[str, Steps] = {}  # of quantised numbers, by their paths
        self._tried: set[Key] = set()
        self._line: list[tuple[float, Point]] = []  # what was drawn ahead and not proposed yet, with its work
        self.exhausted: str | None = None  # says that the search is over since nothing is left to try

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune hands over the space, before the first trial. Driver."""
        is_new = bool(super().set_search_properties(metric, mode, config, **spec))
        if is_new:
            self._steps = dict(quantised(config))
            self._space: Any = DependentSpace(self._space, self._only_where, self._defaults)
        return is_new

    @staticmethod
    def convert_search_space(spec: dict[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of a space, which hold the values that Ray Tune would draw.

        Raises:
            ValueError: Optuna cannot draw from one of the domains.
        """
        with (
            warnings.catch_warnings()
        ):  # Optuna lowers an upper bound that is no step: half a step higher, none is lost
            warnings.filterwarnings("ignore", "The distribution is specified by")
            distributions: dict[str, BaseDistribution] = OptunaSearch.convert_search_space(as_ray_draws(spec))
            return distributions | {
                path: FloatDistribution(steps.value(steps.first), steps.value(steps.last + 0.5), step=steps.by)
                for path, steps in quantised(spec)
            }

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What to try next; `Searcher.FINISHED` if nothing is left. Driver."""
        if not self._ot_trials:
            self._end_lost_trials()
            self._line = self._line or self._drawn_ahead()
        if self._line:
            self._ot_study.enqueue_trial(self._line.pop(0)[1])
        proposal = self._propose(trial_id)
        repeated: list[optuna.Trial] = []  # they run until a new one is found: samplers keep away from what runs
        try:
            while not self._is_new(trial_id):
                repeated.append(self._ot_trials.pop(trial_id))
                if (untried := self._untried()) is None:
                    count = len(self._tried)
                    self.exhausted = (
                        f"The search ends here: its space holds {count} configuration{'s' * (count > 1)}, and each of "
                        "them has been tried."
                    )
                    return str(Searcher.FINISHED)
                if len(repeated) > REDRAWS:
                    self._ot_study.enqueue_trial(untried)
                proposal = self._propose(trial_id)
        finally:
            for trial in repeated:
                self._end_untrained(trial._trial_id, REPEATED)
        return proposal

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tune calls it only for reports after which a trial goes on. Driver."""
        self._went_on_after[trial_id] = result["training_iteration"]
        self._report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial has ended, by itself or by decision of the trial scheduler. Driver."""
        went_on_after = self._went_on_after.pop(trial_id, None)
        is_stopped = not result
        if result and not error and result.get("training_iteration") != went_on_after:
            self._report(trial_id, result)
            is_stopped = not (result.get(TRAINING_FINISHED) or self._budget.is_spent(result))
        has_failed = error or bool(result and result.get(FAILED_AT_END))
        value = None if has_failed else self._value_at_end(trial_id, result or {})
        if value is None:
            self._tell(trial_id, TrialState.FAIL)
        elif is_stopped:
            self._tell(trial_id, TrialState.PRUNED)  # its value is that of its last report
        else:
            self._tell(trial_id, TrialState.COMPLETE, value)

    def restore(self, checkpoint_path: str) -> None:
        """Goes on where `save` was called. Driver."""
        space = self._space
        super().restore(checkpoint_path)
        if not isinstance(self._space, DependentSpace):  # saved by an earlier version
            self._space = space
        self._tried = {self._key(trial.params) for trial in self._ot_trials.values()}
        self._end_lost_trials()

    def _propose(self, trial_id: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Define-by-run function")  # a sampler may think for longer than a second
            warnings.filterwarnings("ignore", "The distribution is specified by")  # see convert_search_space
            proposal: dict[str, Any] = super().suggest(trial_id)
        for path in self._steps.keys() & self._ot_trials[trial_id].params:
            *groups, name = path.split("/")
            settings = functools.reduce(operator.getitem, groups, proposal)
            settings[name] = self._steps[path].value(self._steps[path].nearest(settings[name]))
        return proposal

    def _is_new(self, trial_id: str) -> bool:
        """Whether a proposal has never been made, as far as its settings count; from now on it has."""
        key = self._key(self._ot_trials[trial_id].params)
        is_new = key not in self._tried
        self._tried.add(key)
        return is_new

    def _key(self, point: Mapping[str, Any]) -> Key:
        """The same for the same configuration, whatever a sampler's rounding error."""
        steps = self._steps
        exact = {path: steps[path].nearest(value) if path in steps else value for path, value in point.items()}
        return tuple((path, repr(exact[path])) for path in sorted(exact))

    def _untried(self) -> Point | None:
        """A configuration that has not been proposed; None if all have."""
        points = self._space.points(enough=len(self._tried) + 1, draws=random.Random(len(self._tried)))
        return next((point for point in points if self._key(point) not in self._tried), None)

    def _report(self, trial_id: str, result: dict[str, Any]) -> None:
        """After an interruption, Optuna's study is ahead of Ray Tune's state, and what it has heard first counts."""
        if not _is_usable(value := result.get(self.metric)):
            return
        if self._frozen(trial_id).state == TrialState.FAIL:
            self._ask_again(trial_id)
        with warnings.catch_warnings(), suppress(optuna.exceptions.UpdateFinishedTrialError):
            warnings.filterwarnings("ignore", "The reported value is ignored because this `step=")
            self._ot_trials[trial_id].report(float(value), result["training_iteration"])

    def _ask_again(self, trial_id: str) -> None:
        """A trial that has failed is trained once more: Optuna, which lets nothing change any more, has it twice."""
        self._ot_study.enqueue_trial(self._ot_trials.pop(trial_id).params)
        self._propose(trial_id)

    def _value_at_end(self, trial_id: str, last: Mapping[str, Any]) -> float | None:
        """What a trial has reached; None if that is no number. Its last report need not have the metric in it."""
        if self.metric in last:
            return float(value) if _is_usable(value := last[self.metric]) else None
        reported = self._frozen(trial_id).intermediate_values
        return reported[max(reported)] if reported else None

    def _tell(self, trial_id: str, state: TrialState, value: float | None = None) -> None:
        """What Optuna heard before an interruption stands."""
        self._ot_study.tell(self._ot_trials[trial_id], value, state=state, skip_if_finished=True)
        self._completed_trials.add(trial_id)

    def _end_lost_trials(self) -> None:
        """Ends those that Ray Tune never came to know of: the driver was killed between the proposal and the trial."""
        known = {trial.number for trial in self._ot_trials.values()}
        for trial in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            if trial.number not in known:
                self._end_untrained(trial._trial_id, LOST)

    def _drawn_ahead(self) -> list[tuple[float, Point]]:
        """The proposals that may come in any order, behind the defaults, with their work."""
        first = [self._space.usual] if self._tries_defaults else []
        count = min(MOST_AHEAD, self._free) - len(first)
        drawn = drawn_ahead(self._space, self._draws, count) if self._draws is not None and count > 1 else []
        points = {self._key(point): point for point in drawn}.values()
        return [(self._work(point), point) for point in [*first, *sorted(points, key=self._work, reverse=True)]]

    @property
    def works_ahead(self) -> list[float]:
        """What the next trials are expected to take that were drawn ahead."""
        return [work for work, _ in self._line]

    def _work(self, point: Point) -> float:
        return expected_work({**self._defaults, **{path.partition("/")[2] or path: point[path] for path in point}})

    def _end_untrained(self, optuna_id: int, state: str) -> None:
        """Says in the study that a trial was never trained, which samplers do not take for a failure."""
        storage = self._ot_study._storage
        storage.set_trial_user_attr(optuna_id, STATE, state)
        storage.set_trial_state_values(optuna_id, TrialState.FAIL)

    def _frozen(self, trial_id: str) -> FrozenTrial:
        frozen: FrozenTrial = self._ot_study._storage.get_trial(self._ot_trials[trial_id]._trial_id)
        return frozen


def _is_usable(value: Any) -> TypeGuard[Real]:
    """Whether it is a number by which trials can be compared."""
    return isinstance(value, Real) and math.isfinite(value)
