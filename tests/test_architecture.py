"""What the structure promises and import-linter cannot see."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hfsuite

ROOT = Path(__file__).parents[1]
INTERNALS = ("ray.train.v2", "ray.train._internal", "ray._private", "ray.tune._", "ray._raylet")


def imported_names(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def test_only_two_files_touch_rays_internals() -> None:
    files = [*ROOT.glob("hfsuite/**/*.py"), *ROOT.glob("experiments/*.py"), *ROOT.glob("search_spaces/*.py")]
    touching = {
        str(file.relative_to(ROOT)) for file in files if any(n.startswith(INTERNALS) for n in imported_names(file))
    }
    assert touching == {"hfsuite/trials/worker_group.py", "hfsuite/trials/tune_loop.py"}


def test_public_names_are_pinned() -> None:
    assert hfsuite.__all__ == [
        "AccelerateTrainer",
        "Experiment",
        "Seeds",
        "StopTraining",
        "SweepResult",
        "TransformersCheckpoint",
        "TransformersTrainer",
        "TrialResult",
        "split_batch",
    ]
    for name in hfsuite.__all__:
        assert getattr(hfsuite, name).__name__ == name


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hfsuite.nonsense


def test_no_file_is_longer_than_its_noun() -> None:
    lines = {file.name: len(file.read_text().splitlines()) for file in ROOT.glob("hfsuite/**/*.py")}
    assert lines.pop("worker_group.py") <= 520, "all of Ray Train's internals are in it"
    assert lines.pop("clean_room.py") <= 390, "all that is put back is in it"
    assert not {name: count for name, count in lines.items() if count > 350}
