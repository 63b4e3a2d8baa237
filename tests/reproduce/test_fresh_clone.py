"""MLflow alone suffices: all else is gone, and a fresh clone trains a trial that ran warm to the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hfsuite.tracking import runs, store
from tests.conftest import CPUS
from tests.reproduce.test_reproduce import reproduced, said

ROOT = Path(__file__).parents[2]
SMALL = {
    "digits": ["epochs=2"],
    "sentiment": ["num_train_epochs=1", "train_rows=64", "validation_rows=32"],
}
IN_A_GROUP = 5


@pytest.mark.timeout(600)
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
@pytest.mark.parametrize(
    ("name", "workers"),
    [
        pytest.param("digits", 2, marks=pytest.mark.slow),
        pytest.param("sentiment", 2, marks=pytest.mark.slow),
        pytest.param("digits", 1, marks=pytest.mark.grid),
        pytest.param("sentiment", 1, marks=pytest.mark.grid),
    ],
)
def test_a_warm_trial_comes_out_bitwise_where_only_mlflow_is_left(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, workers: int
) -> None:
    slots = CPUS // workers
    first, second = (clone(own_directory / each) for each in ("first", "second"))
    fixed = [part for each in SMALL[name] for part in ("--set", each)]
    code, _, err = said(
        "sweep", f"experiments.{name}", "--trials", str(IN_A_GROUP * slots), "--workers", str(workers), "--searcher",
        "random", "--trial-scheduler", "fifo", "--name", "s", *fixed, PYTHONPATH=first,
    )  # fmt: skip
    assert code == 0, err
    shutil.rmtree("first")
    shutil.rmtree("results")
    client = store.open_store()
    parent = runs.find_sweep(client, "s")
    assert parent is not None
    last = runs.children(client, parent)[-1]
    assert last.data.tags[runs.WARM_START] == "True"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri())
    monkeypatch.setenv("PYTHONPATH", second)
    monkeypatch.chdir(own_directory / "second")
    for run in (last.info.run_id, "s:best"):
        code, found = reproduced(run=run)
        assert (code, found["verdict"], found["plan"]) == (0, "BITWISE", []), run


def clone(folder: Path) -> str:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
