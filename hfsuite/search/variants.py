"""Ray Tune's own searcher, which lists the combinations of a grid: those that take longest come first. Driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from ray.tune.search import BasicVariantGenerator
from ray.tune.search.basic_variant import _VariantIterator
from ray.tune.search.variant_generator import generate_variants

from hfsuite.search.work import expected_work

MOST_AHEAD = 1_000  # times that a grid is drawn at once


class LongFirstVariants(BasicVariantGenerator):
    """Draws all variants at once, and proposes them in the order of their work: see `expected_work`."""

    def add_configurations(self, experiments: Any) -> None:
        """Ray Tune hands over what to try, before the first trial."""
        super().add_configurations(experiments)
        for trials in self._iterators:
            if trials.lazy_eval or trials.num_samples > MOST_AHEAD or trials.points_to_evaluate or trials.variants:
                continue  # many, or what was given in an order
            drawn = chain.from_iterable(
                generate_variants(trials.unresolved_spec, random_state=trials.random_state)
                for _ in range(trials.num_samples)
            )
            trials.variants, trials.num_samples_left = _VariantIterator(drawn), 0
            trials.variants.iterable.sort(key=_work, reverse=True)

    @property
    def works_ahead(self) -> list[float]:
        """What the trials that have not begun are expected to take, in their order."""
        waiting = [
            each.variants.iterable for each in self._iterators if each.variants is not None and not each.lazy_eval
        ]
        return [_work(variant) for variants in waiting for variant in variants]


def _work(variant: Any) -> float:
    return expected_work(_settings(variant[1]["config"]))


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a trial, which the trainer's argument holds."""
    inner = [each for each in config.values() if isinstance(each, Mapping)]
    return {**config, **{name: value for each in inner for name, value in each.items()}}
