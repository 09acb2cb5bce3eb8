"""Functions that `torch.compile` leaves as they are.

Rulebooks are built and kernels run outside of PyTorch, from sizes that the sites decide: there is
nothing in them for a compiler. What tells it so is in a package that takes seconds to import, so it
is asked only where that has been loaded, which a compiler's call does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["eager"]

Function = TypeVar("Function", bound=Callable[..., Any])


def eager(function: Function) -> Function:
    """Return a function that is run and never traced.

    Parameters
    ----------
    function : callable
        Called as it is where nothing is compiled.
    """
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            compiler: Any = torch.compiler  # whose functions have no types
            disabled.append(compiler.disable(function))
        return disabled[0](*args, **kwargs)

    return call  # type: ignore[return-value]
