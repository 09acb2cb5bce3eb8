"""What both kinds of device tell their machine code of a problem, in the same words.

Every rank becomes three spatial axes (depth, height, width) by axes of size one in front, and an
activation a number.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.contract.problem import ConvProblem

__all__ = ["ACTIVATION_CODES", "LAST_CLAMP", "PRELU", "name_axes", "name_problem_axes"]

#: Codes of the activations in machine code; those that are a clamp come first.
ACTIVATION_CODES = {
    None: 0,
    "relu": 1,
    "relu6": 2,
    "leaky_relu": 3,
    "elu": 4,
    "silu": 5,
    "sigmoid": 6,
    "tanh": 7,
    "hardswish": 8,
    "gelu": 9,
    "prelu": 10,
}
#: Code of the last activation that is a clamp.
LAST_CLAMP = ACTIVATION_CODES["relu6"]
#: Code of the activation with a parameter for each channel.
PRELU = ACTIVATION_CODES["prelu"]


def name_axes(letter: str, values: Sequence[int], fill: int) -> dict[str, int]:
    """Return one value for each of depth, height and width, `fill` for axes that are not there.

    Examples
    --------
    >>> name_axes("k", (5, 3), fill=1)
    {'kd': 1, 'kh': 5, 'kw': 3}
    """
    whole = [fill] * (3 - len(values)) + list(values)
    return {f"{letter}{axis}": value for axis, value in zip("dhw", whole, strict=True)}


def name_problem_axes(problem: ConvProblem) -> dict[str, int]:
    """Return input and output size, kernel, stride, padding at the low side and dilation by axis.

    Their letters are i, o, k, s, p and d.
    """
    return (
        name_axes("i", problem.in_size, 1)
        | name_axes("o", problem.out_size, 1)
        | name_axes("k", problem.kernel_size, 1)
        | name_axes("s", problem.stride, 1)
        | name_axes("p", [low for low, _ in problem.padding], 0)
        | name_axes("d", problem.dilation, 1)
    )
