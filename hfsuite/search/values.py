"""Values of settings as people write them: read from text, and checked against the type of a default."""

from __future__ import annotations

import ast
import math
import re
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from hfsuite.own_values import own_value

if TYPE_CHECKING:
    import yaml

READS_AS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list"}
# As YAML 1.2 has them, and Python: 1e-4 is a number, `no` and 1:30 are texts, 012 is 12.
SCALARS = {
    "null": r"~|null|Null|NULL|none|None|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(\d+(_\d+)*|0o[0-7]+|0x[\da-fA-F]+|0b[01]+)",
    "float": r"[-+]?(\.\d+|\d+(_\d+)*(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.?(inf|Inf|INF|[iI]nfinity)|\.?(nan|NaN|NAN)",
}


def parse_value(name: str, text: str, default: Any) -> tuple[Any, str | None]:
    """A value given as text, read as the type of the setting's default; or a sentence that says why it cannot be.

    Where the default says no type (None, a list, a dict), it is read as Python, or else as JSON or YAML 1.2.
    """
    default = own_value(default)
    if isinstance(default, str):
        return text, None
    try:
        value = own_value(_read(text), default)
    except RecursionError:
        return None, f"{name} cannot be {text!r}, which holds itself."
    if isinstance(value, str) and isinstance(default, list | tuple) and text.strip()[:1] == "(":  # of bare words
        value = own_value(_read(text.replace("(", "[").replace(")", "]")), default)
    if default is None:
        return value, None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value), None
    if isinstance(value, str) or type_fault(name, value, default) is not None:
        return None, _fault(name, text, default)
    return value, None


def _read(text: str) -> Any:
    """What a text means where nothing says its type: to Python, or else to YAML; itself, if it means nothing."""
    import yaml

    for read in (_of_python, _of_yaml):
        try:
            return read(text)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, yaml.YAMLError):
            continue  # it is no such text
    return text


def _of_python(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Python would not like in code: this may be none
        value = ast.literal_eval(text.strip())
    if not _is_of_json(value):
        raise TypeError(f"Settings are of the types that JSON knows, and tuples, got {value!r}.")
    return value


def _of_yaml(text: str) -> Any:
    import yaml

    value = yaml.load(text, _loader())
    return text if isinstance(value, str) and "#" in text else value  # no comment is meant


def _is_of_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_of_json(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_of_json, value))
    return value is None or isinstance(value, bool | int | float | str)


def type_fault(name: str, value: Any, default: Any) -> str | None:
    """A sentence if `value` cannot stand where `default` does. A whole number may stand for any number."""
    default = own_value(default)
    value = own_value(value, default)
    if isinstance(value, float) and math.isnan(value):
        return f"{name} cannot be {value}, which is no number."
    if default is None or (value is None and not isinstance(default, bool | int | float)):
        return None
    kind = type(default)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits or (kind is float and isinstance(value, int) and not isinstance(value, bool)):
        return None
    return _fault(name, value, default)


def _fault(name: str, value: Any, default: Any) -> str:
    expected = READS_AS.get(type(default), f"of the type {type(default).__name__}")
    return f"{name} must be {expected} (its default is {default!r}), got {value!r}."


@cache
def _loader() -> type[yaml.SafeLoader]:
    """PyYAML reads YAML 1.1, in which 1e-4 is a text and `no` is false."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  of this class alone

    for kind, pattern in SCALARS.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), None)
    Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: _whole(node.value))
    Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(_plain(node.value)))
    return Loader


def _whole(text: str) -> int:
    return int(text, 0) if text.lstrip("+-").lower().startswith(("0o", "0x", "0b")) else int(text)


def _plain(text: str) -> str:
    return re.sub(r"\.(inf|nan)$", r"\1", text, flags=re.IGNORECASE)
