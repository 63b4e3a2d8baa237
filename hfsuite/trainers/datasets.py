"""Ray Data before a training: preprocessed, counted. Driver; `hfsuite.ranks.ray_data` is what ranks see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hfsuite.ranks.ray_data import TRAIN

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.preprocessor import Preprocessor


def preprocess(given: Mapping[str, Dataset], preprocessor: Preprocessor) -> dict[str, Dataset]:
    """Fits a preprocessor on the training set, unless it is fitted, and applies it to every dataset. Driver.

    What was in memory is in memory afterwards too: only materialised datasets have a length.
    """
    from ray.data.dataset import MaterializedDataset
    from ray.data.preprocessor import Preprocessor

    if TRAIN in given and preprocessor.fit_status() in (
        Preprocessor.FitStatus.NOT_FITTED,
        Preprocessor.FitStatus.PARTIALLY_FITTED,
    ):
        preprocessor.fit(given[TRAIN])
    return {
        name: transformed.materialize() if isinstance(dataset, MaterializedDataset) else transformed
        for name, dataset in given.items()
        for transformed in [preprocessor.transform(dataset)]
    }


def row_counts(given: Mapping[str, Dataset]) -> dict[str, int | None]:
    """Rows of each dataset, None for one that is streamed: counting would run it. Driver."""
    from ray.data.dataset import MaterializedDataset

    return {name: each.count() if isinstance(each, MaterializedDataset) else None for name, each in given.items()}


def is_streamed(given: Mapping[str, Dataset]) -> bool:
    """Whether tasks of Ray Data must run while the workers read. Driver or trial's actor."""
    if not given:
        return False
    from ray.data.dataset import MaterializedDataset

    return not all(isinstance(each, MaterializedDataset) for each in given.values())
