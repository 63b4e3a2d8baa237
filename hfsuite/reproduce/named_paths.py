"""Paths that a module's code names, found by reading it: those built from `__file__`, and relative ones it opens.

What is known is followed through names, loops over what is written out, and the module's own functions. Pure functions.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST = 200  # values of one expression
PATHS = {"Path", "PurePath", "PosixPath", "PurePosixPath"}
THE_SAME = {"abspath", "realpath", "normpath", "fspath", "str", "expanduser", "resolve", "absolute", "as_posix"}
JOINS = {"path", "osp", "posixpath", ""}  # of which the function `join` is meant
NAMED_ANEW = {"with_name", "with_stem", "with_suffix"}
READS = re.compile(
    r"open|read_\w+|load|loadtxt|genfromtxt|fromfile|memmap|load_file|load_from_disk|safe_open|imread|from_(csv|json|"
    r"parquet|text|file)|ImageFolder"
)
WRITES = re.compile(r"[rbt+]*[wax][rbt+]*")  # how `open` opens
OF_DATA = {"data_files", "data_dir"}  # arguments of `load_dataset`


@dataclass(frozen=True)
class Place:
    """A path that begins at `__file__`.

    Args:
        path: where it leads.
        is_open: whether something follows that only a run knows.
    """

    path: Path
    is_open: bool = False


Value = Place | str


class Named:
    """What the code of a module names.

    Args:
        code: of the module.
        file: where it lies.
        arguments: that it is called with, if it reads any.
    """

    def __init__(self, code: str, file: Path, arguments: Sequence[str] = ()) -> None:
        self.tree, self.file, self._arguments = ast.parse(code), file, list(arguments)
        self._options: dict[str, list[ast.expr]] = {}  # of the command line, by the names of their values
        self._bound: dict[str, list[ast.expr]] = {}
        self._items: dict[str, list[ast.expr]] = {}  # of loops
        self._functions: dict[str, ast.FunctionDef] = {}
        self._loaded = {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                self._functions[node.name] = node
        for node in ast.walk(self.tree):
            self._bind(node)

    def beside(self) -> list[Place]:
        """The longest paths from `__file__`."""
        return list(dict.fromkeys(self._places(self.tree)))

    def opened(self) -> list[str]:
        """Relative paths of what is opened or loaded for reading."""
        found: list[str] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                given = itertools.chain.from_iterable(map(self._texts, _read_by(node)))
                found += [text for text in given if _is_relative(text)]
        return list(dict.fromkeys(found))

    # ---- inside

    def _bind(self, node: ast.AST) -> None:
        """Takes note of what names may stand for, wherever they do."""
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    self._bound.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
            self._items.setdefault(node.target.id, []).append(node.iter)
        elif isinstance(node, ast.FunctionDef):
            parameters = [*node.args.posonlyargs, *node.args.args]
            last = parameters[len(parameters) - len(node.args.defaults) :]
            for parameter, default in zip(last, node.args.defaults, strict=True):
                self._bound.setdefault(parameter.arg, []).append(default)
        elif isinstance(node, ast.Call) and _name_of(node.func) == "add_argument":
            self._add_option(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self._functions:
            called = self._functions[node.func.id].args
            given = zip([*called.posonlyargs, *called.args], node.args, strict=False)
            named = [(each.arg, each.value) for each in node.keywords if each.arg is not None]
            for name, value in [*((parameter.arg, value) for parameter, value in given), *named]:
                self._bound.setdefault(name, []).append(value)

    def _add_option(self, call: ast.Call) -> None:
        """What an option of `argparse` is by default, or what it was given."""
        flags = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        named = {each.arg: each.value for each in call.keywords}
        told = named.get("dest")
        long = next((flag for flag in flags if flag.startswith("--")), flags[0] if flags else "")
        name = str(told.value) if isinstance(told, ast.Constant) else long.lstrip("-").replace("-", "_")
        given = [
            ast.Constant(argument.partition("=")[2] if "=" in argument else following)
            for argument, following in itertools.pairwise([*self._arguments, ""])
            if argument.partition("=")[0] in flags
        ]
        self._options[name] = [*given] or [named["default"]] if given or "default" in named else []

    def _places(self, node: ast.AST) -> Iterator[Place]:
        if isinstance(node, ast.expr):
            found = [each for each in self._values(node) if isinstance(each, Place)]
            if found:
                yield from found
                return
        for child in ast.iter_child_nodes(node):
            if not self._is_followed(node, child):
                yield from self._places(child)

    def _is_followed(self, node: ast.AST, child: ast.AST) -> bool:
        """Whether an expression counts where it is used, under its name or as what a function returns."""
        if isinstance(node, ast.Assign | ast.AnnAssign) and child is node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_used = all(isinstance(each, ast.Name) and each.id in self._loaded for each in targets)
            return is_used and bool(self._values(node.value))
        if isinstance(node, ast.Return) and isinstance(child, ast.expr) and self._values(child):
            return any(node in ast.walk(each) and name in self._loaded for name, each in self._functions.items())
        return False

    def _values(self, node: ast.expr, above: frozenset[str] = frozenset()) -> list[Value]:
        """What an expression can be, of texts and paths; nothing if that is not known."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.Name(id="__file__"):
                return [Place(self.file)]
            case ast.Name(id=name, ctx=ast.Load()) if name not in above:
                inner = above | {name}
                items = [each for listed in self._items.get(name, []) for each in self._listed(listed)]
                return self._all([*self._bound.get(name, []), *items], inner)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._joined([left, right], above)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._concatenated([left, right], above)
            case ast.JoinedStr(values=parts):
                inner_parts = [each.value if isinstance(each, ast.FormattedValue) else each for each in parts]
                return self._concatenated(inner_parts, above)
            case ast.IfExp(body=one, orelse=other):
                return self._all([one, other], above)
            case ast.BoolOp(values=parts):
                return self._all(parts, above)
            case ast.NamedExpr(value=value):
                return self._values(value, above)
            case ast.Call():
                return self._called(node, above)
        return self._of_a_path(node, above)

    def _of_a_path(self, node: ast.expr, above: frozenset[str]) -> list[Value]:
        """What an attribute of a path can be: its parents, or a part of its name."""
        match node:
            case ast.Attribute(value=value, attr="parent"):
                return [_up(each, 1) for each in self._values(value, above)]
            case ast.Attribute(value=value, attr="name" | "stem" | "suffix" as part):
                places = [each for each in self._values(value, above) if isinstance(each, Place) and not each.is_open]
                return [str(getattr(each.path, part)) for each in places]
            case ast.Attribute(attr=name) if name in self._options:
                return self._all(self._options[name], above)
            case ast.Subscript(value=ast.Attribute(value=value, attr="parents"), slice=ast.Constant(value=int(number))):
                return [_up(each, number + 1) for each in self._values(value, above)]
        return []

    def _called(self, node: ast.Call, above: frozenset[str]) -> list[Value]:
        name, owner = _name_of(node.func), node.func.value if isinstance(node.func, ast.Attribute) else None
        before = self._values(owner, above) if owner is not None else []
        owner_name = "" if owner is None else _name_of(owner) or "?"
        if name in PATHS or (name == "join" and owner_name in JOINS):
            return self._joined(node.args, above)
        if name == "joinpath" and owner is not None:
            return self._joined([owner, *node.args], above)
        if name == "dirname" and node.args:
            return [_up(each, 1) for each in self._values(node.args[0], above)]
        if name in THE_SAME:
            return before or (self._values(node.args[0], above) if node.args else [])
        places = [each for each in before if isinstance(each, Place)]
        if name in NAMED_ANEW and node.args and places:
            given = [each for each in self._values(node.args[0], above) if isinstance(each, str)]
            anew: list[Value] = [
                Place(getattr(each.path, name)(text), each.is_open) for each in places for text in given if text
            ]
            return anew or [Place(each.path.parent, is_open=True) for each in places]
        if name in ("glob", "rglob") and node.args and places:
            patterns = [each for each in self._values(node.args[0], above) if isinstance(each, str)]
            met: list[Value] = [
                Place(path)
                for each in places
                for pattern in patterns
                for path in sorted(getattr(each.path, name)(pattern))
            ]
            return met if patterns else [Place(each.path, is_open=True) for each in places]
        if name in self._functions and owner is None and name not in above:
            inside = ast.walk(self._functions[name])
            returned = [each.value for each in inside if isinstance(each, ast.Return) and each.value is not None]
            return self._all(returned, above | {name})
        return []

    def _all(self, nodes: Sequence[ast.expr], above: frozenset[str]) -> list[Value]:
        return list(itertools.chain.from_iterable(self._values(each, above) for each in nodes))[:MOST]

    def _joined(self, nodes: Sequence[ast.expr], above: frozenset[str]) -> list[Value]:
        """As parts of a path; from where they are not known on, it is open."""
        found: list[Value] = []
        for place, node in enumerate(nodes):
            new = self._values(node, above)
            if place == 0:
                found = new
            elif new:
                found = [_join(one, other) for one, other in itertools.product(found, new)][:MOST]
            else:
                found = [Place(each.path, is_open=True) for each in found if isinstance(each, Place)]
        return found

    def _concatenated(self, nodes: Sequence[ast.expr], above: frozenset[str]) -> list[Value]:
        found: list[Value] = [""]
        for node in nodes:
            new = self._values(node, above)
            if new:
                found = [_add(one, other) for one, other in itertools.product(found, new)][:MOST]
            else:
                found = [Place(each.path, is_open=True) for each in found if isinstance(each, Place)]
        return found

    def _listed(self, node: ast.expr, above: frozenset[str] = frozenset()) -> list[ast.expr]:
        """The items of what is written out, under a name or not."""
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return items
            case ast.Dict(keys=keys):
                return [each for each in keys if each is not None]
            case ast.Name(id=name) if name not in above:
                return [item for each in self._bound.get(name, []) for item in self._listed(each, above | {name})]
        return []

    def _texts(self, node: ast.expr) -> list[str]:
        """Texts in an argument, in lists and dicts too."""
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Dict(values=items):
                return list(itertools.chain.from_iterable(map(self._texts, items)))
        return [each for each in self._values(node) if isinstance(each, str)]


def _read_by(call: ast.Call) -> list[ast.expr]:
    """The arguments of a call that name what it reads."""
    name = _name_of(call.func)
    if name == "load_dataset":
        builder = call.args[0] if call.args else None  # "csv"; of a data set of the hub, its files are there
        is_of_hub = isinstance(builder, ast.Constant) and "/" in str(builder.value)
        return [] if is_of_hub else [each.value for each in call.keywords if each.arg in OF_DATA]
    words = [*call.args[:2], *(each.value for each in call.keywords if each.arg == "mode")]
    modes = [str(each.value) for each in words if isinstance(each, ast.Constant)]
    writes = name == "open" and any(WRITES.fullmatch(mode) for mode in modes)
    if writes or not READS.fullmatch(name):
        return []
    of_path = [call.func.value] if isinstance(call.func, ast.Attribute) else []  # Path("x.csv").read_text()
    return [*of_path, *call.args[:1]]


def _is_relative(text: str) -> bool:
    """Whether a text is a path that depends on where it is used; a mere word is more often the name of something."""
    is_path = bool(re.fullmatch(r"[^\s:\"<>|]+", text)) and ("/" in text or "." in text.strip("."))
    return is_path and "://" not in text and not os.path.isabs(text) and not text.startswith("~")


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _up(value: Value, levels: int) -> Value:
    path = value.path if isinstance(value, Place) else Path(value)
    up = path.parents[levels - 1] if levels <= len(path.parents) else path
    return Place(up, value.is_open) if isinstance(value, Place) else str(up)


def _join(one: Value, other: Value) -> Value:
    if isinstance(other, Place):
        return other
    if isinstance(one, Place):
        return one if one.is_open else Place(one.path / other)
    return os.path.join(one, other)


def _add(one: Value, other: Value) -> Value:
    if isinstance(other, Place):
        return other
    if isinstance(one, Place):
        is_prose = bool(re.search(r"\s", other)) and not other.startswith(os.sep)  # f"{path} is missing"
        return one if one.is_open or is_prose else Place(Path(f"{one.path}{other}"))
    return one + other
