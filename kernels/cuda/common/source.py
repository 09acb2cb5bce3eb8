"""What the text of every generated kernel shares: names, a pixel's place, the end of a sum."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda, uint32

from .epilogue import activate
from .steps import axis_bits
from .vector import access, compute_type, load_words

__all__ = ["EPILOGUE", "compile_text", "namespace_of"]

#: What happens to `value`, the sum of output channel `row` of a group.
EPILOGUE = """
if has_bias != u(0):
    value += load1(bias, u(group * channels + row))
if has_residual != u(0):
    value += load1(residual, u({residual} + row * rc))
store1(out, u({out} + row * yc), activate(value, activation, alpha))
"""


def namespace_of(storage: str) -> dict[str, Any]:
    """Return what the text of every kernel of a storage type refers to."""
    stored, summed = access(storage), access("float64" if storage == "float64" else "float32")
    return {
        "cuda": cuda,
        "u": uint32,
        "uint32": uint32,
        "compute": compute_type(storage),
        "ZERO": (np.float64 if storage == "float64" else np.float32)(0),
        "load1": stored.load1,
        "load4": stored.load4,
        "store1": stored.store1,
        "load4s": summed.load4,
        "store4s": summed.store4,
        "load_words": load_words,
        "axis_bits": axis_bits,
        "activate": activate(storage),
    }


def compile_text(
    text: str, name: str, label: str, namespace: dict[str, Any]
) -> Callable[..., None]:
    """Return the function that a text defines; tracebacks and debuggers find its lines."""
    filename = f"<fastconv {label}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    exec(compile(text, filename, "exec"), namespace)
    function: Callable[..., None] = namespace[name]
    return function
