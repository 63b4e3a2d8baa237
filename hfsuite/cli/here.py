"""What there is to run below the working directory: found by reading files, without importing any."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

SPACES = "search_spaces"
SKIPPED = {"__pycache__", "build", "dist", "mlartifacts", "mlruns", "node_modules", "results", "site-packages", "tests"}
DEEPEST = 4  # folders
MOST = 20_000  # files that are looked at


def experiments_here() -> dict[str, str]:
    """Dotted name and first line of the docstring of each module that declares an experiment."""
    return dict(sorted(_declaring(Path.cwd())))


def spaces_here() -> dict[str, str]:
    """Likewise of each search space in a folder of that name."""
    return {f"{SPACES}.{file.stem}": _summary(_read(file)) for file in sorted(Path(SPACES).glob("[!_]*.py"))}


def _declaring(root: Path) -> Iterator[tuple[str, str]]:
    seen = 0
    for folder, folders, files in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        is_deepest = len(parts) >= DEEPEST
        folders[:] = [] if is_deepest else [each for each in folders if _is_own(Path(folder, each))]
        for name in files:
            seen += 1
            if not name.endswith(".py") or seen > MOST:
                continue
            text = _read(Path(folder, name))
            if "hfsuite" in text and "Experiment(" in text and _declares(text):
                yield ".".join([*parts, name.removesuffix(".py")]), _summary(text)


def _is_own(folder: Path) -> bool:
    """Whether a folder may hold somebody's own modules: no environment, no results, nothing hidden."""
    is_environment = (folder / "pyvenv.cfg").exists()
    return not (folder.name.startswith(".") or folder.name in SKIPPED or is_environment)


def _declares(text: str) -> bool:
    """Whether an `Experiment(...)` is made in it, and hfsuite imported."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return True  # it is shown with what is wrong
    imports = [each for each in nodes if isinstance(each, ast.Import | ast.ImportFrom)]
    roots = {(each.module or "") if isinstance(each, ast.ImportFrom) else each.names[0].name for each in imports}
    calls = {getattr(each.func, "id", getattr(each.func, "attr", "")) for each in nodes if isinstance(each, ast.Call)}
    return "Experiment" in calls and any(root.partition(".")[0] == "hfsuite" for root in roots)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a link to nowhere, or somebody else's file
        return ""


def _summary(text: str) -> str:
    try:
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    except SyntaxError as error:
        return f"(cannot be read: {error})"
