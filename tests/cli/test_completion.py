"""What the shell completes, as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfsuite.cli import completion
from hfsuite.tracking import directory

HFSUITE = "from hfsuite.cli import main; import sys; sys.argv[0] = 'hfsuite'; main()"


@pytest.fixture(autouse=True)
def _two_sweeps(own_directory: Path) -> None:
    for age, name in enumerate(["older", "newer"]):
        record = own_directory / "results" / name / directory.SWEEP_FILE
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        os.utime(record, (age, age))
        for number in (0, 10):
            (own_directory / "results" / name / f"trial_{number:03d}").mkdir()
    (own_directory / "results" / "neither").mkdir()
    (own_directory / "mine.py").write_text(
        '"""Mine."""\nfrom hfsuite import Experiment\nexperiment = Experiment(x=1)\n'
    )


def completed(*words: str) -> list[str]:
    """What bash is told, of the last word."""
    asked = {"_HFSUITE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", HFSUITE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | asked, timeout=60)
    return done.stdout.split()


def test_verbs_and_options() -> None:
    assert completed("hfsuite", "re") == ["resume", "reproduce", "register"]
    assert completed("hfsuite", "sweep", "--trials-") == ["--trials-per-group"]


@pytest.mark.parametrize("verb", ["best", "confirm", "register", "resume", "sync", "clean", "ui"])
def test_names_of_sweeps_the_newest_first(verb: str) -> None:
    assert completed("hfsuite", verb, "n") == ["newer"]


def test_names_of_experiments_and_runs() -> None:
    assert completed("hfsuite", "sweep", "mi") == completed("hfsuite", "train", "m") == ["mine"]
    assert completed("hfsuite", "reproduce", "o") == ["older:best"]


def test_all_names() -> None:
    assert completion.sweeps("") == ["newer", "older"]
    assert completion.runs("") == ["newer:best", "older:best"]
    assert completion.runs("older:") == ["older:best", "older:0", "older:10"]
    assert completion.runs("older:1") == ["older:10"]
    assert completion.modules("") == [("mine", "Mine.")]
    assert directory.SWEEP_FILE == completion.SWEEP_FILE
