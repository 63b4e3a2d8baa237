"""A trial's settings, out of what Ray Tune has for it. Driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfsuite.search.spaces import OnlyWhere, Space, counts, is_searched
from hfsuite.seeds import SETTING, SeedRule


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """How the settings of a sweep's trials are read.

    Args:
        argument: below which name they are in Ray Tune's configuration.
        space: what is searched.
        conditions: which settings count only where others have certain values; searchers of Ray Tune's do not know it.
        constants: the values of those that Ray Tune may not have.
        seeds: which seed each trial has.
    """

    argument: str
    space: Space
    conditions: OnlyWhere
    constants: Mapping[str, Any]
    seeds: SeedRule

    def of(self, number: int, config: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's, by its number and Ray Tune's configuration."""
        values = dict(config.get(self.argument, {}))
        return {**values, SETTING: self.seeds.of(number)} if self.seeds.fills_setting else values

    def searched(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those that the search varied, and that count."""
        names = [key for key, domain in self.space.items() if is_searched(domain) and key in values]
        conditions = {key: each for key, each in self.conditions.items() if key in self.space}  # what is fixed counts
        return {key: values[key] for key in names if counts(key, conditions, {**self.constants, **values})}

    def idle(self, values: Mapping[str, Any]) -> list[str]:
        """Those that do not count where the others have these values."""
        whole, searched = {**self.constants, **values}, self.searched(values)
        return [
            key
            for key in self.conditions
            if key in whole and key not in searched and not counts(key, self.conditions, whole)
        ]
