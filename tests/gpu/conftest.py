"""Tests that need GPUs: `tests/gpu/run.sh` runs them, and says what each saw."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

REPORT = "HFSUITE_GPU_REPORT"  # the file that gets the results as JSON
outcomes: list[dict[str, Any]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a GPU; a test that needs several says so by its parameter or its mark."""
    there = torch.cuda.device_count()
    for item in items:
        if not item.path.is_relative_to(Path(__file__).parent):
            continue
        item.add_marker(pytest.mark.gpu)
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        mark = item.get_closest_marker("gpus")
        needed = max(int(parameters.get("gpus", 1)), *(mark.args if mark else (1,)))
        if there < needed:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed} GPU{'s' * (needed > 1)}, and there are {there}"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collects how each test went, and the figures that it noted with `record_property`."""
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        skipped = report.outcome == "skipped" and isinstance(report.longrepr, tuple)
        outcomes.append(
            {
                "test": report.nodeid.partition("tests/gpu/")[2] or report.nodeid,
                "outcome": report.outcome,
                "seconds": round(report.duration, 1),
                "figures": dict(report.user_properties),
                "why": report.longrepr[2].removeprefix("Skipped: ") if skipped else fault_of(report),
                **({"text": report.longreprtext[-6000:]} if report.failed else {}),
            }
        )
        write()


def write() -> None:
    """After each test: a run that is cut off leaves what it saw."""
    if REPORT in os.environ:
        Path(os.environ[REPORT]).write_text(json.dumps({"machine": machine(), "tests": outcomes}, indent=1))


def fault_of(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message).splitlines()[0][:300] if crash is not None else ""


def pytest_terminal_summary() -> None:
    """One table, and the same as JSON where the environment names a file."""
    if not outcomes or REPORT not in os.environ:
        return
    table = Table("test", "", "s", "seen", title=f"{torch.cuda.device_count()} x {_device()}")
    for each in outcomes:
        seen = ", ".join(f"{name} {value}" for name, value in each["figures"].items())
        row = (each["test"], each["outcome"], f"{each['seconds']:.0f}", seen or each["why"])
        table.add_row(*map(escape, row))
    Console(width=150).print(table)


def machine() -> dict[str, Any]:
    """What the results were seen on."""
    import accelerate
    import ray
    import transformers

    return {
        "gpus": torch.cuda.device_count(),
        "gpu": _device(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "ray": ray.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


def _device() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
