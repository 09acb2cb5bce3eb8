"""What the operators without a weight draw, and are compared with, alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import fastconv
from fastconv.kernels import reference
from fastconv.ops.telling import told

from .case import Case
from .drawing import Draw, Options, draw_calls, draw_dtype
from .operators import Operator, Params, Shapes

__all__ = ["array_operator"]


def array_operator(
    name: str,
    *,
    op: str,
    axes: int | None,
    defaults: Mapping[str, Any],
    sizes: Callable[[Draw], dict[str, Any]],
    shapes: Callable[[Params], Shapes],
    keywords: Callable[[Params], dict[str, Any]],
    required: tuple[str, ...] = ("input",),
    optional: tuple[str, ...] = (),
    bad: Mapping[str, str] | None = None,
    truth: Callable[[dict[str, Any], Params], Any] | None = None,
    rounds: bool = False,
    group: str = "array",
    spared: tuple[str, ...] = (),
) -> Operator:
    """Return the fuzzer's view of a public function without a weight.

    Parameters
    ----------
    name : str
        Of the function, below `fastconv`.
    op : str
        What the registry calls it.
    axes : int or None
        Spatial axes of a function that takes its arrays without a batch, too.
    defaults : mapping
        As for `Operator`.
    sizes : callable
        ``sizes(draw)`` draws all parameters.
    shapes, keywords : callable
        From parameters: shapes of the arrays by argument, and what stands beside them in a call.
    required, optional : tuple of str
        Arguments that are arrays, in the order of the problem's inputs.
    truth : callable, optional
        As for `Operator`, where the problem has other shapes than the arrays of a call.
    bad, rounds, group
        As for `Operator`.
    spared : tuple of str
        Kinds of values that the operator's own arithmetic takes beyond the element type: powers of
        huge numbers, which are infinite by its definition.
    """
    names = (*required, *optional)

    def call(arrays: dict[str, Any], params: Params) -> Any:
        return getattr(fastconv, name)(**arrays, **keywords(params))

    def problem(arrays: dict[str, Any], params: Params) -> Any:
        given = {key: array for key, array in arrays.items() if key != "out"}
        return told(getattr(fastconv, name), **given, **keywords(params))

    def own_truth(arrays: dict[str, Any], params: Params) -> Any:
        of = problem(arrays, params)
        given = [arrays[key] for key in names if key in arrays]
        unbatched = given[0].ndim < len(of.inputs[0].shape)
        if axes is not None:
            unbatched = given[0].ndim == axes + 1
        if unbatched:
            # What has a batch is what the problem's own operands have one more axis for.
            given = [
                array[None] if array.ndim < len(operand.shape) else array
                for array, operand in zip(given, of.inputs, strict=True)
            ]
        args, told_by_name = of.arguments(given)
        made = getattr(reference, of.op)(*args, **told_by_name)
        made = made[0] if isinstance(made, tuple) else made
        return made[0] if unbatched else made

    def work(found: Shapes, params: Params) -> float:
        taps = math.prod(params["kernel"]) if isinstance(params.get("kernel"), list) else 1
        return 10.0 * taps * (math.prod(found["input"]) + math.prod(found.get("out", (0,))))

    def draw_case(draw: Draw, name: str, options: Options) -> Case:
        params = sizes(draw)
        calls = draw_calls(
            draw, options, name, sizes=None, optional=(*optional, "out"),
            ndim=len(shapes({**defaults, **params})["input"]),
        )  # fmt: skip
        if calls.values in spared:
            calls.values = "gaussian"
        return calls.case(name, params, draw_dtype(draw))

    return Operator(
        name=name, group=group, op=op, defaults=defaults, draw=draw_case, shapes=shapes,
        function=call, truth=truth or own_truth, problem=problem, work=work, required=required,
        rounds=rounds, bad=bad or {"input": "lone", "out": "output"},
    )  # fmt: skip
