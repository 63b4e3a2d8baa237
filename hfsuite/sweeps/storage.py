"""The folder or URI that holds sweeps: where it is, and whether a new sweep can begin there. Driver."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.fs

from hfsuite.errors import ConfigurationError
from hfsuite.tracking.directory import OWN_FOLDER, SweepDirectory
from hfsuite.tracking.secrets import without_credentials


def absolute(storage: str | os.PathLike[str]) -> str:
    """A storage as it is meant from here."""
    path = os.fspath(storage)
    return path.rstrip("/") if "://" in path else os.path.abspath(os.path.expanduser(path))


def check_unused(directory: SweepDirectory, name: str, shown: str) -> None:
    """A driver that was ended before its sweep had a record has left nothing that would be missed."""
    if directory.exists:
        raise ConfigurationError(
            f"There is a sweep {name!r} in {shown} already: choose another name, or remove that one with its runs: "
            f"hfsuite clean {name} --storage {shlex.quote(shown)}"
        )
    entry = directory.filesystem.get_file_info(directory.path)
    if entry.is_file or directory.names() - {OWN_FOLDER}:
        raise ConfigurationError(f"There is something other than a sweep in {shown}/{name}: choose another name.")


def check_storage(storage: str, name: str) -> None:
    """The sweep's directory must be new, and the storage must take a file."""
    shown = without_credentials(storage)
    try:
        filesystem, root = (
            pyarrow.fs.FileSystem.from_uri(storage) if "://" in storage else (pyarrow.fs.LocalFileSystem(), storage)
        )
        check_unused(SweepDirectory(filesystem, f"{root}/{name}"), name, shown)
        is_new = filesystem.get_file_info(root).type == pyarrow.fs.FileType.NotFound
        marker = f"{root}/.hfsuite_{os.getpid()}_{time.monotonic_ns()}"
        filesystem.create_dir(root, recursive=True)
        with filesystem.open_output_stream(marker) as stream:
            stream.write(b"")
        filesystem.delete_file(marker)
        if is_new and filesystem.type_name == "local":
            with suppress(OSError):  # another sweep has begun to use it meanwhile
                Path(root).rmdir()  # something else may be refused: then nothing shall be left
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".") + "."
        raise ConfigurationError(
            f"The storage {shown} cannot be written to: {reason} Give a folder or URI that can be (--storage)."
        ) from error
