"""Settings that hold others: each is a value as a whole, so nothing in it can be searched."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Set
from types import ModuleType
from typing import Any

import numpy as np
from ray import cloudpickle
from ray.tune.search.sample import Categorical, Domain

from hfsuite.search.spaces import Space, is_grid

# Beside what Python itself calls a routine.
FUNCTIONS = (functools.partial, type(functools.cache(len)), np.ufunc)
PLAIN = (type(None), bool, int, float, str)
DIVIDES = "/"  # between the names of groups, in Ray Tune's own records
CURE = "Search a setting of its own, and put it where it belongs in the training function"


def check_groups(space: Space, defaults: Mapping[str, Any]) -> list[str]:
    """What of a space or of default values would be drawn without a record of it; empty if nothing is.

    Args:
        space: from the names of settings to domains of Ray Tune's, or constants.
        defaults: of all settings.
    """
    faults = []
    for name, domain in space.items():
        if isinstance(domain, Categorical):
            faults += _in_choice(name, domain.categories)
        elif is_grid(domain):
            faults += _in_choice(name, domain["grid_search"])
        elif not isinstance(domain, Domain):
            faults += [
                f"The search space draws {_shown(name, path)} inside of {name!r}, where no searcher and no record sees "
                f"it. {CURE}: {_flat(name, path)!r}."
                for path, _ in _drawn(domain)
            ]
    for name, value in defaults.items():
        faults += drawn_in(name, value)
    constants = {name: each for name, each in space.items() if not isinstance(each, Domain) and not is_grid(each)}
    for what, values in (("The default value", defaults), ("The constant value", constants)):
        for name, value in values.items():
            faults += [
                f"{what} of {_shown(name, path)} is {kind}"
                for path, each in _inside(value)
                if (kind := _unrecordable(each)) is not None
            ]
    return faults


def check_names(values: Mapping[str, Any]) -> list[str]:
    """What settings, and values in them, cannot be called; empty if nothing is wrong.

    Args:
        values: of settings, or domains that they are drawn from.
    """
    faults = []
    for *groups, name in dict.fromkeys(_names(values)):
        if not isinstance(name, str):
            faults.append(f"Names of settings are texts, got {name!r}.")
        elif not name.strip() or not name.isprintable():
            faults.append(f"A setting cannot be called {name!r}: give it a name of letters.")
        elif DIVIDES in name:
            faults.append(
                f"A setting cannot be called {'.'.join([*groups, name])!r}: Ray Tune would divide it at {DIVIDES!r}. "
                f"Call it {name.replace(DIVIDES, '_')!r}."
            )
    return faults


def _names(values: Mapping[Any, Any], groups: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each as a path from the outermost group."""
    for name, value in values.items():
        yield (*groups, name)
        listed = (
            value.categories if isinstance(value, Categorical) else value["grid_search"] if is_grid(value) else [value]
        )
        for each in listed if isinstance(listed, list | tuple) else ():
            if isinstance(each, Mapping):
                yield from _names(each, (*groups, str(name)))


def drawn_in(name: str, value: Any) -> list[str]:
    """What is wrong with a setting that is not searched: a sentence for each domain that stands for a value."""
    return [
        f"{_shown(name, path)} is given {'a list to try' if is_grid(each) else 'a domain'}, which belongs in the "
        "search space: give a value."
        for path, each in _drawn(value)
    ]


def _unrecordable(value: Any) -> str | None:
    """What something is that no record can stand for, with its cure."""
    if inspect.isroutine(value) or isinstance(value, FUNCTIONS):
        return (
            "a function, which no record can hold: make the setting a text, and look the function up in the training "
            "function."
        )
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}, which is no value: import it in the training function."
    return _unsendable(value)


def _unsendable(value: Any) -> str | None:
    """What something is that ranks cannot get, with its cure."""
    if type(value) in PLAIN or isinstance(value, Domain):
        return None
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001  whatever a class of the user's raises
        return (
            f"of the type {type(value).__name__}, which cannot be sent to another process ({type(error).__name__}: "
            f"{error}): make it in the training function."
        )
    return None


def _in_choice(name: str, values: Any) -> list[str]:
    """A setting is one of these values as they stand: Ray Tune draws from nothing that is in one of them."""
    if not isinstance(values, list | tuple):
        return [f"The values that the search space lists for {name!r} must be a list, got {values!r}."]
    inside = [path for value in values for path, _ in _drawn(value)]
    if not inside:
        unsent = [fault for value in values for _, each in _inside(value) if (fault := _unsendable(each)) is not None]
        return [f"The search space lists a value for {name!r} {fault}" for fault in unsent[:1]]
    return [
        f"The search space lists a domain among the values of {name!r}, which a trial would get as it is, not drawn. "
        f"{CURE}: {_flat(name, inside[0] or ('value',))!r}."
    ]


def _drawn(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where in a value, at any depth, something is to be drawn, and what."""
    for path, each in _inside(value):
        if isinstance(each, Domain) or is_grid(each):
            yield path, each


def _inside(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A value, or what is in its groups and lists at any depth, and where."""
    if isinstance(value, Mapping) and not is_grid(value):
        inner = [(str(name), each) for name, each in value.items()]
    elif isinstance(value, list | tuple | Set):
        inner = [(str(place), each) for place, each in enumerate(value)]
    else:
        yield (), value
        return
    for name, each in inner:
        for path, found in _inside(each):
            yield (name, *path), found


def _shown(name: str, path: tuple[str, ...]) -> str:
    return repr(".".join([name, *path]))


def _flat(name: str, path: tuple[str, ...]) -> str:
    return "_".join([name, *path])
