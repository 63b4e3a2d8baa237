"""Recorded code is run from a worktree or out of the record, and the user's own tree stays as it is."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfsuite.errors import ConfigurationError, NotRecorded
from hfsuite.reproduce.code import code_for
from hfsuite.tracking import provenance
from tests.reproduce import project
from tests.reproduce.test_verdict import run

NO_PATCH = "diff --git a/line.py b/line.py\nno patch\n"
WRONG_PATCH = {"diff": NO_PATCH, "environment": {"git": {"diff_digest": provenance.digest(NO_PATCH)}}}


@pytest.fixture
def repository(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = own_directory / "project"
    project.make(folder)
    monkeypatch.chdir(folder)
    return folder


def recorded_here() -> Any:
    """A run that was made from the tree as it is now."""
    found = provenance.collect("line", Path("line.py"))
    made = run(module="line")
    return replace(made, environment=found, source=found["source"], diff=found["git"]["diff"])


def test_what_was_not_committed_is_restored_to_the_last_line(repository: Path) -> None:
    source, rows = Path("line.py"), Path("rows.csv")
    source.write_text(source.read_text() + "\n# the end\n \n\n")  # a patch whose last lines are blank
    rows.write_bytes(b"\x00\xff binary \x00")
    made, text, content = recorded_here(), source.read_text(), rows.read_bytes()
    project.commit(repository, "later")
    source.write_text("something else\n")
    with code_for(made, restore=True) as code:
        assert (code.folder / "line.py").read_text() == text
        assert (code.folder / "rows.csv").read_bytes() == content
        assert code.folder != repository
    assert not code.folder.exists()
    assert source.read_text() == "something else\n"
    assert project.git(repository, "worktree", "list").count("\n") == 0


def test_a_module_of_a_package_that_was_never_committed_is_restored_too(repository: Path) -> None:
    package = Path("pack")
    package.mkdir()
    (package / "__init__.py").touch()
    project.commit(repository, "a package")
    (package / "mine.py").write_text("x = 1\n")
    found = provenance.collect("pack.mine", package / "mine.py")
    made = replace(run(module="pack.mine"), environment=found, source=found["source"])
    with code_for(made, restore=True) as code:
        assert (code.folder / "pack" / "mine.py").read_text() == "x = 1\n"


def test_an_experiment_that_was_never_committed_is_restored_too(repository: Path) -> None:
    project.git(repository, "rm", "-q", "--cached", "line.py")
    project.git(repository, "commit", "-m", "without")
    made, text = recorded_here(), Path("line.py").read_text()
    Path("line.py").write_text("something else\n")
    with code_for(made, restore=True) as code:
        assert (code.folder / "line.py").read_text() == text


def test_a_module_that_is_gone_is_put_beside_what_is_left_of_its_package(own_directory: Path) -> None:
    package = Path("pack")
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("y = 1\n")
    made = replace(
        run(module="pack.line"), source="x = 1\n", environment={"source_digest": provenance.digest("x = 1\n")}
    )
    with code_for(made, restore=False) as code:
        assert (code.folder / "pack" / "line.py").read_text() == "x = 1\n"
        assert (code.folder / "pack" / "helper.py").is_file()
        assert code.also == (own_directory,)
    assert not (package / "line.py").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment": {"git": None}}, "not run from a git repository"),
        ({"environment": {"git": {"commit": "1" * 40, "remote": "https://example.org/x.git"}}}, "fetch it from https://ex"),
        ({"diff": "diff --git a/line.py b/line.py\n-x\n+token = ...\n"}, "secrets in it were left out"),
        (WRONG_PATCH, "cannot be applied"),
    ],
)  # fmt: skip
def test_what_cannot_be_restored_says_why(repository: Path, change: dict[str, Any], message: str) -> None:
    made = recorded_here()
    git = made.environment["git"] | (change.get("environment", {}).get("git") or {})
    if change.get("environment") != {"git": None}:
        change = {**change, "environment": {**made.environment, "git": git}}
    with pytest.raises(ConfigurationError, match=message), ExitStack() as stack:
        stack.enter_context(code_for(replace(made, **change), restore=True))
    assert project.git(repository, "worktree", "list").count("\n") == 0


def test_outside_a_repository_and_without_a_record_it_is_said(own_directory: Path) -> None:
    made = replace(run(module="nowhere.to_be_found"), environment={"git": {"commit": "1" * 40}})
    with pytest.raises(ConfigurationError, match="no git repository"), ExitStack() as stack:
        stack.enter_context(code_for(made, restore=True))
    with pytest.raises(NotRecorded, match=r"The source of nowhere.to_be_found was not recorded with"):
        made.whole_source()
    with pytest.raises(NotRecorded), ExitStack() as stack:
        stack.enter_context(code_for(made, restore=False))
    cut = replace(made, source="password = '...'\n", environment={"source_digest": "of something else"})
    with pytest.raises(NotRecorded, match=r"secrets were left out of it \(lines 1\)"):
        cut.whole_source()
    assert subprocess.run(["git", "rev-parse"], capture_output=True).returncode != 0
