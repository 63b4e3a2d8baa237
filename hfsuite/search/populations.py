"""Population Based Training that trains no value which its domains do not hold. Driver.

Ray Tune multiplies the value of any domain by 0.8 or 1.2: `tune.choice([8, 16, 32])` becomes 10 or 38, a range is left
on both sides, and a whole number of 1 or 2 stays what it is for ever. PB2 knows ranges only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pandas as pd
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search.sample import Categorical, Domain, Integer
from ray.tune.utils import flatten_dict

from hfsuite.search.domains import steps_of


def keep_within_domains(scheduler: PopulationBasedTraining, space: Mapping[str, Any]) -> None:
    """Has a population explore only values that its domains hold. Driver.

    Args:
        scheduler: is changed.
        space: of the experiment, as Ray Tune's configuration has it: {"trainer_init_config": {...}}. It says what is
            held where a mutation does not: of functions, and of what PB2 searches or the user's own explore function
            changes.
    """
    if not _is_pb2(scheduler):
        scheduler._hyperparam_mutations = _with_lists(scheduler._hyperparam_mutations)
    scheduler._get_new_config = _Exploration(scheduler, space)


@dataclass(frozen=True)
class _Exploration:
    """What a trial that takes over another's checkpoint goes on with: as the scheduler explores, put back in place."""

    scheduler: PopulationBasedTraining
    space: Mapping[str, Any]

    def __call__(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        scheduler = self.scheduler
        known = len(scheduler.data) if _is_pb2(scheduler) else 0
        explored, operations = type(scheduler)._get_new_config(scheduler, trial, trial_to_clone)
        held = _put_back(
            explored, trial_to_clone.config, scheduler._hyperparam_mutations, self.space, operations,
            are_ranges=_is_pb2(scheduler),
        )  # fmt: skip
        if _is_pb2(scheduler) and len(scheduler.data) > known:
            _tell_pb2(scheduler, held)
        return held, operations


def put_back(domain: Domain, value: Any, *, old: Any, towards: int = 0) -> Any:
    """The value of a domain that a perturbed one stands for.

    Args:
        domain: of the setting.
        value: what was explored.
        old: what was multiplied.
        towards: 1 if it was multiplied by more than 1, -1 if by less: then it moves, by one step at least, unless it
            has come to the end; 0 if it may be any value.
    """
    if isinstance(domain, Categorical):
        return _listed(domain.categories, value, old, towards)
    if not isinstance(value, Real):
        return value
    steps = steps_of(domain)
    if steps is None:
        held = min(max(float(value), domain.lower), domain.upper)
        return _whole(held, domain) if type(old) is int else held
    index = steps.nearest(float(value))
    if towards and isinstance(old, Real):
        before = steps.nearest(float(old))
        if (index - before) * towards <= 0:
            index = min(max(before + towards, steps.first), steps.last)
    return int(steps.value(index)) if isinstance(domain, Integer) else float(steps.value(index))


def _whole(value: float, domain: Any) -> int:
    """The next whole number that a range holds, of a setting that is one; if it holds none, the next of all."""
    nearest = round(value)
    if nearest < domain.lower and nearest + 1 <= domain.upper:
        return nearest + 1
    return nearest - 1 if nearest > domain.upper and nearest - 1 >= domain.lower else nearest


def _listed(values: Sequence[Any], value: Any, old: Any, towards: int) -> Any:
    """The neighbour of the old one, where it shall move; else the nearest one."""
    ordered = _in_order(values)
    if towards and old in ordered:
        return ordered[min(max(ordered.index(old) + towards, 0), len(ordered) - 1)]
    if value in ordered:
        return value
    if not isinstance(value, Real) or not all(isinstance(each, Real) for each in ordered):
        return old
    number = float(value)
    return min(ordered, key=lambda each: abs(float(each) - number))


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Numbers by size, anything else as it was listed."""
    are_numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return sorted(values) if are_numbers else list(values)


def _with_lists(mutations: Mapping[str, Any]) -> dict[str, Any]:
    """Choices as plain lists: of those Ray Tune takes the next or the previous value, and it cannot multiply texts."""
    changed: dict[str, Any] = {}
    for name, mutation in mutations.items():
        if isinstance(mutation, Categorical):
            changed[name] = _in_order(mutation.categories)
        else:
            changed[name] = _with_lists(mutation) if isinstance(mutation, Mapping) else mutation
    return changed


def _put_back(
    explored: Mapping[str, Any], old: Mapping[str, Any], mutations: Any, space: Any, operations: Any, *,
    are_ranges: bool,
) -> dict[str, Any]:  # fmt: skip
    """Does so with each setting, also with those in groups.

    Args:
        explored: a configuration.
        old: the one that it was made of.
        mutations: of these settings.
        space: likewise; it may know other settings.
        operations: in Ray Tune's words, "* 1.2" for example.
        are_ranges: whether a list among the mutations has the two ends of a range in it.
    """
    mutations, space, operations = _settings(mutations), _settings(space), _settings(operations)
    held = {}
    for name, value in explored.items():
        mutation, domain, operation = mutations.get(name), space.get(name), operations.get(name)
        before = old.get(name)
        if isinstance(value, Mapping):
            held[name] = _put_back(value, _settings(before), mutation, domain, operation, are_ranges=are_ranges)
            continue
        if isinstance(mutation, list | tuple) and are_ranges:
            value = min(max(value, mutation[0]), mutation[1])
        elif isinstance(mutation, list | tuple):
            domain = Categorical(mutation)
        elif isinstance(mutation, Domain):
            domain = mutation
        is_explored = mutation is not None or value != before
        towards = _direction(operation)
        if is_explored and isinstance(domain, Domain) and not domain.is_function():
            value = put_back(domain, value, old=before, towards=0 if isinstance(mutation, list | tuple) else towards)
        held[name] = value
    return held


def _settings(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _direction(operation: Any) -> int:
    if not isinstance(operation, str) or not operation.startswith("* "):
        return 0
    factor = float(operation.removeprefix("* "))
    return (factor > 1) - (factor < 1)


def _is_pb2(scheduler: Any) -> bool:
    """Whether it is one; where nobody has imported that module, which takes scikit-learn along, nobody has made one."""
    module = sys.modules.get("ray.tune.schedulers.pb2")
    return module is not None and isinstance(scheduler, module.PB2)


def _tell_pb2(scheduler: Any, config: Mapping[str, Any]) -> None:
    """PB2 has noted what it chose, and finds what becomes of it by these values."""
    flat = flatten_dict(config)
    values = {name: flat[name] for name in scheduler._hyperparam_bounds_flat}
    scheduler.data = pd.concat([scheduler.data.iloc[:-1], scheduler.data.iloc[[-1]].assign(**values)])
    scheduler.current[-1] = list(values.values())
