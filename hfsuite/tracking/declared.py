"""Where an experiment is declared: a module with a name, or a script, a notebook or a command, known by a file's name.

What Python runs as `__main__` cannot be imported by that name in another process. So such a program goes by a path:
its file's, or one that stands for the notebook or the command. Its text is what is recorded, and run again. Driver.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hfsuite.tracking import notebook
from hfsuite.tracking.secrets import HIDDEN

MAIN = "__main__"
SCRIPT = ".py"  # how names of programs end; a module's dotted name never has that end
COMMAND, SESSION = f"command-line{SCRIPT}", f"ipython-session{SCRIPT}"
UNREADABLE = "where nothing can be read again (a Python prompt, or a program from a pipe)"
LOADED = "__hfsuite_program__"  # in a program that is only loaded: its name and its text


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is recorded of a program that declares an experiment.

    Args:
        experiment: its name.
        text: the program's; None if that is not recorded whole.
        arguments: what it was called with; `HIDDEN` for one that may be a secret.
        launch: which of its launches of that experiment is meant, from 0.
    """

    experiment: str
    text: str | None
    arguments: tuple[str, ...] = ()
    launch: int = 0

    @property
    def hides(self) -> bool:
        """Whether it was called with something that was not recorded, so that it cannot be run again."""
        return HIDDEN in self.arguments

    def refusal(self, module: str) -> str:
        """What is said to whoever wants to run it again, where it hides something."""
        return (
            f"{module} was called with an argument that was not recorded, since it may be a secret "
            f"({' '.join(self.arguments)}): have it read that from the environment."
        )

    @classmethod
    def of(cls, experiment: str, provenance: Mapping[str, Any], text: str | None) -> Program:
        """Out of a record.

        Args:
            experiment: its name.
            provenance: of the sweep; see `hfsuite.tracking.provenance`.
            text: the program's, if it is recorded whole.
        """
        given = tuple(provenance.get("arguments") or ())
        return cls(experiment=experiment, text=text, arguments=given, launch=provenance.get("launch") or 0)


_loaded: dict[str, Program] = {}  # what this process has loaded out of a record, by the modules' names


def note_loaded(module: str, program: Program) -> None:
    """Takes note of how a module was loaded, so that what is recorded now says the same."""
    _loaded[module] = program


def arguments_of(module: str) -> list[str]:
    """What the program that a module is was called with, when it was first run."""
    if module in _loaded:
        return list(_loaded[module].arguments)
    return sys.argv[1:] if running() == module and sys.argv[:1] != ["hfsuite"] else []


def launch_of(module: str) -> int | None:
    """Which of its launches this process was asked for; None if for none by number."""
    return _loaded[module].launch if module in _loaded else None


def is_script(name: str) -> bool:
    """Whether a name of these is a program's, and not that of a module."""
    return name.endswith(SCRIPT) or "/" in name


def running() -> str:
    """The name of what runs as `__main__`, and by which it could be imported if it was called by that (`python -m`)."""
    spec = getattr(sys.modules[MAIN], "__spec__", None)
    return name_of_main() if spec is None else str(spec.name)


def ends_itself(name: str, code: object, arguments: Sequence[str]) -> str:
    """What is said of a program that ends before it launches an experiment.

    Args:
        name: its.
        code: with which it ends.
        arguments: that it was called with.
    """
    said = f"{name} ends itself (exit code {code}) before it launches an experiment."
    if arguments:
        return f"{said} It was called with the arguments that are recorded: {shlex.join(arguments)}."
    return (
        f"{said} If it needs arguments: none are recorded, so give them default values, or declare the experiment in a "
        "module that reads none."
    )


def name_of_main() -> str:
    """By which what runs as `__main__` is recorded; `__main__` where its text cannot be had."""
    main = sys.modules[MAIN]
    if loaded := getattr(main, LOADED, None):
        return str(loaded[0])
    if (file := _file_of(main)) is not None:
        here = Path.cwd()
        found = (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()
        return found if is_script(found) else f"./{found}"
    if notebook.cells() is not None:
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
            cells = notebook.cells()
            return _command() if cells is None else notebook.as_program(cells)
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
