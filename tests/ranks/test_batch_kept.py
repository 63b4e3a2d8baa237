"""A training that goes on with more workers takes as many rows a step as before, or does not go on so."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
import pytest
import ray.train

from hfsuite.errors import ConfigurationError
from hfsuite.ranks.facts import Facts, batch_kept
from hfsuite.report import FACTS_FILE


@pytest.fixture
def with_four_workers(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a run whose facts of before lie in its directory. Writes them."""
    storage = SimpleNamespace(storage_filesystem=pyarrow.fs.LocalFileSystem(), experiment_fs_path=str(own_directory))
    context = SimpleNamespace(get_storage=lambda: storage, get_world_size=lambda: 4, get_world_rank=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)

    def write(batch: dict[str, int]) -> None:
        (own_directory / FACTS_FILE).write_text(json.dumps({"batch": batch, "world_size": 2}))

    return write


def test_as_many_rows_in_other_parts_are_as_many(with_four_workers: Any) -> None:
    with_four_workers({"per_device": 8, "accumulation": 2})
    with batch_kept():
        Facts().note_batch(8, 1)
        with pytest.raises(ConfigurationError, match="With 4 workers a step would take 64 rows, and with 2 it took 32"):
            Facts().note_batch(8, 2)
    Facts().note_batch(8, 2)


def test_where_nobody_knows_how_many_there_were_it_does_not_go_on(with_four_workers: Any) -> None:
    with_four_workers({})
    with pytest.raises(ConfigurationError, match="How many rows a step takes is not known"), batch_kept():
        pass
