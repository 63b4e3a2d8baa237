"""Finds experiments and search spaces by their dotted names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean

EXPERIMENTS, SPACES = "experiments", "search_spaces"


def load_experiment(module: str) -> Any:
    """The `experiment` that a module declares.

    Args:
        module: a dotted name (`experiments.sentiment`), the name of a module in `experiments/` (`sentiment`), or the
            path of a file below the working directory (`experiments/sentiment.py`).

    Raises:
        UnknownName: there is no such module.
        ConfigurationError: it has no `experiment`, or importing it fails.
    """
    from hfsuite.sweeps.experiment import Experiment

    _import_from_here()
    name = _dotted(module)
    try:
        loaded = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            known = [found for found, _ in modules(EXPERIMENTS)] + sorted(_short_names())
            raise UnknownName(f"There is no module {module!r} here. {did_you_mean(name, known)}") from error
        raise ConfigurationError(
            f"{name} needs the module {error.name!r}, which is not installed: pip install it, or remove the import."
        ) from error
    except ConfigurationError:
        raise
    except Exception as error:  # an experiment is the user's code, which can raise anything
        line = "" if isinstance(error, SyntaxError) else next((f" (line {e.tb_lineno})" for e in _innermost(error)), "")
        raise ConfigurationError(f"Importing {name} fails: {type(error).__name__}: {error}{line}") from error
    experiment = getattr(loaded, "experiment", None)
    if not isinstance(experiment, Experiment):
        others = [key for key, value in vars(loaded).items() if isinstance(value, Experiment)]
        hint = f" It has one called {others[0]!r}: rename it." if others else ""
        raise ConfigurationError(
            f"{name} declares no experiment: it must assign `experiment = hfsuite.Experiment(...)`.{hint}"
        )
    return experiment


def modules(package: str) -> Iterator[tuple[str, str]]:
    """Dotted name and first line of the docstring of each module in a package, without importing any."""
    _import_from_here()
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        for file in sorted(Path(folder).glob("*.py")):
            if file.stem != "__init__":
                try:
                    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
                except SyntaxError as error:
                    text = f"(cannot be read: {error})"
                yield f"{package}.{file.stem}", text.partition("\n")[0]


def _dotted(module: str) -> str:
    if module.endswith(".py"):
        path = Path(module)
        if not path.is_file():
            raise UnknownName(f"There is no file {module!r} here.")
        try:
            relative = path.resolve().relative_to(Path.cwd())
        except ValueError as error:
            raise ConfigurationError(
                f"{module} is not below the working directory, from which workers import it: change to its project."
            ) from error
        return ".".join(relative.with_suffix("").parts)
    if module == "__main__":
        raise ConfigurationError(
            "An experiment that is run as a file has no name by which workers could import it: run it with "
            "python -m PACKAGE.MODULE, or hfsuite sweep FILE."
        )
    if "." not in module and importlib.util.find_spec(module) is None and module in _short_names():
        return f"{EXPERIMENTS}.{module}"
    return module


def _short_names() -> set[str]:
    return {name.rpartition(".")[2] for name, _ in modules(EXPERIMENTS)}


def _import_from_here() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _innermost(error: BaseException) -> list[Any]:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return [frame] if frame else []
