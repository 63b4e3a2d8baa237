"""Objects that travel as bytes: a process imports what they consist of when it first asks for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ray import cloudpickle


class Later:
    """An object that another process unpickles when it first needs it, or never.

    Args:
        value: the object.
        pickled: or its bytes, from another process.
    """

    def __init__(self, value: Any = None, pickled: bytes = b"") -> None:
        self._value, self._pickled = value, pickled

    @property
    def value(self) -> Any:
        """The object."""
        if self._value is None:
            self._value = cloudpickle.loads(self._pickled)
        return self._value

    def __getstate__(self) -> dict[str, Any]:
        """All but the object itself, which is in the bytes."""
        return self.__dict__ | {"_value": None, "_pickled": self._pickled or cloudpickle.dumps(self._value)}


class LaterFunction(Later):
    """A function of the user's, for processes that hand it on and do not call it: they need not import its module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__signature__ = inspect.Signature(
            # Without annotations and the values of defaults, which are objects of that module.
            [
                inspect.Parameter(each.name, each.kind, default=each.empty if each.default is each.empty else ...)
                for each in inspect.signature(function).parameters.values()
            ]
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function, in a rank."""
        return self.value(*args, **kwargs)
