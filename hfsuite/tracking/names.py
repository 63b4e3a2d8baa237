"""What things are called in MLflow: each by a name of its own, though MLflow takes fewer names than people give."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

NAME_LIMIT = 250  # characters; MLflow refuses longer ones
MARK = 4  # hexadecimal digits
SHOWN = 60  # characters of a name in a sentence
OWN = "hfsuite"  # where a path begins that no user has given

NamePath = tuple[str, ...]  # the names from the outermost group to a value


class Names:
    """Gives each thing a name that MLflow takes, and no two the same.

    `recall@1` is `recall_1` there, and so is `recall_1` itself; `a.b` may be a name, or `b` in a group `a`. The first
    that comes has the plain name, and one that meets it a mark, which follows from its own name. Of several that come
    at once, those that MLflow takes as they are come first. So whoever reads a trial's reports in their order, while it
    runs or years later, finds the same names.
    """

    def __init__(self) -> None:
        self.marked: dict[str, str] = {}  # by a name in MLflow with a mark: what it stands for
        self._owners: dict[str, NamePath] = {}
        self._names: dict[NamePath, str] = {}
        self._in_records: dict[str, str] = {}

    def reserve(self, name: str, path: NamePath) -> None:
        """Gives something the plain name before anything else can have it."""
        self._give(mlflow_name(name), path)

    def learn(self, paths: Iterable[NamePath]) -> None:
        """Gives names to all that come at once."""
        for path in sorted(paths, key=lambda each: (_is_changed(each), len(each), each)):
            self.of(path)

    def of(self, path: NamePath) -> str:
        """The name of something, the same each time."""
        if path not in self._names:
            plain = mlflow_name(".".join(path))
            name, digits = plain, MARK
            while name in self._owners:
                name, digits = with_mark(plain, path, digits), digits + MARK
            if name != plain:
                self.marked[name] = " in ".join(reversed(path))
            self._give(name, path)
        return self._names[path]

    def of_recorded(self, name: str) -> str:
        """The name in MLflow of a number that a record has by its name with dots; see `flat`."""
        return self._in_records[name] if name in self._in_records else self.of((name,))

    def _give(self, name: str, path: NamePath) -> None:
        self._owners[name], self._names[path] = path, name
        dotted = ".".join(path)
        if len(path) == 1 or dotted not in self._in_records:
            self._in_records[dotted] = name
        self._in_records[with_mark(dotted, path)] = name


def told(marked: Mapping[str, str]) -> str:
    """Which name stands for what, in words; of long ones the beginning, and of the first the mark."""
    return "; ".join(f"{_short(name, MARK + 1)} is {_short(meant)}" for name, meant in sorted(marked.items()))


def _short(name: str, kept: int = 0) -> str:
    return name if len(name) <= SHOWN else f"{name[: SHOWN - kept]}...{name[len(name) - kept :]}"


def names_of(values: Mapping[str, Any], own: Iterable[str] = ()) -> Names:
    """Names for all values of nested dicts, whose order makes no difference.

    Args:
        values: all there are.
        own: names that stand for something else already.
    """
    names = Names()
    for name in own:
        names.reserve(name, (OWN, name))
    names.learn(path for path, _ in paths(values))
    return names


def paths(values: Mapping[str, Any], groups: NamePath = ()) -> Iterator[tuple[NamePath, Any]]:
    """Nested dicts as pairs of a path and a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from paths(value, (*groups, str(name)))
        else:
            yield (*groups, str(name)), value


def flat(values: Mapping[str, Any], keep: str | None = None) -> dict[str, Any]:
    """Nested dicts as one with names with dots; where that is the name of another value too, it has a mark.

    Args:
        values: the dicts.
        keep: a name that nothing in a group can have.
    """
    found: dict[str, Any] = {}
    for path, value in sorted(paths(values), key=lambda each: len(each[0]) > 1):
        name = ".".join(path)
        is_taken = name in found or (len(path) > 1 and name == keep)
        found[with_mark(name, path) if is_taken else name] = value
    return found


def _is_changed(path: NamePath) -> bool:
    return mlflow_name(".".join(path)) != ".".join(path)


def with_mark(name: str, path: NamePath, digits: int = MARK) -> str:
    """A name that says which of several it is, by a digest of what it stands for."""
    mark = hashlib.sha256(json.dumps(path).encode()).hexdigest()[:digits]
    return f"{name[: NAME_LIMIT - digits - 1]}-{mark}"


def mlflow_name(name: str) -> str:
    """A name as MLflow takes it: `recall@5` becomes `recall_5`. It refuses whole reports for one name."""
    name = re.sub(r"[^\w\-. :/]", "_", name)[:NAME_LIMIT]
    is_path = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    return name if is_path else name.replace("/", "_").strip(".") or "_"
