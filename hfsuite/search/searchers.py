"""Searchers by name: Optuna's samplers, and Ray Tune's own draws."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.sample import Float, Function

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean
from hfsuite.search.domains import normal_of
from hfsuite.search.learning import Learning, Shown, all_complete, failed_are_stopped
from hfsuite.search.optuna_search import TrialAwareOptunaSearch
from hfsuite.search.spaces import OnlyWhere, Space, is_grid, is_searched
from hfsuite.search.trial_schedulers import Budget
from hfsuite.search.variants import LongFirstVariants
from hfsuite.search.work import tells_work

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
# What those are shown that learn; the others propose the same whatever becomes of a trial.
LEARNS_FROM: dict[str, Shown] = {"tpe": failed_are_stopped, "gp": all_complete, "cmaes": all_complete}
# How many proposals of each are drawn without regard to results; Optuna's numbers of trials with which they begin.
DRAWN_FREELY = {"random": sys.maxsize, "qmc": sys.maxsize, "tpe": 10, "gp": 10, "grid": sys.maxsize}
VARIANTS = "grid"  # Tune's own: every combination of `grid_search`, random draws for the rest
NAMES = [*SAMPLERS, VARIANTS]
CAN_BE_DRAWN = "Use tune.uniform, loguniform, quniform, randint, lograndint or choice"


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
    if unbounded := [f"{name!r} ({kind})" for name, each in space.items() if (kind := _unbounded(each))]:
        raise ConfigurationError(
            f"The searcher {searcher!r} cannot draw what no interval or list holds: {', '.join(unbounded)}. "
            f"{CAN_BE_DRAWN}, or the searcher {VARIANTS!r}, which draws from everything at random."
        )
    try:
        TrialAwareOptunaSearch.convert_search_space(dict(space))
    except ValueError as error:
        raise ConfigurationError(
            f"The searcher {searcher!r} cannot draw from this space: {error} {CAN_BE_DRAWN}, or the searcher "
            f"{VARIANTS!r}."
        ) from error


def _unbounded(domain: object) -> str | None:
    """What a domain is of which nobody knows the ends."""
    if isinstance(domain, Function):
        return "tune.sample_from"
    return "tune.randn" if isinstance(domain, Float) and normal_of(domain) is not None else None


def in_any_order(searcher: str | AnySearcher, space: Space, trials: int) -> int:
    """How many proposals of a searcher are drawn without regard to results, where it matters which of them come first.

    Args:
        searcher: a name, or one of Ray Tune's.
        space: what is searched; if it does not tell which trials take longer, their order does not matter.
        trials: how many there will be.
    """
    drawn = DRAWN_FREELY.get(searcher, 0) if isinstance(searcher, str) else 0
    return min(trials, drawn) if tells_work(space) else 0


def make_searcher(
    searcher: str | AnySearcher,
    *,
    seed: int,
    study_name: str,
    directory: Path | None,
    budget: Budget,
    only_where: OnlyWhere | None = None,
    defaults: Mapping[str, Any] | None = None,
    tries_defaults: bool = False,
    free: int = 0,
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
        tries_defaults: whether they are tried first; by `SAMPLERS` alone.
        free: how many proposals may come in any order: see `in_any_order`.
    """
    if not isinstance(searcher, str):
        return searcher
    if searcher == VARIANTS:
        return LongFirstVariants(random_state=seed) if free else BasicVariantGenerator(random_state=seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    storage = _database(directory) if directory is not None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the name was chosen knowingly
        sampler = SAMPLERS[searcher][1](seed)
    draws = sampler
    if searcher in LEARNS_FROM:
        draws = optuna.samplers.RandomSampler(
            seed=seed + 1
        )  # as these do until they have learnt something, by their seed
        sampler = Learning(sampler, LEARNS_FROM[searcher])
    return TrialAwareOptunaSearch(
        sampler=sampler, study_name=study_name, storage=storage, budget=budget, only_where=only_where,
        defaults=defaults, tries_defaults=tries_defaults, free=free, draws=draws,
    )  # fmt: skip


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
