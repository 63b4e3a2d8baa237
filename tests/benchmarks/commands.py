"""What answers of the command line cost that need no Ray: CPU seconds, beside the bare interpreter and libraries."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.benchmarks.measures import Row

TIMES = 5
HFSUITE = "import sys; from hfsuite.cli import main; sys.argv[0] = 'hfsuite'; main()"
HELLO = """
import typer
app = typer.Typer()
app.command()(lambda: None)
app(["--help"])
"""
MADE = """
from hfsuite.cli.sync import sync
from tests.tracking import made
directory, _ = made.sweep(storage="{folder}/results", planned=1)
made.trial(directory, 0, [made.report(1, 10, 0.5)])
sync("{folder}/results/made")
"""
ALONE = {
    "python -c 'import typer, rich'": "import typer, rich",
    "a Typer program of one command, --help": HELLO,
    "MLflow's client and its SQL store, imported": "import mlflow, mlflow.store.tracking.sqlalchemy_store",
    "experiments.sentiment, imported": "import experiments.sentiment",
}
BARE, *_, MODULE = ALONE
SENTIMENT = ["sweep", "experiments.sentiment"]


@dataclass(frozen=True)
class Asked:
    """A command, how it ends, and how many seconds it may take, beyond another program."""

    arguments: list[str]
    code: int
    target: float
    beyond: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


COMMANDS = {
    "--help": Asked(["--help"], 0, 0.4),
    "sweep --help": Asked(["sweep", "--help"], 0, 0.4),
    "list": Asked(["list"], 0, 0.4),
    "a module that does not exist": Asked(["sweep", "nonsense"], 2, 0.6),
    "a wrong setting": Asked([*SENTIMENT, "--set", "nonsense=1"], 2, 0.5, MODULE),
    "a wrong searcher": Asked([*SENTIMENT, "--searcher", "nonsense"], 2, 0.5, MODULE),
    "more workers than there are": Asked([*SENTIMENT, "--workers", "9999"], 2, 0.5, MODULE),
    "best": Asked(["best"], 0, 3.0),
    "diff": Asked(["diff", "made:0", "made:best"], 0, 3.0),
    "completion": Asked(
        [], 0, 0.3,
        variables={"_HFSUITE_COMPLETE": "complete_bash", "COMP_WORDS": "hfsuite best m", "COMP_CWORD": "2"},
    ),
}  # fmt: skip


def commands() -> list[Row]:
    """User seconds of each command, the median of five rounds: the machine changes its pace."""
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        _seconds(["-c", MADE.format(folder=folder)], folder)
        for _ in range(TIMES):
            for name, text in ALONE.items():
                taken[name].append(_seconds(["-c", text], folder))
            for name, asked in COMMANDS.items():
                command = ["-c", HFSUITE, *asked.arguments]
                taken[name].append(_seconds(command, folder, asked.code, asked.variables))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    rows = [Row(name, _shown(middle[name], middle[BARE]), "", None, {"s": taken[name]}) for name in ALONE]
    for name, asked in COMMANDS.items():
        others = taken.get(asked.beyond, [0.0] * TIMES)  # of the same rounds
        seconds = statistics.median(mine - other for mine, other in zip(taken[name], others, strict=True))
        shown = _shown(seconds, middle[BARE]) + (" beyond its module" if asked.beyond else "")
        is_reached = seconds <= asked.target
        rows.append(Row(f"hfsuite: {name}", shown, f"at most {asked.target:g} s", is_reached, {"s": taken[name]}))
    return rows


def _shown(seconds: float, bare: float) -> str:
    return f"{seconds:.2f} s, {seconds / bare:.1f} x bare"


def _seconds(
    command: list[str], folder: str, code: int = 0, variables: Mapping[str, str] = MappingProxyType({})
) -> float:
    """User seconds of a Python program."""
    root, store = str(Path(__file__).parents[2]), f"sqlite:///{folder}/mlflow.db"
    own = {"PYTHONPATH": root, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": store, "COLUMNS": "120"}
    process = os.posix_spawn(
        sys.executable, [sys.executable, "-W", "ignore", *command], os.environ | own | dict(variables),
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)],
    )  # fmt: skip
    _, status, used = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == code, command
    return used.ru_utime
