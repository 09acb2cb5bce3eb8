"""The problem of a call that is not made: what `explain` asks of a public function."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..contract.array_problem import ArrayProblem

__all__ = ["Told", "asked", "tell", "told", "told_call"]

_telling: ContextVar[bool] = ContextVar("fastconv_telling", default=False)


class Told(Exception):
    """The problem of a call that is not made; `told_call` alone meets it."""

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.problem = problem
        #: What is computed before it: a copy of the input with its boundary.
        self.copy: ArrayProblem | None = None


def told_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Told | None:
    """Return what is known of a call, which is not made; None where it comes to no problem."""
    token = _telling.set(True)
    try:
        function(*args, **kwargs)
    except Told as caught:
        return caught
    finally:
        _telling.reset(token)
    return None


def told(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the problem of a call, which is not made; None where it comes to none."""
    caught = told_call(function, *args, **kwargs)
    return None if caught is None else caught.problem


def asked() -> bool:
    """Tell whether a call is asked for its problem alone, and so must come to `tell`."""
    return _telling.get()


def tell(problem: Any) -> None:
    """Do not go on where a call is asked for its problem alone: this is it, and no array's."""
    if _telling.get():
        raise Told(problem)
