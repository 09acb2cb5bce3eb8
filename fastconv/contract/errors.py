"""The errors that fastconv raises, each also the built-in class a caller would expect.

Every message names the argument, what came and what is wanted, and is raised before anything is
written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

__all__ = [
    "ArgumentError",
    "DTypeError",
    "DeviceError",
    "FastconvError",
    "NoKernelError",
    "ShapeError",
    "renamed",
]


class FastconvError(Exception):
    """Base of all errors that fastconv raises on purpose."""


class ArgumentError(FastconvError, ValueError):
    """A word or number that is none of those which an argument takes."""


class ShapeError(FastconvError, ValueError):
    """A shape, size, stride, padding, dilation or group count that does not fit."""


class DTypeError(FastconvError, TypeError):
    """An element type that is not supported, or that differs between the arguments."""


class DeviceError(FastconvError, RuntimeError):
    """An array that lives on a device which is missing, or on another one than its companions."""


class NoKernelError(FastconvError, NotImplementedError):
    """No registered kernel can run the problem; the message holds every kernel's reasons."""


@contextlib.contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors inside the block name arguments as the caller knows them."""
    try:
        yield
    except FastconvError as error:
        name, colon, text = str(error).partition(":")
        if name not in names:
            raise
        raise type(error)(names[name] + colon + text) from None
