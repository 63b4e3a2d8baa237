"""What the structure promises and import-linter cannot see."""

from __future__ import annotations

import ast
import re
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


def test_only_few_files_touch_rays_internals() -> None:
    files = [*ROOT.glob("hfsuite/**/*.py"), *ROOT.glob("experiments/*.py"), *ROOT.glob("search_spaces/*.py")]
    touching = {
        str(file.relative_to(ROOT)) for file in files if any(n.startswith(INTERNALS) for n in imported_names(file))
    }
    assert touching == {
        "hfsuite/ranks/train_functions.py", "hfsuite/ranks/worker.py", "hfsuite/trials/controller.py",
        "hfsuite/trials/worker_actors.py", "hfsuite/sweeps/tune_loop.py",
    }  # fmt: skip


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
    lines = {str(file): len(file.read_text().splitlines()) for file in ROOT.glob("hfsuite/**/*.py")}
    assert not {name: count for name, count in lines.items() if count > 350}


def test_what_the_documents_name_is_there() -> None:
    for document in ("docs/architecture.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        named = {each.removeprefix("hfsuite/") for each in re.findall(r"`((?:\w+/)+\w*(?:\.\w+)?)`", text)}
        homes = [ROOT, ROOT / "hfsuite"]
        assert not [each for each in named if not any((home / each).exists() for home in homes)]
    folders = {each.parent.name for each in ROOT.glob("hfsuite/*/__init__.py")}
    told = (ROOT / "docs/architecture.md").read_text()
    assert not [folder for folder in folders if f"| `{folder}/` |" not in told]


def test_functions_fit_a_page() -> None:
    long = [
        f"{file.name}:{node.name}"
        for file in ROOT.glob("hfsuite/**/*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert not long
