"""Objects that travel as bytes: who hands them on need not import what they consist of."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from hfsuite.later import Later, LaterFunction

IN_ANOTHER_PROCESS = """
import pickle, sys
later = pickle.loads(open("bytes", "rb").read())
print("of_a_user" in sys.modules, later.__name__, len(pickle.dumps(later)) > 0, "of_a_user" in sys.modules)
sys.path.insert(0, "modules")
print(later(2, extra=3), "of_a_user" in sys.modules)
"""


def test_a_function_is_imported_by_who_calls_it(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = own_directory / "modules"
    modules.mkdir()
    (modules / "of_a_user.py").write_text(
        "class Own: ...\ndef function(a, b: Own = Own(), *, extra): return a * extra\n"
    )
    monkeypatch.syspath_prepend(modules)
    import of_a_user  # type: ignore[import-not-found]

    later = LaterFunction(of_a_user.function)
    assert later(2, extra=3) == 6
    assert [each.kind for each in inspect.signature(later).parameters.values()] == [
        each.kind for each in inspect.signature(of_a_user.function).parameters.values()
    ]
    assert "b=Ellipsis" in str(inspect.signature(later)), "that there is a default, and not which"
    (own_directory / "bytes").write_bytes(pickle.dumps(later))
    done = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False function True False", "6 True"]


def test_a_value_arrives() -> None:
    arrived = pickle.loads(pickle.dumps(Later({"a": lambda: 1})))
    assert arrived.value["a"]() == 1
    assert arrived.value is arrived.value
