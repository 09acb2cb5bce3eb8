"""What the code of a `forward` may do that one run with placeholders would settle for all calls.

A placeholder is no tensor: asked whether it is of a type, is None, or is among a dictionary's keys,
it gives an answer that holds for it alone. The code is read for such questions, and so is that
of the methods and functions that it names.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn

__all__ = ["captured", "named_functions", "why_not_foreseen"]

_TYPES = {"isinstance", "issubclass", "is_tensor", "type", "hasattr", "callable", "id", "hash"}
_DRAWS = {"random", "rand", "randn", "randint", "bernoulli"}
_STORES = {"STORE_ATTR", "STORE_GLOBAL", "DELETE_ATTR", "DELETE_GLOBAL"}


def named_functions(module: nn.Module) -> list[FunctionType]:
    """Return a module's `forward` and the functions that it names, but PyTorch's own."""
    found: list[FunctionType] = []
    waiting: list[Any] = [module.__dict__.get("forward"), type(module).forward]
    while waiting:
        function = waiting.pop()
        function = function.fget if isinstance(function, property) else function
        function = getattr(function, "__func__", function)
        function = inspect.unwrap(function) if callable(function) else function
        if not isinstance(function, FunctionType) or function in found:
            continue
        if f"{function.__module__}.".startswith("torch."):
            continue
        found.append(function)
        waiting += captured(function)
        for name in {name for code in _codes(function.__code__) for name in code.co_names}:
            waiting.append(inspect.getattr_static(type(module), name, None))
            waiting.append(function.__globals__.get(name))
    return found


def captured(function: FunctionType) -> list[Any]:
    """Return what a function has of the function that it is written in."""
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # of a name that has no value yet
            found += [] if name == "__class__" else [cell.cell_contents]
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions written in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def why_not_foreseen(module: nn.Module) -> str:
    """Return what a module's `forward` does that no run foresees; "" where nothing is."""
    for function in named_functions(module):
        for code in _codes(function.__code__):
            if reason := _why_not(code):
                return reason
    return ""


def _why_not(code: CodeType) -> str:
    if _TYPES & set(code.co_names):
        return "asks for the types of what it is given"
    if _DRAWS & set(code.co_names):
        return "draws random numbers"
    steps = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    if any(each.opname in _STORES for each in steps):
        return "changes the model's attributes"
    if not all(_is_settled(steps, place) for place in range(len(steps))):
        return "asks what its values are by `is` or `in`"
    return ""


def _is_settled(steps: list[dis.Instruction], place: int) -> bool:
    """Tell whether a placeholder answers a comparison as a tensor in its place would."""
    name = steps[place].opname
    if name.startswith("POP_JUMP") and name.endswith("NONE"):
        return _operand(steps, place)[1] in ("self", "local")
    if name not in ("IS_OP", "CONTAINS_OP"):
        return True
    start, right = _operand(steps, place)
    _, left = _operand(steps, start)
    if name == "CONTAINS_OP":
        return left in ("None", "constant") and right in ("self", "local")
    return (left, right) in (("self", "None"), ("local", "None"), ("self", "constant"))


def _operand(steps: list[dis.Instruction], end: int) -> tuple[int, str]:
    """Return where the operand before a step begins, and what it is; "" where that is not seen."""
    start = end - 1
    while start > 0 and steps[start].opname == "LOAD_ATTR":
        start -= 1
    step = steps[max(start, 0)]
    if step.opname.startswith("LOAD_FAST") and isinstance(step.argval, str):
        if step.argval == "self":
            return start, "self"
        return start, "local" if start == end - 1 else ""  # x.grad of a placeholder is no None
    if step.opname == "LOAD_CONST" and start == end - 1:
        return start, "None" if step.argval is None else "constant"
    return start, ""
