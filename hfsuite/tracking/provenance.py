"""Where a sweep came from: code, packages, machine, command. Collected on the driver, before the sweep begins.

Nothing secret: of the environment only variables from a list, addresses without credentials.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pynvml

from hfsuite.tracking import declared
from hfsuite.tracking.declared import Program
from hfsuite.tracking.secrets import argument, arguments, source_without_secrets, without_credentials, without_secrets
from hfsuite.version import __version__

if TYPE_CHECKING:
    from hfsuite.tracking.record import SweepRecord
    from hfsuite.tracking.runs import Run

FOLDER = "provenance"  # the artifact folder
DIFF_LIMIT, SOURCE_LIMIT = 1_000_000, 1_000_000  # bytes
VARIABLES = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED", "NCCL_DEBUG", "TOKENIZERS_PARALLELISM", "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "VIRTUAL_ENV", "CONDA_DEFAULT_ENV", "SLURM_JOB_ID",
)  # fmt: skip


def collect(module: str, source: Path | None = None, text: str | None = None) -> dict[str, Any]:
    """Everything that decides how a sweep goes, beside its settings.

    Args:
        module: where the experiment is declared.
        source: its file, if it has not been imported.
        text: its source, if that is in no file.
    """
    text = declared.text_of(module, source) if text is None else text
    return {
        "command": without_secrets(shlex.join([Path(sys.argv[0]).name, *map(argument, sys.argv[1:])])),
        "arguments": arguments(declared.arguments_of(module)),
        "module": module,
        **_source(text),
        "git": _git(source.parent if source else declared.folder_of(module)),
        "packages": _packages(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": _gpu(),
        "cluster": _cluster(),
        "environment": {
            name: without_credentials(os.environ[name]) for name in VARIABLES if os.environ.get(name) is not None
        },
    }


def _packages() -> dict[str, str]:
    """Versions by names; of hfsuite that of the code which runs, wherever another one is installed."""
    found = {dist.name: dist.version for dist in importlib.metadata.distributions() if dist.name}
    return dict(sorted({**found, "hfsuite": __version__}.items()))


def note_resumption(known: dict[str, Any], module: str) -> None:
    """Adds to where a sweep came from what is different now that it is taken up again.

    Args:
        known: what was collected when it began.
        module: where the experiment is declared.
    """
    now = collect(module)
    changed = {
        name: now[name] for name in ("git", "source_digest", "packages", "python") if now[name] != known.get(name)
    }
    if changed:
        if "source_digest" in changed:
            changed["source"] = now["source"]
        known["resumed"] = [*known.get("resumed", []), {"command": now["command"], **changed}]


def declaration(experiment: str, found: Mapping[str, Any]) -> Program:
    """What is recorded of the program that declared an experiment, where one did.

    Args:
        experiment: its name.
        found: what was collected.
    """
    source = found.get("source")
    is_whole = source is not None and digest(source) == found.get("source_digest")
    return Program.of(experiment, found, source if is_whole else None)


def write_provenance(run: Run, sweep: SweepRecord) -> None:
    """Puts it into a run: short values as tags, long ones as artifacts. Again it writes the same."""
    found = dict(sweep.provenance)
    resumed = found.pop("resumed", [])
    mark = f"recorded; resumed with other code or packages: {len(resumed)}" if resumed else "recorded"
    if not found or run.tags.get("hfsuite.provenance") == mark:
        return
    if resumed:
        run.client.log_dict(run.run_id, resumed, f"{FOLDER}/resumed.json")
    git = found.get("git") or {}
    texts = {
        "source.py": found.pop("source", None),
        "uncommitted.diff": git.get("diff"),
        "requirements.txt": "\n".join(f"{name}=={version}" for name, version in found.pop("packages", {}).items()),
    }
    for name, text in texts.items():
        if text:
            run.client.log_text(run.run_id, text, f"{FOLDER}/{name}")
    run.client.log_dict(run.run_id, {**found, "git": {**git, "diff": None}}, f"{FOLDER}/environment.json")
    run.write_tags(
        {f"hfsuite.{name}": found[name] for name in ("command", "python", "system", "processor") if found.get(name)}
        | ({"hfsuite.git.is_dirty": str(bool(git.get("diff")))} if git else {})
        | {"hfsuite.provenance": mark}
    )


def _source(text: str | None) -> dict[str, Any]:
    """The text of a module without secrets, and the digest of what it really is."""
    if text is None:
        return {"source": None, "source_digest": None}
    return {"source": source_without_secrets(text)[:SOURCE_LIMIT], "source_digest": digest(text)}


def digest(text: str) -> str:
    """By which a text is known."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _git(folder: Path) -> dict[str, Any] | None:
    """Of the experiment's own repository; None if it is in none, or git is not installed."""

    def ask(*arguments: str) -> str:
        """Without the newline at its end; a patch may end with lines that are blank."""
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True,
            errors="replace", env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
        return done.stdout.removesuffix("\n")

    try:
        commit = ask("rev-parse", "HEAD")
        diff = ask("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
        remotes = ask("remote", "-v").splitlines()
        branch, untracked = ask("rev-parse", "--abbrev-ref", "HEAD"), ask("ls-files", "-o", "--exclude-standard")
    except (OSError, subprocess.SubprocessError):
        return None
    return {
        "commit": commit,
        "branch": branch,
        "remote": without_credentials(remotes[0].split()[1]) if remotes else None,
        "diff": without_secrets(diff)[:DIFF_LIMIT] or None,
        "diff_digest": digest(diff),
        "untracked": untracked.splitlines()[:1_000],
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") if os.path.exists("/proc/cpuinfo") else open(
        os.devnull, encoding="utf-8"
    ) as file:  # fmt: skip
        found = re.search(r"model name\s*:\s*(.+)", file.read())
    return found[1] if found else platform.processor() or platform.machine()


def _gpu() -> dict[str, Any] | None:
    """Of this machine, as its driver tells. PyTorch would start CUDA to tell it, for seconds and in this process."""
    try:
        pynvml.nvmlInit()
        devices = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        names = [pynvml.nvmlDeviceGetName(device) for device in devices]
        return {"names": names, "driver": pynvml.nvmlSystemGetDriverVersion()}
    except pynvml.NVMLError:  # no driver, no GPU, or a broken one: that is for the training to find
        return None


def _cluster() -> list[dict[str, float]]:
    """The resources of each node of the Ray cluster."""
    import ray

    if not ray.is_initialized():
        return []
    kinds = ("CPU", "GPU", "memory")
    return [
        {kind: node["Resources"][kind] for kind in kinds if kind in node["Resources"]}
        for node in ray.nodes()
        if node["Alive"]
    ]
