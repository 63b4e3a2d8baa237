"""How a command ends: exit codes, and errors as messages. The only place where exceptions become text."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import typer
from rich.console import Console

from hfsuite.errors import ConfigurationError, HFSuiteError, TrackingError, TrialFailed

OK, NOTHING_SUCCEEDED, USER_ERROR, DIVERGED, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def run_command(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Runs a command line; returns its exit code.

    0 all went well, 1 no trial succeeded, 2 the user asked for what cannot be, 3 a repetition has diverged, 4 some
    trials failed, 130 interrupted.
    A traceback appears only for a defect of hfsuite's own.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        if code == INTERRUPTED:  # returned by a sweep, or what Typer makes of Ctrl-C
            Console(stderr=True).print("Interrupted. What had not finished is recorded as stopped.", style="magenta")
        return code if isinstance(code, int) else OK
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # every exception that a command line can cause has it
        return USER_ERROR
    except TrialFailed as error:
        show_error(str(error))
        return NOTHING_SUCCEEDED
    except (ConfigurationError, TrackingError) as error:
        for fault in error.faults if isinstance(error, ConfigurationError) else [str(error)]:
            show_error(fault)
        return USER_ERROR
    except HFSuiteError as error:
        show_error(str(error))
        return USER_ERROR


@contextmanager
def answer(json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What a command does while this is open prints to standard error if its answer is JSON: Ray prints at will.

    The function that is handed out prints the answer: one object, on standard output.
    """
    standard_output = sys.stdout

    def say(found: dict[str, Any]) -> None:
        from hfsuite.own_values import json_value

        print(json_.dumps(json_value(found), default=str, allow_nan=False), file=standard_output, flush=True)

    with redirect_stdout(sys.stderr) if json else nullcontext():
        yield say


def show_error(text: str) -> None:
    """One error, on standard error."""
    _show("[bold red]error:[/] ", text)


def show_warning(text: str) -> None:
    """What costs no result but should be known, on standard error."""
    _show("[bold yellow]warning:[/] ", text)


def _show(label: str, text: str) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(label, end="")
    console.print(text, markup=False, soft_wrap=True)
