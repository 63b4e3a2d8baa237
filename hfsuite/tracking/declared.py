"""Where an experiment is declared: a module with a name, or a script, a notebook or a command, known by a file's name.

What Python runs as `__main__` cannot be imported by that name in another process. So such a program goes by a path:
its file's, or one that stands for the notebook or the command. Its text is what is recorded, and run again. Driver.
"""

from __future__ import annotations

import ast
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

MAIN = "__main__"
SCRIPT = ".py"  # how names of programs end; a module's dotted name never has that end
COMMAND, SESSION = f"command-line{SCRIPT}", f"ipython-session{SCRIPT}"
LOADED = "__hfsuite_program__"  # in a program that is only loaded: its name and its text


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is recorded of a program that declares an experiment.

    Args:
        experiment: its name.
        text: the program's; None if that is not recorded whole.
        arguments: what it was called with.
    """

    experiment: str
    text: str | None
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, experiment: str, provenance: Mapping[str, Any], text: str | None) -> Program:
        """Out of a record.

        Args:
            experiment: its name.
            provenance: of the sweep; see `hfsuite.tracking.provenance`.
            text: the program's, if it is recorded whole.
        """
        called, *arguments = shlex.split(provenance.get("command") or "") or [""]
        is_own = called in ("-c", Path(provenance.get("module") or "").name)
        return cls(experiment=experiment, text=text, arguments=tuple(arguments) if is_own else ())


def is_script(name: str) -> bool:
    """Whether a name of these is a program's, and not that of a module."""
    return name.endswith(SCRIPT)


def name_of_main() -> str:
    """By which what runs as `__main__` is recorded; `__main__` where its text cannot be had."""
    main = sys.modules[MAIN]
    if loaded := getattr(main, LOADED, None):
        return str(loaded[0])
    if (file := _file_of(main)) is not None:
        here = Path.cwd()
        return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()
    if _cells() is not None:
        named = getattr(main, "__vsc_ipynb_file__", None) or os.environ.get("JPY_SESSION_NAME")  # by VS Code, Jupyter
        return f"{Path(named).name}{SCRIPT}" if named else SESSION
    return COMMAND if _command() is not None else MAIN


def text_of(name: str, file: Path | None = None) -> str | None:
    """The source of what a name stands for in this process; None if it cannot be had.

    Args:
        name: of a module, or of a program.
        file: where it lies, if that is known.
    """
    if file is None and is_script(name) and name == name_of_main():
        if loaded := getattr(sys.modules[MAIN], LOADED, None):
            return str(loaded[1])
        file = _file_of(sys.modules[MAIN])
        if file is None:
            cells = _cells()
            return _command() if cells is None else "\n\n".join(map(_python_of, cells))
    if file is None:
        found = name if is_script(name) else getattr(sys.modules.get(name), "__file__", None)
        file = Path(found) if found else None
    return file.read_text(errors="replace") if file is not None and file.is_file() else None


def folder_of(name: str) -> Path:
    """The folder of what a name stands for in this process; the working directory if that is in none."""
    found = name if is_script(name) else getattr(sys.modules.get(name), "__file__", None)
    return Path(found).absolute().parent if found and Path(found).is_file() else Path.cwd()


def _file_of(main: ModuleType) -> Path | None:
    found = getattr(main, "__file__", None)
    path = Path(found).absolute() if found else None
    return path if path is not None and path.is_file() else None


def _command() -> str | None:
    """What `python -c` runs."""
    given = sys.orig_argv
    return given[given.index("-c") + 1] if sys.argv[:1] == ["-c"] and "-c" in given[:-1] else None


def _cells() -> list[str] | None:
    """The cells that IPython has run so far, the running one last; None outside IPython."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    return None if shell is None else [cell for cell in shell.history_manager.input_hist_raw if cell.strip()]


def _python_of(cell: str) -> str:
    """A cell in which what only IPython understands is a comment: lines, or all of it if another language reads it."""
    lines = cell.splitlines()
    first = lines[0].strip()
    if first.startswith("%%") and first.split()[0] not in ("%%time", "%%timeit", "%%capture"):
        return "\n".join(f"# {line}" for line in lines)
    text = "\n".join(f"# {line}" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)
    try:
        ast.parse(text)
    except SyntaxError:
        return "\n".join(f"# {line}" for line in lines)
    return text
