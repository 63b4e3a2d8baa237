"""Runs a script, a notebook's cells or a command up to where it launches an experiment, and no further. Driver."""

from __future__ import annotations

import ast
import asyncio
import bisect
import inspect
import linecache
import sys
from pathlib import Path
from types import CodeType, ModuleType

from hfsuite.declaration import Declaration
from hfsuite.errors import ConfigurationError, NeedsResult
from hfsuite.sweeps.launching import Launched, Loading, only_loading
from hfsuite.tracking.declared import LOADED, MAIN, ends_itself
from hfsuite.tracking.notebook import heads


def run_to_launch(path: Path, text: str, *, name: str, loading: Loading) -> Declaration:
    """The experiment that a program launches. It stays this process's `__main__`, so its functions travel by value.

    Statements run one after another. What it launches before the wanted experiment is not run, and a statement that
    needs its result is left out.

    Args:
        path: of its file, or of what stands for it.
        text: its source.
        name: by which it is recorded.
        loading: what is wanted.

    Raises:
        ConfigurationError: it launches no such experiment, and why.
    """
    main = ModuleType(MAIN)
    main.__file__ = str(path)
    setattr(main, LOADED, (name, text))
    sys.modules[MAIN] = main
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))  # for tracebacks
    program = _parsed(text, name)
    flags = _future(program) | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as notebooks do
    begins, failed = heads(text), dict[int, ConfigurationError]()  # by the cell, counted from its line
    with only_loading(loading):
        for statement in program.body:
            cell = bisect.bisect(begins, statement.lineno)
            if cell in failed:
                continue
            code = compile(ast.Module([statement], []), str(path), "exec", dont_inherit=True, flags=flags)
            try:
                _execute(code, main)
            except Launched as launched:
                return launched.experiment
            except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code can raise anything
                is_left_out = bool(loading.passed) and isinstance(error, NameError | NeedsResult)
                if not is_left_out:
                    failed[cell] = _failing(name, statement, error)
            if loading.found is not None:  # in a thread of its own
                return loading.found
            if failed and not begins:  # a cell that has failed in the notebook has ended there too, and no other
                raise failed[cell]
    try:
        return _declared(main, name, loading)
    except ConfigurationError:
        for first in failed.values():
            raise first from first.__cause__
        raise


def _execute(code: CodeType, main: ModuleType) -> None:
    """Runs a statement; one that awaits something runs in a loop of its own."""
    awaited = eval(code, vars(main))
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(awaited)


def _declared(main: ModuleType, name: str, loading: Loading) -> Declaration:
    """What a program declares that launches nothing."""
    wanted, others = loading.wanted, dict.fromkeys(loading.passed)
    found = {key: each for key, each in vars(main).items() if isinstance(each, Declaration)}
    if wanted is not None:
        found = {key: each for key, each in found.items() if each.name == wanted}
    if "experiment" in found or len(found) == 1:
        return found.get("experiment") or next(iter(found.values()))
    if wanted is not None:
        if others:
            before = ", ".join(map(repr, others))
            raise ConfigurationError(
                f"{name} does not come to the experiment {wanted!r} without the result of {before}, which is not run "
                "again: declare it where it needs no earlier result."
            )
        raise ConfigurationError(f"{name} does not launch or declare the experiment {wanted!r} any more.")
    if found:
        raise ConfigurationError(f"{name} declares {len(found)} experiments: call the one to be run `experiment`.")
    raise ConfigurationError(
        f"{name} declares no experiment: it must assign `experiment = hfsuite.Experiment(...)`, or call its sweep()."
    )


def _parsed(text: str, name: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise ConfigurationError(f"{name} is no Python code: {error.msg} (line {error.lineno}).") from error


def _future(program: ast.Module) -> int:
    """The flags of `from __future__` imports, which each statement is compiled with."""
    import __future__

    names = [
        each.name
        for node in program.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for each in node.names
    ]
    return sum(getattr(__future__, each).compiler_flag for each in names)


def _failing(name: str, statement: ast.stmt, error: BaseException) -> ConfigurationError:
    """What is said of a program whose statement has raised."""
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(error, SystemExit):
        return ConfigurationError(ends_itself(name, error.code, sys.argv[1:]))
    failing = ConfigurationError(f"Running {name} fails: {type(error).__name__}: {error} (line {statement.lineno})")
    failing.__cause__ = error
    return failing
