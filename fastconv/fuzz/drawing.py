"""What every operator draws alike: element types, memory orders, and histories of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from .case import Case, Step
from .values import VALUES

__all__ = ["Calls", "Draw", "Options", "draw_calls", "draw_dtype", "draw_layout", "plain"]

Draw = Callable[[Any], Any]

_ORDERS = ("", "", "last", "fortran", "swapped")
_STEPS = ("", "", "", "sliced", "wide", "pitch")
_ONES = ("", "", "one0", "onehuge", "oneless", "oneitem")
_WAYS = ("", "", "", "negative", "flip")
_THREADS = ([1, 2, 3], [1], [3, 1], [2, 3, 1])


@dataclass(frozen=True, slots=True)
class Options:
    """What a run draws.

    Parameters
    ----------
    kernels : str
        "all" or "chosen".
    """

    kernels: str = "all"


@dataclass(slots=True)
class Calls:
    """The part of a case that all operators have in common."""

    steps: list[Step]
    layouts: dict[str, str]
    values: str
    seed: int

    def case(self, op: str, params: dict[str, Any], dtype: str) -> Case:
        """Return the whole case; parameters of None are an operator's own default."""
        return Case(op, params, dtype, self.values, self.seed, self.layouts, self.steps)


def plain(values: Sequence[int]) -> int | list[int]:
    """Return equal numbers as one."""
    return values[0] if len(set(values)) == 1 else list(values)


def draw_dtype(draw: Draw) -> str:
    """Draw an element type; the wide ones come more often."""
    return str(draw(st.sampled_from(("float32", "float32", "float64", "float16", "bfloat16"))))


def draw_layout(draw: Draw, ndim: int, output: bool = False) -> str:
    """Draw a layout's words."""
    words = [draw(st.sampled_from(each)) for each in (_ORDERS, _STEPS, _ONES, _WAYS)]
    if output:
        words.append(draw(st.sampled_from(("", "", "nan", "nan", "overlap"))))
    else:
        words.append(draw(st.sampled_from(("", "", "", "readonly"))))
        if draw(st.integers(0, 9)) == 9:
            words.append(f"zero{draw(st.integers(0, min(ndim - 1, 2)))}")
    if draw(st.integers(0, 15)) == 15:
        words.append("unaligned")
    return "+".join(word for word in words if word)


def _draw_step(
    draw: Draw, options: Options, optional: Sequence[str], weight: Sequence[str], ndim: int,
    objects: bool, out: bool,
) -> Step:  # fmt: skip
    layouts = {"input": draw_layout(draw, ndim)}
    for name in optional:
        if draw(st.booleans()):
            layouts[name] = draw_layout(draw, ndim)
    if out and draw(st.booleans()):
        layouts["out"] = draw_layout(draw, ndim, output=True)
    form = draw(st.sampled_from(("function", "object", "object", "copy"))) if objects else "function"
    kernel = "all" if options.kernels == "all" and draw(st.booleans()) else ""
    return Step(
        layouts={name: words for name, words in layouts.items() if words or name != "input"},
        form=form,
        kernel=kernel,
        precision=draw(st.sampled_from(("fast", "fast", "fast", "exact"))),
        threads=draw(st.sampled_from(_THREADS)),
        spoil=form != "function" and draw(st.integers(0, 3)) == 3,
    )


def draw_calls(
    draw: Draw,
    options: Options,
    params: dict[str, Any],
    dtype: str,
    *,
    sizes: Callable[[], dict[str, Any]] | None = None,
    optional: Sequence[str] = (),
    weight: Sequence[str] = (),
    ndim: int = 4,
    objects: bool = True,
    out: bool = True,
) -> Calls:
    """Draw what the arrays hold, how they lie, and the calls.

    Parameters
    ----------
    sizes : callable, optional
        Draws the parameters in which a later call may differ; without it there is one call.
    optional, weight : sequence of str
        Arguments that may be left out, of a call and of an object.
    ndim : int
        Axes of the input.
    objects, out : bool
        Whether the operator has an object, and an output argument.
    """
    values = draw(st.one_of(st.just("integers"), st.sampled_from(tuple(VALUES))))
    layouts = {}
    words = draw_layout(draw, ndim)
    if words:
        layouts["weight"] = words
    for name in weight:
        if draw(st.booleans()):
            layouts[name] = draw(st.sampled_from(("", "", "sliced", "negative", "unaligned")))
    count = 1 if sizes is None else draw(st.sampled_from((1, 1, 2, 2, 3, 5)))
    steps = []
    for number in range(count):
        step = _draw_step(draw, options, optional, weight, ndim, objects, out)
        if number and sizes is not None and draw(st.booleans()):
            step.params.update(sizes())
        steps.append(step)
    return Calls(steps, layouts, values, draw(st.integers(0, 3)))
