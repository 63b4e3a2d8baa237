"""Values that are not plain: Ray Tune and its searchers know them by a text, and trials get the experiment's own.

Searchers take None, truths, numbers and texts for choices. Of anything else Optuna warns, others make an array, and Ray
Tune puts a pair of texts in its place, of which Optuna warns too. Files hold no classes, enums and tuples either: from
what was made of them the experiment's own are found again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search.sample import Categorical, Domain

from hfsuite.errors import ConfigurationError
from hfsuite.own_values import as_written, is_written, own_value
from hfsuite.search.spaces import OnlyWhere, Space, is_grid

PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class OwnChoices:
    """The values of settings that an experiment itself names.

    Args:
        defaults: of all settings.
        named: what each setting can be, as far as it is listed: its choices, and what it is elsewhere.
    """

    defaults: Mapping[str, Any]
    named: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, space: Space, defaults: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> OwnChoices:
        """Those of a search space, of the default values, and of values that are given."""
        named: dict[str, list[Any]] = {}
        for name, value in [*space.items(), *defaults.items(), *(fixed or {}).items()]:
            known, default = named.setdefault(name, []), defaults.get(name)
            for each in [own_value(each, default) for each in _listed(value)]:
                if not any(_is_same(each, other) for other in known):
                    known.append(each)
        return cls(defaults, named)

    # ---- from files, searchers and users

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings in Python's own types and those of the defaults; what stands for a value of the experiment's is it.

        What has been read stays the same.
        """
        return {name: self._read(name, value) for name, value in settings.items()}

    def faults(self, settings: Mapping[str, Any], unwritten: Sequence[str]) -> list[str]:
        """A sentence for each setting that no file could hold, and that stands for no value of the experiment's.

        Args:
            settings: read from a file.
            unwritten: the names of those of which it holds a text instead.
        """
        texts = {name: settings[name] for name in unwritten if name in settings}
        return [
            f"{name} was {text}, which no file can hold, and which is neither its default nor one of the values that "
            f"the search space lists for it: list it there (tune.choice), or give another value."
            for name, text in texts.items()
            if is_written(self._read(name, text))
        ]

    def _read(self, name: str, value: Any) -> Any:
        default, known = self.defaults.get(name), self.named.get(name, [])
        value = own_value(value, default)
        if any(_is_same(value, each) for each in known):
            return value
        if isinstance(value, str) and value in (texts := self.texts(name)):
            return texts[value]
        meant = [each for each in known if type(each) not in PLAIN and as_written(each) == as_written(value)]
        if len(meant) == 1:
            return meant[0]
        # As it will come back from a file, so that its reproduction gets the same.
        return own_value(as_written(value), default) if is_written(value) else value

    # ---- to Ray Tune and its searchers

    def told(self, space: Space) -> dict[str, Any]:
        """A space, or settings, with a text for each value that is not plain.

        Where Ray Tune calls a function of the user's with the values of other settings, all stand as they are.
        """
        if _has_functions(space):
            return dict(space)
        return {name: self._told_domain(name, domain) for name, domain in space.items()}

    def told_settings(self, settings: Mapping[str, Any], space: Space) -> dict[str, Any]:
        """The same of settings, also of those that Ray Tune would take as they are, as a search in a space has them."""
        if _has_functions(space):
            return dict(settings)
        return {name: self._told(name, value) for name, value in settings.items()}

    def told_conditions(self, only_where: OnlyWhere) -> OnlyWhere:
        """The same of conditions."""
        return {
            name: {other: [self._told(other, value) for value in values] for other, values in condition.items()}
            for name, condition in only_where.items()
        }

    def _told_domain(self, name: str, domain: Any) -> Any:
        if isinstance(domain, Categorical):
            told = copy.copy(domain)
            told.categories = [self._told(name, each) for each in domain.categories]
            return told
        if is_grid(domain):
            return {"grid_search": [self._told(name, each) for each in domain["grid_search"]]}
        return domain if isinstance(domain, Domain) or is_plain(domain) else self._told(name, domain)

    def _told(self, name: str, value: Any) -> Any:
        value = own_value(value, self.defaults.get(name))
        return next((text for text, each in self.texts(name).items() if _is_same(each, value)), value)

    def texts(self, name: str) -> dict[str, Any]:
        """What stands for the values of a setting that are not plain."""
        found: dict[str, Any] = {}
        for value in self.named.get(name, []):
            if type(value) not in PLAIN:
                written = as_written(value)
                text = written if isinstance(written, str) else json.dumps(written)
                others = [*found, *(each for each in self.named[name] if type(each) is str)]
                same = sum(other == text or other.startswith(f"{text} #") for other in others)
                found[f"{text} #{same + 1}" if same else text] = value
        return found


def _has_functions(space: Space) -> bool:
    """Whether Ray Tune calls a function of the user's for a value."""
    return any(isinstance(domain, Domain) and domain.is_function() for domain in space.values())


def is_plain(value: Any) -> bool:
    """Whether Ray Tune takes a value as it is, with all that is in it."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in PLAIN


def check_read(choices: OwnChoices, settings: Mapping[str, Any], unwritten: Sequence[str]) -> dict[str, Any]:
    """Settings from a file, read.

    Raises:
        ConfigurationError: no file could hold one of them, and the experiment does not name it any more.
    """
    if faults := choices.faults(settings, unwritten):
        raise ConfigurationError(faults)
    return choices.read(settings)


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, Categorical):
        return list(value.categories)
    if is_grid(value):
        return list(value["grid_search"])
    return [] if isinstance(value, Domain) else [value]


def _is_same(one: Any, other: Any) -> bool:
    """Of the same type too: 1, 1.0 and True are three. What has no text of its own is nobody's equal."""
    if one is other:
        return True
    return type(one) is type(other) and is_written(one) and as_written(one) == as_written(other)
