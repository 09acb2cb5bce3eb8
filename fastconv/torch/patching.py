"""``patch()``: PyTorch's own functions give way to fastconv's for the length of a block."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch.overrides import has_torch_function

from ..contract.errors import FastconvError
from . import functional, layers, pooling

__all__ = ["patch"]

#: Modules whose public functions stand in for those of the same name.
_OWN = (functional, layers, pooling)
#: Functions that `torch` itself has under the same name, with the same arguments.
_IN_TORCH = (
    "adaptive_avg_pool1d",
    "avg_pool1d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
)

_lock = threading.Lock()
#: Blocks that are open, in all threads, and what was there before the first.
_depth = 0
_before: list[tuple[ModuleType, str, Any]] = []


def _standing_in(own: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """Return fastconv's function, which leaves what it does not support to PyTorch's."""

    @functools.wraps(theirs)
    def call(*args: Any, **kwargs: Any) -> Any:
        if has_torch_function((*args, *kwargs.values())):
            return theirs(*args, **kwargs)
        try:
            return own(*args, **kwargs)
        except FastconvError:  # raised before anything is written
            return theirs(*args, **kwargs)

    return call


def _install() -> None:
    for module in _OWN:
        for name in module.__all__:
            places = [torch.nn.functional, *([torch] if name in _IN_TORCH else [])]
            for place in places:
                theirs = getattr(place, name)
                _before.append((place, name, theirs))
                setattr(place, name, _standing_in(getattr(module, name), theirs))


def _restore() -> None:
    while _before:
        setattr(*_before.pop())


@contextlib.contextmanager
def patch() -> Iterator[None]:
    """Let functions of ``torch.nn.functional`` be fastconv's within a block.

    Those of the same name in ``torch`` are, too. What fastconv does not support, of element types,
    devices, arguments or subclasses of tensors, PyTorch goes on computing; so it does whatever is
    derived by forward-mode AD or ``torch.func``. Blocks may lie within one another; they hold for
    all threads, until the last one ends.

    Weights are packed anew in most calls: where a model is only evaluated, `optimize` gains more.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> layer, x = torch.nn.Conv2d(3, 8, 3), torch.ones(1, 3, 16, 16)
    >>> with fastconv.torch.patch():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """
    global _depth
    with _lock:
        if _depth == 0:
            _install()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _restore()
