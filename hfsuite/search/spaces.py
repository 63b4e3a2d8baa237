"""Search spaces: dicts from the name of a setting to what Ray Tune may draw for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.search.sample import Categorical, Domain, Float, Function, Integer

from hfsuite.errors import did_you_mean, nearest
from hfsuite.search.domains import empty_fault, holds, is_logarithmic, normal_of, steps_of
from hfsuite.search.values import type_fault
from hfsuite.seeds import SETTING, seed_fault

Space = Mapping[str, Any]
# Of a setting that counts only where others have one of the values that are listed for each of them.
OnlyWhere = Mapping[str, Mapping[str, Sequence[Any]]]


def is_searched(value: Any) -> bool:
    """Whether a value of a space is drawn anew for each trial, and not a constant."""
    return isinstance(value, Domain) or _grid(value) is not None


def grid_size(space: Space) -> int | None:
    """How many combinations of values a space lists with `grid_search`; None if it lists none."""
    lists = [values for domain in space.values() if (values := _grid(domain)) is not None]
    return math.prod(map(len, lists)) if lists else None


def outside(space: Space, defaults: Mapping[str, Any]) -> list[str]:
    """Settings whose default value the space cannot give."""
    return [name for name, domain in space.items() if isinstance(domain, Domain) and not holds(domain, defaults[name])]


def is_grid(value: Any) -> bool:
    """Whether a value of a space lists what is to be tried, each of it."""
    return _grid(value) is not None


def check_space(space: Space, defaults: Mapping[str, Any]) -> list[str]:
    """What is wrong with a space, given the settings of an experiment and their default values; empty if nothing is."""
    faults = []
    if space and not defaults:
        values = ", ".join(f"{name!r}: ..." for name in space)
        return [f"There are no defaults: give every setting a value, defaults={{{values}}}."]
    for name, domain in space.items():
        if name not in defaults:
            near = f"{did_you_mean(name, defaults)} Or" if nearest(name, defaults) else "To search it,"
            faults.append(
                f"The search space varies {name!r}, which the experiment does not take. {near} add it to defaults: "
                f"defaults={{..., {name!r}: VALUE}}."
            )
            continue
        if isinstance(defaults[name], Domain):
            continue  # which is told of by itself
        examples = examples_of(domain)
        if isinstance(domain, Categorical) or is_grid(domain):
            faults += [] if examples else [f"The search space lists no values for {name!r}."]
        if fault := empty_fault(name, domain):
            faults.append(fault)
            continue
        if name == SETTING:
            faults += [f"In the search space: {fault}" for each in _ends(domain) if (fault := seed_fault(each))][:1]
            continue
        for value in examples:
            if fault := type_fault(name, value, defaults[name]):
                faults.append(f"In the search space: {fault}{_meant(domain)}")
                break
    return faults


def _meant(value: Any) -> str:
    """What somebody wants who writes a bare list or pair as a search space."""
    if not isinstance(value, list | tuple) or not value:
        return ""
    numbers = [each for each in value if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(value) == len(numbers) == 2 and 0 < value[0] < value[1]:
        return f" For a range write tune.loguniform({value[0]!r}, {value[1]!r}), for two values tune.choice({value!r})."
    return f" To draw one of these values write tune.choice({list(value)!r})."


def check_only_where(only_where: OnlyWhere, space: Space, defaults: Mapping[str, Any]) -> list[str]:
    """What is wrong with the conditions of a space; empty if nothing is."""
    faults: list[str] = []
    if not isinstance(only_where, Mapping):
        return [f"only_where maps settings to what they depend on, got {only_where!r}."]
    if wrong := [name for name, condition in only_where.items() if not isinstance(condition, Mapping)]:
        return [f"only_where[{name!r}] must name other settings, each with a list of values." for name in wrong]
    for name, condition in only_where.items():
        if name not in space:
            near = did_you_mean(str(name), space, "That is empty.")
            faults.append(f"only_where names {name!r}, which is not in the search space. {near}")
        for other, values in condition.items():
            if other not in defaults:
                nearest = did_you_mean(str(other), defaults)
                faults.append(f"{name} depends on {other!r}, which the experiment does not take. {nearest}")
            elif isinstance(values, str) or not isinstance(values, Sequence) or not values:
                faults.append(f"{name} depends on {other}: list the values that it must have, got {values!r}.")
            else:
                mistyped = [fault for value in values if (fault := type_fault(other, value, defaults[other]))]
                never = [] if mistyped else [value for value in values if not _can_be(other, value, space)]
                faults += mistyped
                faults += [f"{name} depends on {other}={value!r}, which the space never draws." for value in never]
        if name in _all_before(name, only_where):
            faults.append(f"{name} depends on itself, by way of {', '.join(map(repr, condition))}.")
    return faults


def _can_be(name: str, value: Any, space: Space) -> bool:
    """Whether a setting can have a value; a fixed one may be any."""
    domain = space.get(name)
    if isinstance(domain, Integer | Float):
        steps = steps_of(domain)
        return steps is not None and isinstance(value, int | float) and value in steps
    values = domain.categories if isinstance(domain, Categorical) else _grid(domain)
    return values is None or is_one_of(value, values)


def is_one_of(value: Any, allowed: Sequence[Any]) -> bool:
    """Whether a condition allows a value: 0.1 + 2 * 0.1, as a domain in steps gives it, is 0.3."""
    return value in allowed or (
        isinstance(value, float)
        and any(isinstance(each, float) and math.isclose(value, each, rel_tol=1e-12) for each in allowed)
    )


def constants_of(space: Space) -> dict[str, Any]:
    """The values of a space that are no domains."""
    return {name: value for name, value in space.items() if not is_searched(value)}


def can_count(name: str, only_where: OnlyWhere, space: Space, constants: Mapping[str, Any]) -> bool:
    """Whether a setting counts for any values that the space can draw.

    Args:
        name: of the setting.
        only_where: what it depends on.
        space: what is drawn.
        constants: the values of all that is not.
    """
    return all(
        can_count(other, only_where, space, constants)
        if is_searched(space.get(other))
        else is_one_of(constants[other], allowed)
        for other, allowed in only_where.get(name, {}).items()
    )


def counts(name: str, only_where: OnlyWhere, values: Mapping[str, Any]) -> bool:
    """Whether a setting counts where the others have these values; one that depends on what does not count does not."""
    condition = only_where.get(name, {})
    return all(
        is_one_of(values[other], allowed) and counts(other, only_where, values) for other, allowed in condition.items()
    )


def in_order(space: Space, only_where: OnlyWhere) -> list[str]:
    """The names of a space, each behind those that it depends on."""
    return sorted(space, key=lambda name: len(_all_before(name, only_where)))


def _all_before(name: str, only_where: OnlyWhere) -> set[str]:
    """What a setting depends on, directly or not; itself too if they go round in a circle."""
    found: set[str] = set()
    ahead = list(only_where.get(name, {}))
    while ahead:
        if (other := ahead.pop()) not in found:
            found.add(other)
            ahead += only_where.get(other, {})
    return found


def describe(domain: Any) -> str:
    """A domain in the words of mathematics, for tables."""
    if (values := _grid(domain)) is not None:
        return "each of " + ", ".join(str(value) for value in values)
    match domain:
        case Categorical():
            return "one of " + ", ".join(str(value) for value in domain.categories)
        case Float() | Integer():
            return _describe_numbers(domain)
        case Function():
            return "computed"
        case _:
            return str(domain)


def _describe_numbers(domain: Float | Integer) -> str:
    steps, lower, upper, step = steps_of(domain), domain.lower, domain.upper, ""
    if steps is not None:
        lower, upper = steps.value(steps.first), steps.value(steps.last)
        step = "" if isinstance(domain, Integer) and steps.by == 1 else f" in steps of {_in_words(steps.by)}"
    if (normal := normal_of(domain)) is not None:
        return f"around {_in_words(normal.mean)}, with a deviation of {_in_words(normal.sd)}{step}"
    return f"{_in_words(lower)} to {_in_words(upper)}{step}{', logarithmic' if is_logarithmic(domain) else ''}"


def _in_words(number: float) -> str:
    """Every digit that it has, without those of a rounding error (3 * 0.1)."""
    if isinstance(number, int):
        return str(number)
    short = f"{number:g}"
    return short if math.isclose(float(short), number, rel_tol=1e-12) else f"{number:.12g}"


def _grid(value: Any) -> list[Any] | None:
    return value["grid_search"] if isinstance(value, Mapping) and set(value) == {"grid_search"} else None


def _ends(domain: Any) -> list[Any]:
    """The smallest and the largest of whole numbers that can be drawn, or all values that are listed."""
    return [domain.lower, domain.upper - 1] if isinstance(domain, Integer) else examples_of(domain)


def examples_of(domain: Any) -> list[Any]:
    """Values that a domain can give, enough to see their types; none for functions, which need a whole sample."""
    if (values := _grid(domain)) is not None:
        return values
    match domain:
        case Categorical():
            return list(domain.categories)
        case Float():
            return [0.5]
        case Integer():
            return [1]
        case Domain():
            return []
        case _:
            return [domain]
