"""A space as Optuna draws from it: conditions, what is left to try, and the values that Ray Tune means. Driver."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.sample import Domain, Float, Integer

from hfsuite.search.domains import Steps, is_logarithmic, normal_of, steps_of
from hfsuite.search.spaces import OnlyWhere, counts, in_order

Point: TypeAlias = dict[str, Any]  # values by the paths of the settings that count: "trainer_init_config/learning_rate"


@dataclass(frozen=True)
class DependentSpace:
    """A space for Optuna, in which a trial draws one setting after another.

    Args:
        distributions: by the paths of the settings: "trainer_init_config/learning_rate".
        only_where: as for `TrialAwareOptunaSearch`.
        defaults: likewise.
    """

    distributions: Mapping[str, BaseDistribution]
    only_where: OnlyWhere
    defaults: Mapping[str, Any]

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draws what counts; returns what does not."""
        values, idle = dict(self.defaults), {}
        for name, path in self._paths:
            if counts(name, self.only_where, values):
                values[name] = _draw(trial, path, self.distributions[path])
            else:
                idle[path] = values[name]
        return idle

    @property
    def usual(self) -> Point:
        """The default values of the settings that count with them."""
        return {path: self.defaults[name] for name, path in self._paths if counts(name, self.only_where, self.defaults)}

    def points(self, *, enough: int, draws: random.Random) -> Iterator[Point]:
        """What can be drawn, each point once and at random; so many values of each setting, or all if it has fewer."""
        return self._points(self._paths, dict(self.defaults), enough, draws)

    def _points(
        self, paths: Sequence[tuple[str, str]], values: Mapping[str, Any], enough: int, draws: random.Random
    ) -> Iterator[Point]:
        if not paths:
            yield {}
            return
        (name, path), *rest = paths
        if not counts(name, self.only_where, values):
            yield from self._points(rest, values, enough, draws)
            return
        for value in _some_values(self.distributions[path], enough, draws):
            for point in self._points(rest, {**values, name: value}, enough, draws):
                yield {path: value, **point}

    @property
    def _paths(self) -> list[tuple[str, str]]:
        """Names and paths of the settings, each behind those that it depends on."""
        paths = {
            path.partition("/")[2] or path: path for path in self.distributions
        }  # settings of settings keep theirs
        return [(name, paths[name]) for name in in_order(paths, self.only_where)]


def drawn_ahead(space: DependentSpace, sampler: optuna.samplers.BaseSampler, count: int) -> list[Point]:
    """What a sampler draws without regard to results. It goes on from there.

    Args:
        space: from which.
        sampler: which.
        count: how many points.
    """
    study = optuna.create_study(sampler=sampler)
    for _ in range(count):
        space(trial := study.ask())
        study.tell(trial, 0.0)  # a quasi-random sequence begins when a trial is complete
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def _draw(trial: optuna.Trial, path: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(path, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(
                path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case FloatDistribution(step=step):  # Optuna lowers an upper bound that rounding has put below the last step
            upper = distribution.high + (step or 0.0) / 2
            return trial.suggest_float(path, distribution.low, upper, step=step, log=distribution.log)
    raise TypeError(f"Ray Tune gave {path} a distribution that is not known here: {distribution!r}.")


def _some_values(distribution: BaseDistribution, enough: int, draws: random.Random) -> list[Any]:
    """Values of a distribution at random, each once: all, or `enough` of them. Of a range one: it never gives out."""
    match distribution:
        case CategoricalDistribution():
            choices = list({repr(choice): choice for choice in distribution.choices}.values())
            return draws.sample(choices, len(choices))
        case IntDistribution():
            whole = range(distribution.low, distribution.high + 1, distribution.step)
            return draws.sample(whole, min(len(whole), enough))
        case FloatDistribution(step=float() as step):
            steps = range(round((distribution.high - distribution.low) / step) + 1)
            drawn = draws.sample(steps, min(len(steps), enough))
            return [min(distribution.low + index * step, distribution.high) for index in drawn]  # rounding errors
        case FloatDistribution(log=True):
            return [math.exp(draws.uniform(math.log(distribution.low), math.log(distribution.high)))]
        case FloatDistribution():
            return [draws.uniform(distribution.low, distribution.high)]
    raise TypeError(f"A distribution that is not known here: {distribution!r}.")


def _domains(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Domain]]:
    """The domains of a space, with their paths."""
    for name, value in settings.items():
        if isinstance(value, Domain):
            yield above + name, value
        elif isinstance(value, Mapping):
            yield from _domains(value, f"{above}{name}/")


def quantised(settings: Mapping[str, Any]) -> Iterator[tuple[str, Steps]]:
    """The steps of the floating-point numbers of a space that have any: rounding errors hide which are equal."""
    for path, domain in _domains(settings):
        if isinstance(domain, Float) and (steps := steps_of(domain)) is not None:
            yield path, steps


def as_ray_draws(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A space in whose quantised domains Ray Tune's searchers find what Ray Tune itself draws from them.

    Its `OptunaSearch` counts steps from the lower bound, where Ray Tune counts them from zero; lets a step of 1 end at
    the upper bound, and not before it; and drops the steps of logarithmic domains, or fails.
    """
    changed = {}
    for name, value in settings.items():
        if isinstance(value, Domain):
            changed[name] = _drawn_by_ray(above + name, value)
        else:
            changed[name] = as_ray_draws(value, f"{above}{name}.") if type(value) is dict else value
    return changed


def _drawn_by_ray(name: str, domain: Domain) -> Domain:
    steps = steps_of(domain)
    if steps is None or normal_of(domain) is not None:
        return domain
    if isinstance(domain, Integer) and steps.by == 1:
        whole = Integer(domain.lower, domain.upper)
        return whole.loguniform() if is_logarithmic(domain) else whole.uniform()
    if is_logarithmic(domain):
        raise ValueError(
            f"{name} is logarithmic in steps of {steps.by:g}, which Optuna does not know: leave out the steps "
            "(tune.loguniform, tune.lograndint), or list the values (tune.choice)."
        )
    if isinstance(domain, Integer):
        return Integer(steps.value(steps.first), steps.value(steps.last)).uniform().quantized(int(steps.by))
    return domain
