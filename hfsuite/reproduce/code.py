"""The code that a repetition runs: what lies here, the recorded commit in a worktree, or a module out of the record.

The user's own tree is never touched. Driver.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfsuite.errors import ConfigurationError
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.surroundings import module_below, module_file
from hfsuite.tracking.declared import MAIN, UNREADABLE, is_script
from hfsuite.tracking.provenance import digest


@dataclass(frozen=True)
class Code:
    """Where a repetition finds its code.

    Args:
        folder: in which it runs, and from which it imports first.
        also: from which it imports what is not there.
        origin: what that is, in words.
        text: the source of a program (a notebook, a command, a script that is gone) that lies in no file.
    """

    folder: Path
    also: tuple[Path, ...] = ()
    origin: str = "the code that lies here"
    text: str | None = None


@contextmanager
def code_for(run: RecordedRun, *, restore: bool) -> Iterator[Code]:
    """The code of a run, as long as this is open.

    Args:
        run: what is to be repeated.
        restore: whether the recorded commit and what was not committed shall be run, and not what lies here.

    Raises:
        ConfigurationError: the recorded code cannot be had, and why.
    """
    here = Path.cwd()
    if run.recipe["module"] == MAIN:
        raise ConfigurationError(f"{run.title} was declared {UNREADABLE}: it cannot be run again.")
    if restore:
        with _worktree(run, here) as folder:
            yield Code(folder, origin=f"commit {run.environment['git']['commit'][:10]} and what was not committed")
    elif module_file(run.recipe["module"], here) is not None:
        yield Code(here)
    elif is_script(run.recipe["module"]):
        yield Code(here, origin=f"{run.recipe['module']} out of the record", text=run.whole_source())
    else:
        with tempfile.TemporaryDirectory(prefix="hfsuite-") as folder_name:
            folder = Path(folder_name)
            _restore_module(run, here, folder)
            yield Code(folder, also=(here,), origin=f"{run.recipe['module']} out of the record, since it is gone")


def _restore_module(run: RecordedRun, here: Path, folder: Path) -> None:
    """Puts the recorded source where its module is imported from, beside what is left of its package."""
    module = run.recipe["module"]
    text = run.whole_source()
    parts = module.split(".")
    if folder != here and len(parts) > 1 and here.joinpath(parts[0]).is_dir():
        shutil.copytree(here / parts[0], folder / parts[0], ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / module if is_script(module) else folder.joinpath(*parts).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@contextmanager
def _worktree(run: RecordedRun, here: Path) -> Iterator[Path]:
    git = run.environment.get("git") or {}
    commit = git.get("commit")
    if commit is None:
        raise ConfigurationError(f"{run.title} was not run from a git repository: there is no commit to restore.")
    if Path(run.recipe["module"]).is_absolute():
        raise ConfigurationError(f"{run.recipe['module']} lies in another folder: change to that.")
    root = _import_root(run.recipe["module"], here)
    failing = f"{root} is in no git repository: change to the project's."
    top = Path(_git(root, "rev-parse", "--show-toplevel", failing=failing))
    where = f" from {git['remote']}" if git.get("remote") else ""
    _git(
        top, "cat-file", "-e", f"{commit}^{{commit}}",
        failing=f"This repository does not have the recorded commit {commit}: fetch it{where}.",
    )  # fmt: skip
    if run.diff is not None and digest(run.diff) != git.get("diff_digest"):
        raise ConfigurationError(
            "What was not committed is not recorded whole: it was too long, or secrets in it were left out. Make those "
            "changes here, on the recorded commit, and reproduce without --restore-code."
        )
    with tempfile.TemporaryDirectory(prefix="hfsuite-") as parent:
        tree = Path(parent, top.name)
        _git(top, "worktree", "add", "--detach", str(tree), commit, failing="The commit cannot be checked out.")
        try:
            if run.diff is not None:
                _git(
                    tree, "apply", "--whitespace=nowarn", "-", given=f"{run.diff}\n",
                    failing="What was not committed cannot be applied.",
                )  # fmt: skip
            folder = tree / root.resolve().relative_to(top.resolve())
            folder.mkdir(parents=True, exist_ok=True)  # it may be younger than the commit
            if module_below(run.recipe["module"], folder) is None:  # it had never been committed
                _restore_module(run, folder, folder)
            yield folder
        finally:
            _git(top, "worktree", "remove", "--force", str(tree), failing="The worktree cannot be removed.")


def _import_root(module: str, here: Path) -> Path:
    """The folder from which a module is imported; this one, if it is not to be found."""
    file = module_file(module, here) if not is_script(module) else None
    return file.parents[len(module.split(".")) - 1] if file is not None and file.name != "__init__.py" else here


def _git(folder: Path, *arguments: str, failing: str, given: str | None = None) -> str:
    """What git says.

    Raises:
        ConfigurationError: it fails.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, input=given
        )
    except FileNotFoundError as error:
        raise ConfigurationError("The recorded code can only be restored with git, which is not installed.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise ConfigurationError(f"{failing} git says: {said[-1] if said else 'nothing'}") from error
    return done.stdout.strip()
