"""Searchers by name: Optuna's samplers behind Ray Tune's searcher interface."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean
from hfsuite.search.spaces import OnlyWhere, Space, counts, in_order, is_grid, is_searched
from hfsuite.search.trial_schedulers import Budget
from hfsuite.trainers.report_observer import TRAINING_FINISHED

AnySearcher: TypeAlias = Searcher | SearchAlgorithm

SAMPLERS: dict[str, tuple[str, Callable[[int], optuna.samplers.BaseSampler]]] = {
    "tpe": ("tree-structured Parzen estimators", lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "random": ("independent draws", lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "qmc": (
        "a quasi-random sequence",
        lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
    ),
    "gp": ("Gaussian processes", lambda seed: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)),
    "cmaes": (
        "CMA-ES; needs the package cmaes",
        lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    ),
}
VARIANTS = "grid"  # Tune's own: every combination of `grid_search`, random draws for the rest
NAMES = [*SAMPLERS, VARIANTS]


class TrialAwareOptunaSearch(OptunaSearch):
    """Ray Tune's `OptunaSearch`, which also tells Optuna the truth about stopped trials.

    The stock class tells Optuna that a trial stopped early is complete, with its truncated value; samplers then mix
    what was trained fully with what was not. Here it is pruned, with its intermediate values.

    Where settings depend on others, Optuna is asked for those that count, and the others keep their default values: its
    samplers then learn nothing from what made no difference. (TPE and random draws know such spaces. The others of
    Optuna's samplers draw what is not in every trial independently of all else.)

    Args:
        budget: of the trial scheduler: a trial stopped at its end is complete.
        only_where: which settings count only where others have certain values.
        defaults: of all settings.
    """

    def __init__(
        self, *, budget: Budget, only_where: OnlyWhere | None = None, defaults: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._budget, self._only_where, self._defaults = budget, only_where or {}, defaults or {}
        self._went_on_after: dict[str, int] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune hands over the space, before the first trial. Driver."""
        is_new = bool(super().set_search_properties(metric, mode, config, **spec))
        if is_new and self._only_where:
            self._space: Any = _Dependent(self._space, self._only_where, self._defaults)
        return is_new

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """What to try next. Driver."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Define-by-run function")  # a sampler may think for longer than a second
            proposal: dict[str, Any] | None = super().suggest(trial_id)
            return proposal

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tune calls it only for reports after which a trial goes on. Driver."""
        self._went_on_after[trial_id] = result["training_iteration"]
        self._report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial has ended, by itself or by decision of the trial scheduler. Driver."""
        went_on_after = self._went_on_after.pop(trial_id, None)
        if result and not error and result.get("training_iteration") != went_on_after:
            self._report(trial_id, result)
            if not (result.get(TRAINING_FINISHED) or self._budget.is_spent(result)):
                result = None  # without a value, the stock class says "pruned"
        super().on_trial_complete(trial_id, result, error)

    def _report(self, trial_id: str, result: dict[str, Any]) -> None:
        """After an interruption, Optuna's study is ahead of Ray Tune's state, and what it has heard first counts."""
        if self.metric not in result:
            return
        with warnings.catch_warnings(), suppress(optuna.exceptions.UpdateFinishedTrialError):
            warnings.filterwarnings("ignore", "The reported value is ignored because this `step=")
            super().on_trial_result(trial_id, result)


@dataclass(frozen=True)
class _Dependent:
    """A space for Optuna, in which a trial draws one setting after another.

    Args:
        distributions: by the paths of the settings: "trainer_init_config/learning_rate".
        only_where: as for `TrialAwareOptunaSearch`.
        defaults: likewise.
    """

    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    only_where: OnlyWhere
    defaults: Mapping[str, Any]

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draws what counts; returns what does not."""
        paths = {path.partition("/")[2]: path for path in self.distributions}  # settings of settings keep theirs
        values, idle = dict(self.defaults), {}
        for name in in_order(paths, self.only_where):
            if counts(name, self.only_where, values):
                values[name] = _draw(trial, paths[name], self.distributions[paths[name]])
            else:
                idle[paths[name]] = values[name]
        return idle


def _draw(trial: optuna.Trial, path: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    match distribution:
        case optuna.distributions.CategoricalDistribution():
            return trial.suggest_categorical(path, distribution.choices)
        case optuna.distributions.IntDistribution():
            return trial.suggest_int(
                path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case _:
            return trial.suggest_float(
                path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )


def check_searcher(searcher: str | AnySearcher, space: Space | None = None) -> None:
    """Refuses a name that does not exist, whose package is missing, or that cannot search the given space.

    Raises:
        UnknownName: with the nearest names.
        ConfigurationError: with what to install, or what to change.
    """
    if not isinstance(searcher, str):
        if not isinstance(searcher, Searcher | SearchAlgorithm):
            raise ConfigurationError(f"A searcher is a name or one of Ray Tune's searchers, got {searcher!r}.")
        inner = getattr(searcher, "searcher", searcher)  # of a ConcurrencyLimiter
        if own := [name for name in ("metric", "_space") if getattr(inner, name, None) is not None]:
            raise ConfigurationError(
                f"This {type(inner).__name__} has a {' and a '.join(own).replace('_', '')} already, its own or another "
                "sweep's: make a new one without metric, mode and space, which the experiment names."
            )
        return
    if searcher not in NAMES:
        raise UnknownName(f"There is no searcher {searcher!r}. {did_you_mean(searcher, NAMES)}")
    if searcher == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigurationError("The searcher 'cmaes' needs the package cmaes: pip install cmaes")
    if space is None or searcher == VARIANTS:
        return
    if gridded := sorted(name for name, domain in space.items() if is_grid(domain)):
        raise ConfigurationError(
            f"The searcher {searcher!r} draws values, but the space lists {', '.join(gridded)} with grid_search: "
            f"use tune.choice there, or the searcher {VARIANTS!r}."
        )
    if not any(is_searched(domain) for domain in space.values()):
        raise ConfigurationError(
            "There is nothing to search: no setting varies. Free one of those that are fixed, or train once instead "
            "(hfsuite train, Experiment.train)."
        )
    try:
        OptunaSearch.convert_search_space(dict(space))
    except ValueError as error:
        raise ConfigurationError(
            f"The searcher {searcher!r} cannot draw from this space: {error} Use tune.uniform, loguniform, quniform, "
            f"randint, lograndint or choice, or the searcher {VARIANTS!r}."
        ) from error


def make_searcher(
    searcher: str | AnySearcher,
    *,
    seed: int,
    study_name: str,
    directory: Path | None,
    budget: Budget,
    only_where: OnlyWhere | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> AnySearcher:
    """The searcher of a sweep. Driver.

    Args:
        searcher: one of `NAMES`, or any searcher of Ray Tune's, which is taken as it is.
        seed: of everything that the searcher draws.
        study_name: the sweep's name, so that no two sweeps share a study.
        directory: where the study is kept, as `optuna.db`; None keeps it in memory.
        budget: of the trial scheduler.
        only_where: see `TrialAwareOptunaSearch`. Ray Tune's searchers, `VARIANTS` too, draw every setting each time.
        defaults: likewise.
    """
    if not isinstance(searcher, str):
        return searcher
    if searcher == VARIANTS:
        return BasicVariantGenerator(random_state=seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    storage = _database(directory) if directory is not None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the name was chosen knowingly
        sampler = SAMPLERS[searcher][1](seed)
    return TrialAwareOptunaSearch(
        sampler=sampler, study_name=study_name, storage=storage, budget=budget, only_where=only_where, defaults=defaults
    )


def _database(directory: Path) -> optuna.storages.RDBStorage:
    """Where the study is kept: named once its tables are all there, since a kill may fall between two of them."""
    path, draft = directory / "optuna.db", ".optuna.db.new"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(f"{draft}*"):
            left.unlink()
        optuna.storages.RDBStorage(f"sqlite:///{directory / draft}").engine.dispose()
        os.replace(directory / draft, path)
    return optuna.storages.RDBStorage(f"sqlite:///{path}")
