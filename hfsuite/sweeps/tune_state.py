"""Ray Tune's own state of a sweep, in one file that is whole at any moment. Driver.

Ray Tune copies its files to the storage one by one, over those of before. A driver that is killed meanwhile leaves half
of one, or files of different moments; Tune cannot read the first and draws a trial too many or too few from the others.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from hfsuite.errors import ConfigurationError
from hfsuite.tracking.directory import OWN_FOLDER, SweepDirectory

STATE_FILE = f"{OWN_FOLDER}/tune.zip"


def keep(directory: SweepDirectory, written: str, session: str) -> None:
    """Puts aside what Ray Tune has just written.

    Args:
        directory: of the sweep.
        written: the folder of the driver's machine where Ray Tune writes its state.
        session: what the names of its files have in them, since the sweep was last taken up.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in Path(written).glob(f"*{session}*"):
            if path.suffix in (".json", ".pkl") and not path.name.startswith("."):
                archive.write(path, path.name)
    directory.write(STATE_FILE, data.getvalue())


def check(directory: SweepDirectory, *, expected: bool) -> None:
    """Whether a sweep can be taken up again.

    Raises:
        ConfigurationError: what was put aside is missing or damaged.
    """
    _read(directory, expected=expected)


def restore(directory: SweepDirectory, *, expected: bool) -> bool:
    """Gives Ray Tune back what was put aside, where it looks for it.

    Args:
        directory: of the sweep.
        expected: whether there must be something, since trials have been recorded.

    Returns:
        Whether there was anything. If not, the sweep never came to its first trial.

    Raises:
        ConfigurationError: it is missing or damaged.
    """
    files = _read(directory, expected=expected)
    for name, content in files.items():
        directory.write(name, content)
    return bool(files)


def _read(directory: SweepDirectory, *, expected: bool) -> dict[str, bytes]:
    data = directory.read(STATE_FILE)
    if data is None and not expected:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(data or b"")) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ConfigurationError(
            f"The sweep in {directory.path} cannot be taken up again: {STATE_FILE} is "
            f"{'missing' if data is None else f'damaged ({error})'}. What its trials have reported and saved is still "
            "there: hfsuite sync brings it to MLflow."
        ) from error
