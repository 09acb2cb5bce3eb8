"""Problem lines of operators without a weight: written and read by the metadata of their fields.

``--op=max_pool ic64ih112oh56kh3sh2ph1``: flags first, then keys and numbers as for convolutions.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from .array_problem import ARRAY_OPS, ArrayProblem
from .errors import ShapeError
from .problem import LAYOUTS

__all__ = ["format_array_line", "problem_class", "read_array_line"]

_AXES = "dhw"


def problem_class(op: str) -> type[ArrayProblem]:
    """Return the class of an operator's problems."""
    module, _, name = ARRAY_OPS[op].partition(":")
    found: type[ArrayProblem] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return found


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.metadata]


def _written(value: Any) -> str:
    """Return an option's value in words: numbers of a tuple stand between ``x``."""
    if isinstance(value, bool):
        return str(int(value))
    return "x".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def format_array_line(problem: Any, name: str = "") -> str:
    """Return a problem as one line; `read_array_line` reads it back."""
    flags, keys = [f"--op={problem.op} "], []
    if problem.dtype != "float32":
        flags.append(f"--dt={problem._element_types[problem.dtype]} ")
    if problem.layout != "channels_first":
        flags.append(f"--tag={LAYOUTS[problem.layout]} ")
    for field in _fields(problem):
        value, told = getattr(problem, field.name), field.metadata
        if "flag" in told:
            if value != field.default:
                flags.append(f"--{field.name}={_written(value)} ")
        elif "key" in told:
            if value != field.default or told["key"] == "ic":
                keys.append(f"{told['key']}{value}")
        else:
            keys.append(_written_sizes(told["letter"], value, told["default"]))
    return "".join(flags) + "".join(keys) + (f'n"{name}"' if name else "")


def _written_sizes(letter: str, values: tuple[int, ...], default: int | None) -> str:
    shift = letter == "d"  # benchdnn counts a dilation from zero
    values, axes = tuple(value - shift for value in values), _AXES[3 - len(values) :]
    if not values or all(value + shift == default for value in values):
        return ""
    if len(set(values)) == 1:
        return f"{letter}{axes[0]}{values[0]}"  # the other axes copy the first
    return "".join(f"{letter}{axis}{value}" for axis, value in zip(axes, values, strict=True))


def read_array_line(
    op: str, flags: dict[str, str], values: dict[str, int], where: dict[str, str], text: str
) -> ArrayProblem:
    """Return the problem of a line that was taken apart.

    Parameters
    ----------
    op : str
        A key of `ARRAY_OPS`.
    flags, values : dict
        Flags beside those that every line may have, and numbers by key.
    where : dict
        ``dtype`` and ``layout``.
    text : str
        The line, for messages.
    """
    kind = problem_class(op)
    axes = next((_AXES[i:] for i in range(3) if f"i{_AXES[i]}" in values), "")
    made: dict[str, Any] = {"op": op, **where}
    for field in _fields(kind):
        told = field.metadata
        if "flag" in told:
            if field.name in flags:
                made[field.name] = _read(field, flags.pop(field.name))
        elif "key" in told:
            if told["key"] in values:
                made[field.name] = values.pop(told["key"])
        else:
            made[field.name] = _take_sizes(values, told["letter"], told["default"], axes)
    wanted = ", ".join(_names(kind))
    if flags or values:
        unknown = [*(f"--{name}" for name in flags), *values]
        raise ShapeError(
            f"problem line: got {', '.join(unknown)} in {text!r}, want --op={op} with {wanted}"
        )
    return kind(**made)


def _take_sizes(
    values: dict[str, int], letter: str, default: int | None, axes: str
) -> tuple[int, ...]:
    """Take the numbers of a letter: a missing width copies the height, a missing height the depth.

    They are empty where there is none, and the problem takes its default.
    """
    if not any(f"{letter}{axis}" in values for axis in axes):
        return ()
    shift, copied = int(letter == "d"), default
    sizes = []
    for axis in axes:
        if f"{letter}{axis}" in values:
            copied = values.pop(f"{letter}{axis}") + shift
        if copied is None:
            raise ShapeError(f"problem line: got no {letter}{axis}, which no axis before it tells")
        sizes.append(copied)
    return tuple(sizes)


def _read(field: dataclasses.Field[Any], word: str) -> Any:
    """Return an option's value of its default's type."""
    default: Any = field.default
    try:
        if isinstance(default, bool):
            return bool(int(word))
        if isinstance(default, tuple):
            return tuple(float(part) for part in word.split("x"))
        return type(default)(word)
    except ValueError:
        raise ShapeError(
            f"problem line: got --{field.name}={word}, want a value like {_written(default)}"
        ) from None


def _names(kind: Any) -> list[str]:
    """Return the flags and keys of a class's lines, for messages."""
    names = []
    for field in _fields(kind):
        told = field.metadata
        if "flag" in told:
            names.append(f"--{field.name}=")
        else:
            key = told.get("key") or f"{told['letter']}d, {told['letter']}h, {told['letter']}w"
            names.append(f"{key} ({field.name})")
    return names
