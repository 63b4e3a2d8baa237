"""A relative path that a training function means from the driver's folder. In every rank."""

from __future__ import annotations

import errno
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"")
FOLDERS = (*(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[1]))
INSTALLED = tuple(f"{folder}{os.sep}" for folder in FOLDERS)


def meant(error: BaseException, made_in: str) -> str:
    """The file or folder of the driver's that a rank has looked for in its own working directory; empty if none is.

    Args:
        error: what became of that.
        made_in: the driver's working directory.
    """
    errors = [each for each in _chain(error) if _misses_a_file(each)]
    for named in _named(errors) if made_in and errors else ():
        relative = os.path.relpath(named) if os.path.isabs(named) else os.path.normpath(named)
        folder = os.path.dirname(relative)  # of a file that was to be made
        for wanted in filter(None, (relative, folder)):
            is_inside = wanted != os.curdir and not wanted.startswith(os.pardir)
            if is_inside and not os.path.exists(wanted) and os.path.exists(os.path.join(made_in, wanted)):
                return os.path.join(made_in, relative)
    return ""


def _misses_a_file(error: BaseException) -> bool:
    """Whether an error says, or may say, that something is not there."""
    if isinstance(error, ConnectionError | TimeoutError) or not isinstance(error, OSError):
        return False
    return error.errno in (None, errno.ENOENT, errno.ENOTDIR)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _named(errors: list[BaseException]) -> Iterator[str]:
    """What may be a path: what an error says that it is, what a library was called with, what messages show as one."""
    for error in errors:
        yield from (each for each in (getattr(error, "filename", None),) if isinstance(each, str))
    for error in errors:
        yield from _given(error)
    for error in errors:
        text = str(error)
        yield from (one or other for one, other in QUOTED.findall(text))
        yield from (word for each in text.split() if os.sep in (word := each.strip(".,:;()")) or "." in word)


def _given(error: BaseException) -> Iterator[str]:
    """The texts and paths that the innermost function of the user's has given to a library."""
    frames: list[FrameType] = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    own = [place for place, frame in enumerate(frames) if not frame.f_code.co_filename.startswith(INSTALLED)]
    if own and own[-1] + 1 < len(frames):
        called = frames[own[-1] + 1]
        count = called.f_code.co_argcount + called.f_code.co_kwonlyargcount
        given: list[Any] = [called.f_locals.get(name) for name in called.f_code.co_varnames[: count + 2]]
        given += [each for many in given if isinstance(many, tuple) for each in many]  # *args
        yield from (os.fspath(each) for each in given if isinstance(each, str | Path) and str(each))
