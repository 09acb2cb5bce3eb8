"""Arguments that must be refused, and whether they are."""

from __future__ import annotations

from typing import Any

from fastconv.errors import FastconvError

__all__ = ["check_refused"]

#: What a message may call an argument by.
_NAMES = (
    "input", "weight", "bias", "residual", "out", "stride", "padding", "dilation", "groups",
    "kernel", "activation", "x",
)  # fmt: skip


def check_refused(program: Any, call: Any) -> None:
    """Make a call that must raise one of fastconv's errors before anything is written."""
    from .execution import Failed

    program.report.calls["refused"] += 1
    try:
        with program.limited("refusing", call):
            program.invoke(call)
    except FastconvError as error:
        words = str(error).replace(":", " ").split()
        if not any(name in words for name in _NAMES):
            raise Failed("names no argument", f"{type(error).__name__}: {error}") from None
    else:
        raise Failed("accepted", f"a call with {call.params} was not refused")
    program.check_memory(call)
    if call.out is not None and not call.out.is_unchanged():
        raise Failed("wrote before refusing", "out was written before the error")
