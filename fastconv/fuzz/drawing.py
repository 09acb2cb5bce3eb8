"""What every operator draws alike: element types, memory orders, and histories of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from .bad import ARRAYS, LONE, OUTPUTS
from .bad import VALUES as BAD_VALUES
from .case import Case, Step
from .operators import Operator, find_operator
from .values import VALUES

__all__ = [
    "Calls",
    "Draw",
    "Options",
    "draw_activation",
    "draw_calls",
    "draw_dtype",
    "draw_layout",
    "plain",
]

Draw = Callable[[Any], Any]

_ORDERS = ("", "", "last", "fortran", "swapped")
_STEPS = ("", "", "", "sliced", "wide", "pitch")
_ONES = ("", "", "one0", "onehuge", "oneless", "oneitem")
_WAYS = ("", "", "", "negative", "flip")
_THREADS = ([1, 2, 3], [1], [3, 1], [2, 3, 1])
_MOST_STEPS = 5
_FORMS = ("function", "object", "object", "copy")
_ACTIVATIONS = (
    "relu", ("leaky_relu", 0.25), "relu6", "leaky_relu", "elu", ("elu", 2.0), "silu", "sigmoid",
    "tanh", "hardswish", "gelu",
)  # fmt: skip


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
        """Return the whole case; parameters that are the operator's own defaults are left out."""
        defaults = find_operator(op).defaults
        told = {name: value for name, value in params.items() if value != defaults[name]}
        return Case(op, told, dtype, self.values, self.seed, self.layouts, self.steps)


def plain(values: Sequence[int]) -> int | list[int]:
    """Return equal numbers as one."""
    return values[0] if len(set(values)) == 1 else list(values)


def draw_dtype(draw: Draw) -> str:
    """Draw an element type; the wide ones come more often."""
    return str(draw(st.sampled_from(("float32", "float32", "float64", "float16", "bfloat16"))))


def draw_activation(draw: Draw) -> Any:
    """Draw an activation, or none."""
    activation = draw(st.one_of(st.none(), st.sampled_from(_ACTIVATIONS)))
    return list(activation) if isinstance(activation, tuple) else activation


def draw_layout(draw: Draw, ndim: int, output: bool = False) -> str:
    """Draw a layout's words."""
    words = [draw(st.sampled_from(choices)) for choices in (_ORDERS, _STEPS, _ONES, _WAYS)]
    if output:
        words.append(draw(st.sampled_from(("", "", "nan", "nan", "overlap"))))
    else:
        words.append(draw(st.sampled_from(("", "", "", "readonly"))))
        if draw(st.integers(0, 9)) == 9:
            words.append(f"zero{draw(st.integers(0, min(ndim - 1, 2)))}")
    if draw(st.integers(0, 15)) == 15:
        words.append("unaligned")
    return "+".join(word for word in words if word)


def _draw_bad(draw: Draw, operator: Operator, given: Sequence[str]) -> dict[str, Any]:
    """Draw one argument that must be refused, among those that the call has."""
    arrays = {*given, *(name for name in operator.weights if name.endswith("weight"))}
    kinds = {
        name: kind
        for name, kind in operator.bad.items()
        if kind not in ("array", "lone", "output") or name in arrays
    }
    name = draw(st.sampled_from(sorted(kinds)))
    by_kind: dict[str, Sequence[Any]] = {
        "array": tuple(ARRAYS),
        "lone": LONE,
        "output": (*ARRAYS, *OUTPUTS),
        **BAD_VALUES,
    }
    values = by_kind[kinds[name]]
    if name in ("out", "residual"):
        values = [value for value in values if value != "none"]
    return {name: draw(st.sampled_from(values))}


def _draw_step(
    draw: Draw, options: Options, operator: Operator, optional: Sequence[str], ndim: int
) -> Step:
    layouts = {name: draw_layout(draw, ndim) for name in operator.required}
    for name in optional:
        if draw(st.booleans()):
            layouts[name] = draw_layout(draw, ndim, output=name == "out")
    form = "function" if operator.make is None else draw(st.sampled_from(_FORMS))
    bad = {}
    if operator.bad and draw(st.integers(0, 11)) == 11:
        form, bad = "function", _draw_bad(draw, operator, tuple(layouts))
    return Step(
        layouts={
            name: words for name, words in layouts.items() if words or name not in operator.required
        },
        form=form,
        kernel="all" if options.kernels == "all" and not bad and draw(st.booleans()) else "",
        precision=draw(st.sampled_from(("fast", "fast", "fast", "exact"))),
        threads=draw(st.sampled_from(_THREADS)),
        spoil=form != "function" and draw(st.integers(0, 3)) == 3,
        bad=bad,
    )


def draw_calls(
    draw: Draw,
    options: Options,
    name: str,
    *,
    sizes: Callable[[Draw], dict[str, Any]] | None = None,
    optional: Sequence[str] = (),
    optional_weights: Sequence[str] = (),
    ndim: int = 4,
    weight_ndim: int = 4,
) -> Calls:
    """Draw what the arrays hold, how they lie, and the calls.

    Parameters
    ----------
    options : Options
        What the run draws.
    name : str
        The operator.
    sizes : callable, optional
        Draws the parameters in which calls may differ; without it there is one call.
    optional, optional_weights : sequence of str
        Array arguments that may be left out, of a call and of an object.
    ndim, weight_ndim : int
        Axes of the input and of the weight.
    """
    operator = find_operator(name)
    values = draw(st.one_of(st.just("integers"), st.sampled_from(tuple(VALUES))))
    layouts = {}
    words = draw_layout(draw, weight_ndim) if operator.weights else ""
    if words:
        layouts["weight"] = words
    for name in optional_weights:
        if draw(st.booleans()):
            layouts[name] = draw(st.sampled_from(("", "", "sliced", "negative", "unaligned")))

    @st.composite
    def steps_of(draw: Draw) -> Step:  # one strategy, so that a step is left out as a whole
        step = _draw_step(draw, options, operator, optional, ndim)
        if sizes is not None and draw(st.integers(0, 2)) == 2:
            step.params.update(sizes(draw))
        return step

    most = 1 if sizes is None else _MOST_STEPS
    steps = draw(st.lists(steps_of(), min_size=1, max_size=most))
    return Calls(steps, layouts, values, draw(st.integers(0, 3)))
