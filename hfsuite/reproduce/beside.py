"""Files that lie beside an experiment's module and that it reads: taken along in an export. Driver."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hfsuite.errors import ConfigurationError
from hfsuite.reproduce.named_paths import Named, Place
from hfsuite.reproduce.surroundings import module_file

LIMIT_MB = 100  # of all together
HERE = "experiment.py"  # what the module is called in the exported folder
APART = "beside"  # the folder in it for what cannot lie beside that
NEVER = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")


@dataclass(frozen=True)
class Beside:
    """What lies beside a module.

    Args:
        code: of the module, as it finds them in the exported folder.
        files: files and folders to be copied, by where they go in the exported folder.
        remarks: what could not be taken along, each a sentence.
    """

    code: str
    files: dict[str, Path] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def copy(self, folder: Path) -> None:
        """Puts them into the exported folder."""
        for name, path in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, folder / name, ignore=NEVER, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, folder / name)


def beside(
    code: str, module: str, *, taken: Collection[str], here: Path | None = None, arguments: Sequence[str] = ()
) -> Beside:
    """What a module's code names by paths from its own file, and relative paths that it opens.

    Args:
        code: of the module, as it will be exported.
        module: its name, or that of a program's file.
        taken: names that are in use in the exported folder.
        here: the folder from which the module is imported; None for the working directory.
        arguments: that it was called with.

    Raises:
        ConfigurationError: the module's file is gone, or what lies beside it is too much.
    """
    here = here or Path.cwd()
    found = module_file(module, here)
    file = Path(os.path.abspath(found or here / module))
    named = Named(code, file, arguments)
    places = [each for each in named.beside() if not _holds(each.path, file) or each.is_open]
    if found is None and places:
        raise ConfigurationError(
            f"{module} cannot be exported: it is not to be found from {here}, and it reads what lay beside it "
            f"({', '.join(sorted({_told(each.path, file) for each in places}))}); export where {module} lies."
        )
    there = {_normal(each.path) for each in places if each.path.exists() and not _holds(each.path, file)}
    there = {path for path in there if not any(path.is_relative_to(each) for each in there - {path})}
    _check_size(module, file, there)
    remarks = _remarks(named, places)
    names = {path: os.path.relpath(path, file.parent) for path in there}
    anew = Named(code, file.with_name(HERE), arguments).beside()
    if _fit(names, taken) and _beginnings(named.beside()) == _beginnings(anew):
        files = {name: path for path, name in names.items()}
    else:
        root = Path(os.path.commonpath([file.parent, *(path.parent for path in there)]))
        files = {f"{APART}/{path.relative_to(root).as_posix()}": path for path in there}
        code = _lying_at(code, f"{APART}/{file.relative_to(root).as_posix()}")
    return Beside(code, files, remarks)


# ---- inside


def _remarks(named: Named, places: Collection[Place]) -> list[str]:
    """What the code names that cannot be taken along."""
    gone = {_told(each.path, named.file) for each in places if not each.path.exists()}
    is_open = any(each.is_open and _holds(each.path, named.file) for each in places)
    return [
        *(f"{HERE} names {path}, which was not there to be taken along." for path in sorted(gone)),
        *([f"{HERE} reads something beside itself that only a run knows by name: it is not taken along."] * is_open),
        *(f"{HERE} opens {path}, which depends on where it runs: it is not taken along, so put it there before you "
          "train." for path in named.opened()),
    ]  # fmt: skip


def _fit(names: dict[Path, str], taken: Collection[str]) -> bool:
    """Whether all lie in the module's own folder, under names that nothing else has in the exported one."""
    firsts = {Path(name).parts[0] for name in names.values()}
    return not firsts & {*taken, os.pardir}


def _beginnings(places: list[Place]) -> set[tuple[Path, bool]]:
    """Paths as they are whatever the module's file is called."""
    return {(_normal(each.path), each.is_open) for each in places if each.path.suffix != ".py"}


def _lying_at(code: str, place: str) -> str:
    """The code of a module that finds its own file at another place in the exported folder."""
    begins = 0
    for node in ast.parse(code).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_text and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        begins = node.end_lineno or 0
    lines = code.splitlines()
    there = f"__file__ = str(_pathlib.Path(__file__).resolve().parent / {place!r})  # what lay beside it is there"
    own = ["", "import pathlib as _pathlib", "", there, ""]
    return "\n".join([*lines[:begins], *own, *lines[begins:], ""])


def _check_size(module: str, file: Path, paths: Collection[Path]) -> None:
    sizes = {path: _size(path) for path in paths}
    if sum(sizes.values()) > LIMIT_MB * 1e6:
        told = ", ".join(f"{_told(path, file)} {size / 1e6:,.0f} MB" for path, size in sorted(sizes.items()))
        raise ConfigurationError(
            f"{module} cannot be exported: what it reads beside itself is more than the {LIMIT_MB} MB that are taken "
            f"along ({told}): read it by its whole path."
        )


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def _holds(path: Path, file: Path) -> bool:
    """Whether a path is the module's file, or a folder that it lies in."""
    return file.is_relative_to(_normal(path))


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _told(path: Path, file: Path) -> str:
    return os.path.relpath(path, file.parent)
