"""The arguments beside the arrays: checked, and brought into one form each.

A canonical form holds nothing but Python's integers, floats, strings and tuples, so it is a key of
a cache: two of them are equal only where they mean the same, which 1, 1.0 and True do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ArgumentError, DTypeError, ShapeError
from .padding import as_index, canonical_padding
from .problem import DTYPES, INTEGERS
from .spec import ACTIVATIONS

if TYPE_CHECKING:
    import inspect

__all__ = [
    "PRELU",
    "Activation",
    "Padding",
    "PaddingMode",
    "Sizes",
    "bind_call",
    "canonical_activation",
    "canonical_arguments",
    "canonical_dtype",
    "flag",
    "is_plain",
    "parse_activation",
    "per_axis",
    "real_number",
    "whole_number",
]

Sizes = int | Sequence[int]
PaddingMode = str | tuple[str, float]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
#: A name, or a pair of it and a number: an array of one for each output channel where it is prelu.
Activation = str | tuple[str, Any] | None
#: What stands for prelu where its slopes are told beside: this object, and none that equals it.
PRELU: Activation = ("prelu", 0.0)


def is_plain(arguments: tuple[Any, ...]) -> bool:
    """Tell whether arguments are nothing but integers and tuples of them, or of their pairs.

    Such arguments are equal only where they mean the same: 1.0 and True, equal to 1, are no
    integers here.
    """
    for value in arguments:
        if type(value) is int:
            continue
        if type(value) is not tuple:
            return False
        for entry in value:
            if type(entry) is int:
                continue
            if type(entry) is not tuple:
                return False
            for number in entry:
                if type(number) is not int:
                    return False
    return True


def canonical_arguments(ndim: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check stride, padding, dilation and groups and return them as integers, tuples and words.

    So is the result's element type, where it stands behind them.
    """
    stride, padding, dilation, groups, *result = arguments
    return (
        per_axis("stride", stride, ndim),
        canonical_padding(padding, ndim),
        per_axis("dilation", dilation, ndim),
        whole_number("groups", groups),
        *map(canonical_dtype, result),
    )


def canonical_dtype(dtype: Any) -> str:
    """Return the name of a result's element type, told as a name, a type or a dtype of NumPy's."""
    known = (*DTYPES, *INTEGERS)
    try:
        name = str(dtype) if isinstance(dtype, str) and dtype in known else np.dtype(dtype).name
    except (TypeError, ValueError):
        name = ""
    if dtype is None or name not in known:
        raise DTypeError(f"out_dtype: got {dtype!r}, want one of {', '.join(known)}")
    return name


def whole_number(name: str, value: Any) -> int:
    """Return an integer of any type as Python's."""
    number = as_index(value)
    if number is None:
        raise ShapeError(f"{name}: got {value!r}, want a whole number")
    return number


def real_number(name: str, value: Any) -> float:
    """Return a real number of any type as Python's."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise ArgumentError(f"{name}: got {value!r}, want a number")
    if isinstance(value, np.complexfloating):
        raise ArgumentError(f"{name}: got {value!r}, want a real number")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(f"{name}: got a number beyond float64, want one within it") from None


def flag(name: str, value: Any) -> bool:
    """Return what is true or false as Python's."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name}: got {value!r}, want True or False")
    return bool(value)


def per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return one whole number an axis; a sequence of one number stands for all axes."""
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, ndim):
            raise ShapeError(f"{name}: got {len(value)} values {value!r}, want 1 or {ndim}")
        entries = tuple(whole_number(name, entry) for entry in value)
        return entries if len(entries) == ndim else entries * ndim
    return (whole_number(name, value),) * ndim


def bind_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    """Return the arguments of a call that is not made, by their names."""
    import inspect

    try:
        return inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ArgumentError(f"arguments: {error}, want those of a call of {name}") from None


def parse_activation(activation: Activation) -> tuple[str | None, float]:
    """Return an activation's name and parameter."""
    if activation is None:
        return None, 0.0
    if activation is PRELU:
        return "prelu", 0.0
    given: Any = activation if isinstance(activation, tuple) else (activation, None)
    if len(given) != 2 or not isinstance(given[0], str):
        raise ArgumentError(
            f"activation: got {activation!r}, want None, a name or a pair of a name and a number"
        )
    name, alpha = given
    if name == "prelu":
        raise ArgumentError(
            "activation: got 'prelu', want a name or, where an operator takes slopes by channel, "
            "('prelu', slopes) with an array of one slope for each output channel"
        )
    if name not in ACTIVATIONS:
        raise ArgumentError(
            f"activation: got {name!r}, want None or one of {', '.join(ACTIVATIONS)}"
        )
    if alpha is None:
        return name, ACTIVATIONS[name].default
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"activation: got the parameter {alpha!r} for {name}, want a number")
    try:
        number = float(alpha)
    except OverflowError:
        raise ArgumentError(
            f"activation: got a parameter beyond float64 for {name}, want a number within it"
        ) from None
    if not ACTIVATIONS[name].parameter and number != ACTIVATIONS[name].default:
        having = [known for known, kind in ACTIVATIONS.items() if kind.parameter]
        raise ArgumentError(
            f"activation: got the parameter {alpha!r} for {name}, which has none; "
            f"{' and '.join(having)} have one"
        )
    return name, number


def canonical_activation(activation: Activation) -> Activation:
    """Return an activation as one that is equal only to those that mean the same."""
    if type(activation) is tuple and tuple(map(type, activation)) == (str, float):
        return activation
    name, alpha = parse_activation(activation)
    return None if name is None else (name, alpha)
