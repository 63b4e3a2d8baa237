"""Nobody waits for libraries that an answer does not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hfsuite.cli import app
from hfsuite.cli.outcome import run_command
from tests.tracking import made

HEAVY = {"ray", "torch", "transformers", "accelerate", "datasets", "mlflow", "optuna", "pandas", "numpy", "sqlalchemy"}
VERBS = [each.name or each.callback.__name__ for each in app.registered_commands if each.callback is not None]
ASKED = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from hfsuite.cli import app
from hfsuite.cli.outcome import run_command

with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
    codes = [run_command(app, asked) for asked in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    ("asked", "code", "needed"),
    [
        ([["--help"], ["--version"], *([verb, "--help"] for verb in VERBS), ["list"]], 0, set()),
        ([["sweep", "nonsense"], ["train", "nonsense.py"]], 2, set()),
        ([["best"]], 2, {"sqlalchemy"}),
    ],
    ids=["help", "no module", "no store"],
)
def test_heavy_libraries_are_imported_only_where_they_are_needed(
    asked: list[list[str]], code: int, needed: set[str], own_directory: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = [sys.executable, "-c", ASKED, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    codes, imported = json.loads(done.stdout)
    assert codes == [code] * len(asked), done.stderr
    assert HEAVY & set(imported) <= needed


def test_what_reads_mlflow_imports_its_client_alone(own_directory: object) -> None:
    directory, _ = made.sweep(planned=1)
    made.trial(directory, 0, [made.report(1, 10, 0.5)])
    assert run_command(app, ["sync", "made"]) == 0
    asked = [["best"], ["best", "--json"], ["diff", "made:0", "made:best"]]
    command = [sys.executable, "-c", ASKED, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    codes, imported = json.loads(done.stdout)
    assert codes == [0, 0, 0]
    assert "mlflow" in imported
    assert not set(imported) & {"ray", "torch", "transformers", "accelerate", "datasets", "optuna", "sklearn", "flask"}


WRONG = [
    ["sweep", "tests.toy", "--set", "nonsense=1"],
    ["sweep", "tests.toy", "--searcher", "nonsense"],
    ["sweep", "tests.toy", "--trial-scheduler", "nonsense"],
    ["sweep", "tests.toy", "--set", "reports=many"],
    ["sweep", "tests.toy", "--name", "a/b"],
    ["sweep", "tests.toy", "--workers", "9999"],
    ["train", "tests.toy", "--set", "nonsense=1"],
]
OF_A_SWEEP = {"mlflow", "sklearn", "scipy", "transformers", "accelerate", "datasets", "fastapi"}


def test_a_mistake_is_told_without_what_a_sweep_needs_and_without_ray_running() -> None:
    def imported(program: str, *arguments: str) -> tuple[list[int], set[str]]:
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        codes, names = json.loads(done.stdout)
        return codes, set(names)

    tells = 'print(json.dumps([[], sorted({name.partition(".")[0] for name in sys.modules})]))'
    _, own = imported(f"import json, sys, tests.toy; {tells}")
    unstarted = "\nimport ray\nassert not ray.is_initialized()\n"
    codes, with_commands = imported(ASKED + unstarted, json.dumps(WRONG))
    assert codes == [2] * len(WRONG)
    assert (with_commands - own) & OF_A_SWEEP == set()
