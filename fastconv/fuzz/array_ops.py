"""What the operators without a weight draw, and are compared with, alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import fastconv
import fastconv.grad as grad
from fastconv.kernels import reference
from fastconv.ops.telling import told

from .case import Case
from .drawing import Draw, Options, draw_calls, draw_dtype
from .operators import Operator, Params, Shapes

__all__ = ["array_gradient", "array_operator"]

#: Parameters that the shape of an input does not follow from, whatever a case says in their place.
_WINDOW = ("stride", "padding", "dilation")


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
    module: Any = fastconv,
    outputs: bool = True,
) -> Operator:
    """Return the fuzzer's view of a public function without a weight.

    Parameters
    ----------
    name : str
        Of the function.
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
    module
        Where the function is.
    outputs : bool
        Whether it takes ``out``, which may share memory with "input".
    """
    names = (*required, *optional)

    def call(arrays: dict[str, Any], params: Params) -> Any:
        return getattr(module, name)(**arrays, **keywords(params))

    def problem(arrays: dict[str, Any], params: Params) -> Any:
        given = {key: array for key, array in arrays.items() if key != "out"}
        return told(getattr(module, name), **given, **keywords(params))

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
        return 10.0 * taps * (math.prod(found[names[0]]) + math.prod(found.get("out", (0,))))

    def draw_case(draw: Draw, name: str, options: Options) -> Case:
        params = sizes(draw)
        calls = draw_calls(
            draw, options, name, sizes=None, optional=(*optional, *("out",) * outputs),
            ndim=len(shapes({**defaults, **params})[names[0]]),
        )  # fmt: skip
        if calls.values in spared:
            calls.values = "gaussian"
        return calls.case(name, params, draw_dtype(draw))

    return Operator(
        name=name, group=group, op=op, defaults=defaults, draw=draw_case, shapes=shapes,
        function=call, truth=truth or own_truth, problem=problem, work=work, required=required,
        rounds=rounds, bad=bad or {"input": "lone", "out": "output"},
    )  # fmt: skip


def array_gradient(
    name: str, *, op: str, defaults: Mapping[str, Any], shapes: Callable[[Params], Shapes],
    keywords: Callable[[Params], dict[str, Any]], sized: bool = True,
    bad: Mapping[str, str] | None = None, **told_alike: Any,
) -> Operator:  # fmt: skip
    """Return the fuzzer's view of the gradient of an operator that is linear in its input.

    Parameters
    ----------
    name : str
        Of the operator, whose drawing, shapes and keywords these are.
    op : str
        What the registry calls the gradient.
    sized : bool
        Whether the gradient is told the input's shape.
    """

    def swapped(params: Params) -> Shapes:
        forward = shapes(params)
        if "out" not in forward:
            return {"grad_output": forward["input"]}
        return {"grad_output": forward["out"], "out": forward["input"]}

    def with_size(params: Params) -> dict[str, Any]:
        if not sized:
            return keywords(params)
        usual = {key: defaults[key] for key in _WINDOW if key in defaults}
        return keywords(params) | {"input_size": shapes(params | usual)["input"]}

    own_bad = {key: kind for key, kind in (bad or {}).items() if key not in ("input", "out")}
    return array_operator(
        f"{name}_input", op=op, defaults=defaults, shapes=swapped, keywords=with_size,
        required=("grad_output",), module=grad,
        # Only a size tells how many axes the gradient has.
        bad=own_bad | {"grad_output": "lone" if sized else "type"},
        outputs=False, **told_alike,
    )  # fmt: skip
