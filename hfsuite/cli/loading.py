"""Finds experiments and search spaces: modules by their dotted names, programs by their files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hfsuite.cli.here import experiments_here
from hfsuite.cli.new import shipped
from hfsuite.errors import ConfigurationError, NeedsResult, UnknownName, did_you_mean, nearest
from hfsuite.tracking.declared import SCRIPT, UNREADABLE, Program, ends_itself, is_script, note_loaded

if TYPE_CHECKING:
    from hfsuite.declaration import Declaration
    from hfsuite.sweeps.launching import Loading

EXPERIMENTS = "experiments"  # the folder in which a module is found by its last name alone


def load_experiment(module: str, declaration: Program | None = None) -> Declaration:
    """The `experiment` that a module declares, or the one that a program launches.

    Args:
        module: a dotted name (`experiments.sentiment`), the name of a module in `experiments/` (`sentiment`), or the
            path of a file (`experiments/sentiment.py`, `tune.py`).
        declaration: what is recorded of it.

    Raises:
        UnknownName: there is no such module.
        ConfigurationError: it has no `experiment`, or importing it fails.
    """
    if declaration is not None and declaration.hides:
        raise ConfigurationError(declaration.refusal(module))
    experiment = _load(module, declaration)
    note_loaded(experiment.module, declaration or Program(experiment=experiment.name, text=None))
    return experiment


def _load(module: str, declaration: Program | None) -> Declaration:
    _import_from(Path.cwd())
    if is_script(module):
        return _load_file(Path(module), declaration)
    name = _dotted(module)
    try:
        found = _imported(name, module, declaration)
    except NeedsResult as error:
        raise ConfigurationError(f"{module} needs what another launch before gives: {error}.") from error
    if not isinstance(found, ModuleType):
        return found
    if declaration is not None and declaration.arguments:  # ranks would import it without
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(found)
    wanted = declaration.experiment if declaration else None
    if (experiment := _of_module(found, wanted) or _of_module(found, None)) is not None:
        return experiment
    from hfsuite.declaration import Declaration

    others = [key for key, value in vars(found).items() if isinstance(value, Declaration)]
    hint = f" It has one called {others[0]!r}: rename it." if others else ""
    raise ConfigurationError(
        f"{name} declares no experiment: it must assign `experiment = hfsuite.Experiment(...)`.{hint}"
    )


def _load_file(file: Path, declaration: Program | None) -> Declaration:
    """A file with an `experiment` is a module, which workers import; any other is run up to where it launches one."""
    name, wanted = file.as_posix(), declaration.experiment if declaration else None
    if not file.is_file():
        if declaration is None or declaration.text is None:
            lost = " Its source was not recorded whole." if declaration else ""
            raise UnknownName(f"There is no file {name!r} here.{lost}")
        text = declaration.text
    else:
        text = file.read_text(encoding="utf-8")
        _import_from(file.absolute().parent)  # as Python itself does for a script
        # With arguments it stays a program: ranks would import it without.
        if (dotted := _importable(file)) is not None and not (declaration and declaration.arguments):
            with suppress(NeedsResult):
                found = _imported(dotted, name, declaration)
                experiment = _of_module(found, wanted) if isinstance(found, ModuleType) else found
                if experiment is not None:
                    return experiment
    from hfsuite.cli.programs import run_to_launch

    arguments = declaration.arguments if declaration else ()
    with _called_with(str(file.absolute()), arguments):
        return run_to_launch(file.absolute(), text, name=name, loading=_loading(declaration))


def _loading(declaration: Program | None) -> Loading:
    from hfsuite.sweeps.launching import Loading

    return Loading() if declaration is None else Loading(declaration.experiment, declaration.launch)


@contextmanager
def _called_with(name: str, arguments: Sequence[str]) -> Iterator[None]:
    """A program reads its own arguments, and not those of hfsuite."""
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _importable(file: Path) -> str | None:
    """The dotted name by which a file below the working directory can be imported; None for any other."""
    resolved = file.resolve()
    if not resolved.is_relative_to(Path.cwd()) or file.suffix != SCRIPT:
        return None
    parts = resolved.relative_to(Path.cwd()).with_suffix("").parts
    return None if any("." in part for part in parts) else ".".join(parts)


def _imported(name: str, called: str, declaration: Program | None) -> ModuleType | Declaration:
    """A module, or the experiment that its import would launch: whose functions then travel by value.

    Raises:
        UnknownName: there is no such module.
        ConfigurationError: importing it fails.
    """
    from hfsuite.sweeps.launching import Launched, only_loading

    arguments = declaration.arguments if declaration else ()
    try:
        with only_loading(loading := _loading(declaration)), _called_with(called, arguments):
            module = importlib.import_module(name)
            return module if loading.found is None else loading.found
    except SystemExit as error:
        raise ConfigurationError(ends_itself(called, error.code, arguments)) from error
    except Launched as launched:
        return launched.experiment
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnknownName(_no_module(called)) from error
        raise ConfigurationError(
            f"{name} needs the module {error.name!r}, which is not installed: pip install it, or remove the import."
        ) from error
    except (ConfigurationError, NeedsResult):
        raise
    except Exception as error:  # an experiment is the user's code, which can raise anything
        line = "" if isinstance(error, SyntaxError) else next((f" (line {e.tb_lineno})" for e in _innermost(error)), "")
        raise ConfigurationError(f"Importing {name} fails: {type(error).__name__}: {error}{line}") from error


def _of_module(module: ModuleType, wanted: str | None) -> Declaration | None:
    """Its `experiment`, or the one with the wanted name, whatever it is called there; None if there are several."""
    from hfsuite.declaration import Declaration

    found = [each for each in vars(module).values() if isinstance(each, Declaration)]
    if wanted is None:
        return next((each for each in found if each is getattr(module, "experiment", None)), None)
    named = {id(each): each for each in found if each.name == wanted}
    return next(iter(named.values())) if len(named) == 1 else None


def _dotted(module: str) -> str:
    if module == "__main__":
        raise ConfigurationError(f"This experiment was declared {UNREADABLE}: put it into a file.")
    if not all(part.isidentifier() for part in module.split(".")):
        raise UnknownName(f"{module!r} is no module's name: give one like experiments.sentiment, or a file's path.")
    if "." in module or importlib.util.find_spec(module) is not None:
        return module
    inside = f"{EXPERIMENTS}.{module}"
    return inside if Path(EXPERIMENTS, f"{module}.py").is_file() else module


def _no_module(called: str) -> str:
    said, last = f"There is no module {called!r} here.", called.rpartition(".")[2]
    here = experiments_here()
    if near := nearest(called, [*here, *(name.rpartition(".")[2] for name in here)]):
        return f"{said} Did you mean {' or '.join(map(repr, near))}?"
    if near := nearest(last, shipped("experiments")):
        return f"{said} {near[0]} comes with hfsuite: hfsuite new NAME --from {near[0]}"
    return f"{said} {did_you_mean(called, here)}" if here else f"{said} Write one: hfsuite new NAME --from sentiment"


def _import_from(folder: Path) -> None:
    """Here, and in the workers of a Ray that this process starts."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if folder != Path.cwd() and str(folder) not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*known, str(folder)]))


def _innermost(error: BaseException) -> list[Any]:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return [frame] if frame else []
