"""Dense convolutions: the functional forms and the objects of one to three axes."""

from __future__ import annotations

import functools
import math
from typing import Any

import fastconv
from fastconv.contract.boundary_problem import canonical_mode, check_pads
from fastconv.contract.errors import ShapeError
from fastconv.contract.problem import INTEGERS
from fastconv.dense_problem import make_problem
from fastconv.kernels import reference
from fastconv.trim import trim

from . import truth
from .activations import as_argument
from .case import Case
from .operators import Operator, Params, Shapes

__all__ = [
    "BAD",
    "DEFAULTS",
    "OPERATORS",
    "axes_of",
    "can_pad",
    "conv_shapes",
    "fixed",
    "keywords",
    "pad_input",
    "pads_of",
    "window_arguments",
]

DEFAULTS = {
    "batch": 1,
    "channels": 1,
    "filters": 1,
    "groups": 1,
    "size": 1,
    "kernel": 1,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "padding_mode": "zeros",
    "activation": None,
}

#: Elements of a padded input above which the reference is not asked.
_MOST_PADDED = 1 << 22


def axes_of(value: Any, ndim: int) -> tuple[int, ...]:
    """Return one number an axis."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * ndim


def pads_of(params: Params, ndim: int) -> tuple[tuple[int, int], ...]:
    """Return the zeros before and after each axis, in whichever way a case says them."""
    padding = params["padding"]
    if padding == "same":
        holes, kernel = axes_of(params["dilation"], ndim), axes_of(params["kernel"], ndim)
        totals = [hole * (taps - 1) for hole, taps in zip(holes, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if padding == "valid":
        return ((0, 0),) * ndim
    axes: tuple[Any, ...] = axes_of(padding, ndim)
    return tuple((pads, pads) if isinstance(pads, int) else (pads[0], pads[1]) for pads in axes)


def can_pad(mode: Any, size: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> bool:
    """Tell whether a boundary mode can make these pads of an input."""
    if mode == "zeros":
        return True
    try:
        check_pads(pads, size, canonical_mode(fixed(mode))[0])
    except ShapeError:
        return False
    return True


def pad_input(x: Any, params: Params, ndim: int) -> Any:
    """Return an input with the boundary of its mode around it."""
    mode, value = canonical_mode(fixed(params["padding_mode"]))
    unbatched, pads = x.ndim == ndim + 1, pads_of(params, ndim)
    x = x[None] if unbatched else x
    size = tuple(n + sum(sides) for n, sides in zip(x.shape[2:], pads, strict=True))
    low = tuple(before for before, _ in pads)
    made = reference.pad(x, padding=low, out_size=size, mode=mode, value=value)
    return made[0] if unbatched else made


def window_arguments(params: Params, ndim: int) -> dict[str, Any]:
    """Return stride, padding and dilation with one entry an axis, and the groups."""
    return {
        "stride": axes_of(params["stride"], ndim),
        "padding": pads_of(params, ndim),
        "dilation": axes_of(params["dilation"], ndim),
        "groups": params["groups"],
    }


def _out_size(params: Params, ndim: int) -> tuple[int, ...]:
    told = window_arguments(params, ndim)
    sizes, kernel = axes_of(params["size"], ndim), axes_of(params["kernel"], ndim)
    return tuple(
        (n + low + high - d * (k - 1) - 1) // s + 1
        for n, (low, high), d, k, s in zip(
            sizes, told["padding"], told["dilation"], kernel, told["stride"], strict=True
        )
    )


def _is_valid(ndim: int, params: Params) -> bool:
    told = window_arguments(params, ndim)
    pads = [zeros for pair in told["padding"] for zeros in pair]
    if min(told["stride"]) < 1 or min(told["dilation"]) < 1 or min(pads) < 0:
        return False
    if params["padding"] == "same" and max(told["stride"]) > 1:
        return False
    if not can_pad(params["padding_mode"], axes_of(params["size"], ndim), told["padding"]):
        return False
    return min(_out_size(params, ndim)) >= 1


def conv_shapes(ndim: int, params: Params) -> Shapes:
    """Return the shapes of a convolution's arrays."""
    batch = () if params["batch"] is None else (params["batch"],)
    filters = params["filters"] * params["groups"]
    shapes = {
        "input": (*batch, params["channels"] * params["groups"], *axes_of(params["size"], ndim)),
        "weight": (filters, params["channels"], *axes_of(params["kernel"], ndim)),
        "bias": (filters,),
    }
    if _is_valid(ndim, params):
        shapes["residual"] = shapes["out"] = (*batch, filters, *_out_size(params, ndim))
    return shapes


def _draw(ndim: int, draw: Any, name: str, options: Any) -> Case:
    from . import dense_draw

    return dense_draw.draw_case(ndim, draw, name, options)


def fixed(value: Any) -> Any:
    """Return the lists of JSON as tuples."""
    return tuple(map(fixed, value)) if isinstance(value, list) else value


def keywords(params: Params, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments beside the arrays, as a caller gives them."""
    told = {name: fixed(params[name]) for name in ("stride", "padding", "dilation", "groups")}
    activation = as_argument(params["activation"], params["filters"], params["groups"], arrays)
    return told | {"activation": activation} | _result(params)


def _result(params: Params) -> dict[str, Any]:
    """Return the keyword for the output's element type, where it is told."""
    return {"out_dtype": params["out_dtype"]} if params.get("out_dtype") is not None else {}


def _element_type(name: str, dtype: str, params: Params) -> str:
    """Return the element type of an argument: integers have weights of float32."""
    of_weight = "float32" if dtype in INTEGERS else dtype
    if name in ("residual", "out"):
        return params.get("out_dtype") or of_weight
    return dtype if name == "input" else of_weight


def _all_keywords(params: Params, arrays: dict[str, Any]) -> dict[str, Any]:
    return keywords(params, arrays) | {"padding_mode": fixed(params["padding_mode"])}


def _function(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    call = getattr(fastconv, f"conv{ndim}d")
    return call(**arrays, **_all_keywords(params, arrays))


def _make(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    return getattr(fastconv, f"Conv{ndim}d")(**arrays, **_all_keywords(params, arrays))


def _truth(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    if params["padding_mode"] != "zeros":
        padded = pad_input(arrays["input"], params, ndim)
        unpadded = {"padding": 0, "padding_mode": "zeros"}
        return _truth(ndim, {**arrays, "input": padded}, {**params, **unpadded})
    told = window_arguments(params, ndim)
    x = arrays["input"]
    unbatched = x.ndim == ndim + 1
    if unbatched:
        x = x[None]
    padded = math.prod(
        size + sum(pair) for size, pair in zip(x.shape[2:], told["padding"], strict=True)
    )
    conv = reference.conv if padded * x.shape[1] <= _MOST_PADDED else truth.conv
    sums = conv(x, arrays["weight"], **told)
    if "bias" in arrays:
        sums += arrays["bias"].reshape(-1, *(1,) * ndim)
    if "residual" in arrays:
        sums += arrays["residual"][None] if unbatched else arrays["residual"]
    return sums[0] if unbatched else sums


def _problem(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    """Return what is dispatched; with a boundary mode that is done for the parts of a call."""
    if params["padding_mode"] != "zeros":
        return None
    x = arrays["input"]
    told = keywords(params, arrays)
    given = tuple(told[name] for name in ("stride", "padding", "dilation", "groups"))
    given += tuple(_result(params).values())
    problem = make_problem(ndim, x[None] if x.ndim == ndim + 1 else x, arrays["weight"], given)
    return trim(problem)[0]  # as kernels see it


def _work(shapes: Shapes, params: Params) -> float:
    return 2.0 * math.prod(shapes.get("out", (0,))) * math.prod(shapes["weight"][1:])


BAD = {
    "stride": "positive",
    "padding": "pads",
    "padding_mode": "mode",
    "dilation": "positive",
    "groups": "count",
    "activation": "activation",
    "input": "array",
    "weight": "array",
    "bias": "array",
    "residual": "array",
    "out": "output",
}


def _operator(ndim: int) -> Operator:
    def bind(function: Any) -> Any:
        return functools.partial(function, ndim)

    return Operator(
        name=f"conv{ndim}d",
        group="dense",
        op="conv",
        defaults=DEFAULTS | {"out_dtype": None},
        draw=bind(_draw),
        shapes=bind(conv_shapes),
        function=bind(_function),
        truth=bind(_truth),
        problem=bind(_problem),
        work=_work,
        make=bind(_make),
        weights=("weight", "bias"),
        channels=-1 - ndim,
        inside=True,
        bad=BAD | {"out_dtype": "element"},
        element_type=_element_type,
    )


OPERATORS = tuple(map(_operator, (1, 2, 3)))
