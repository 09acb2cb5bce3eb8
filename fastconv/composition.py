"""Which dense convolutions and copies a convolution is made of, as `explain` tells of them."""

from __future__ import annotations

from typing import Any

from .contract import first_use
from .contract.boundary_problem import BoundaryProblem
from .contract.transposed_problem import TransposedProblem

__all__ = ["parts_of"]


def parts_of(
    problem: TransposedProblem | BoundaryProblem, packed: bool
) -> tuple[dict[Any, list[str]], str]:
    """Return each kind of part, with what each of its kind is, and a sentence about all.

    Parameters
    ----------
    problem : TransposedProblem or BoundaryProblem
        What is computed.
    packed : bool
        Whether the weight is packed once for many calls, or in each call.

    Examples
    --------
    >>> from fastconv.contract.problem_line import parse_any_line
    >>> kinds, note = parts_of(parse_any_line("--padding_mode=reflect ic4ih9oc4kh3ph1")[0], True)
    >>> note, list(kinds.values())
    ('the input is copied for all outputs', [['outputs [0:9, 0:9]'], ['copies (11, 11)']])
    """
    if isinstance(problem, BoundaryProblem):
        return _boundary_parts(problem, packed)
    return _phases(problem)


def _phases(problem: TransposedProblem) -> tuple[dict[Any, list[str]], str]:
    """Return each kind of dense convolution that a transposed one is made of, where each writes.

    And what they are.
    """
    kinds: dict[Any, list[str]] = {}
    stack = first_use.load("fastconv.ops.transposed_stack").find_stack(problem)
    if stack is not None:
        step = problem.stride[0]
        bands = problem.bands()
        for rows in bands:
            outputs = f"outputs [{rows.start * step}:{rows.stop * step}]"
            kinds.setdefault(problem.stacked(stack, rows), []).append(outputs)
        made = "product" if problem.is_product else "convolution of all phases of the stride"
        return kinds, (
            f"one {made}, whose channels are interleaved into pixels, by bands of samples: "
            f"{len(bands)}"
        )
    for phase in problem.phases():
        outputs = ", ".join(f"{each.start or 0}::{each.step or 1}" for each in phase.outputs)
        kinds.setdefault(problem.dense(phase), []).append(f"outputs [{outputs}]")
    count = sum(map(len, kinds.values()))
    return kinds, f"phases of the stride, each a dense convolution of stride 1: {count}"


def _boundary_parts(problem: BoundaryProblem, packed: bool) -> tuple[dict[Any, list[str]], str]:
    """Return each kind of dense convolution of one with a boundary mode, and of copy.

    And what they are.
    """
    calls = first_use.load("fastconv.ops.boundary_calls")
    parts = calls.choose_parts(problem, packed)
    kinds: dict[Any, list[str]] = {}
    for part in parts:
        span = ", ".join(f"{each.start}:{each.stop}" for each in part.outputs)
        turned = " turned" if part.turned else ""
        kinds.setdefault(problem.dense(part), []).append(f"outputs [{span}]{turned}")
    for part in parts:
        if not part.inside:
            copy = problem.copy(part)
            kinds.setdefault(copy, []).append(f"copies {copy.out_size}")
    if len(parts) > 1:
        return kinds, "outputs that read the input alone, and slabs around them, from copies"
    return kinds, f"the input is {'read as it is' if parts[0].inside else 'copied'} for all outputs"
