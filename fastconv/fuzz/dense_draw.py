"""How dense convolutions are drawn: mostly small, sometimes at the ends of the range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from fastconv.contract.problem import INTEGERS

from .case import Case
from .dense import can_pad
from .drawing import Draw, Options, draw_activation, draw_calls, draw_dtype, plain
from .operators import find_operator

__all__ = ["draw_case"]

_FEW = st.sampled_from((1, 2, 3, 4, 5, 6, 8, 9))
_CHANNELS = st.one_of(st.just(1), _FEW, st.sampled_from((12, 16, 17, 24, 32, 33, 48, 64, 70)))
_TAPS = st.one_of(
    st.sampled_from((1, 3, 3, 2, 5)), st.sampled_from((1, 3, 7, 4, 5)), st.integers(1, 11)
)
_SIZES = st.one_of(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.sampled_from((56, 65, 97))
)
_WIDE = st.sampled_from((9, 13, 15, 21, 31))
_LONG = st.one_of(st.integers(10**5, 10**6), st.integers(10**6, 10**7))
_FAR = st.one_of(
    st.sampled_from((2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40)),
    st.integers(4, 40).map(lambda power: 2**power),
)
_MODES = ("reflect", "symmetric", "replicate", "circular", ["constant", 1.0])
_MOST_PAD = 200
#: Multiply-adds of a case that is not a long one.
_MOST_WORK = 1 << 20


def _channels(draw: Draw) -> dict[str, Any]:
    kind = draw(st.sampled_from(("dense", "depthwise", "grouped")))
    if kind == "depthwise":
        return {"groups": draw(_CHANNELS), "filters": draw(st.sampled_from((1, 1, 2, 3)))}
    groups = 1 if kind == "dense" else draw(st.integers(2, 4))
    return {"groups": groups, "channels": draw(_CHANNELS), "filters": draw(_CHANNELS)}


def _far_axis(draw: Draw, size: int, taps: int) -> tuple[int, tuple[int, int], int]:
    """Draw stride, pads and dilation of which one at least is far beyond the input."""
    far = draw(_FAR)
    kind = draw(st.sampled_from(("dilation", "padding", "stride", "low", "edge")))
    if kind == "stride":
        return far, (draw(st.integers(0, taps)), taps), 1
    if kind == "padding":  # few windows over a long run of zeros
        return max(1, far // draw(st.integers(1, 9))), (far, draw(st.integers(0, 9))), 1
    if kind == "low":
        return max(1, far // 3), (draw(st.integers(0, 9)), far), draw(st.integers(1, 3))
    total = far * (taps - 1)
    if kind == "edge":  # the last tap alone is inside
        return 1, (total, 0), far
    return 1, (total // 2, total - total // 2), far


def _near_axis(draw: Draw, size: int, taps: int) -> tuple[int, tuple[int, int], int]:
    stride = draw(st.sampled_from((1, 1, 1, 2, 3, 4, 7)))
    dilation = draw(st.sampled_from((1, 1, 1, 2, 3, 5, 12)))
    return _padded_axis(draw, size, taps, stride, dilation)


def _unit_axis(draw: Draw, size: int, taps: int) -> tuple[int, tuple[int, int], int]:
    """Draw the pads of an axis as transforms take it."""
    return _padded_axis(draw, size, taps, 1, 1)


def _padded_axis(
    draw: Draw, size: int, taps: int, stride: int, dilation: int
) -> tuple[int, tuple[int, int], int]:
    reach = dilation * (taps - 1)
    low = draw(st.sampled_from((0, reach // 2, reach, 1, 3)))
    high = draw(st.sampled_from((low, 0, reach - reach // 2, low + 2)))
    short = reach + 1 - size - low - high
    return stride, (low + max(0, short), high), dilation


def _work(params: dict[str, Any], sizes: Sequence[int], kernel: Sequence[int]) -> int:
    channels = params.get("channels", 1) * params.get("groups", 1) * params.get("filters", 1)
    return channels * math.prod(sizes) * math.prod(kernel)


def _outputs(axis: tuple[int, tuple[int, int], int], size: int, taps: int) -> int:
    stride, pads, dilation = axis
    return int((size + sum(pads) - dilation * (taps - 1) - 1) // stride + 1)


def draw_case(
    ndim: int, draw: Draw, name: str, options: Options,
    optional: tuple[str, ...] = ("residual", "out"), optional_weights: tuple[str, ...] = ("bias",),
) -> Case:  # fmt: skip
    """Draw a case of a dense convolution, or of its gradients, which take other arrays."""
    flavours = ("near", "near", "near", "wide", "far", "long")
    # The reference of a gradient pads its input, however far.
    flavour = draw(st.sampled_from(flavours if "out" in optional else flavours[:4]))
    params = _channels(draw)
    kernel = [draw(_TAPS)] * ndim
    if draw(st.integers(0, 2)) == 2:
        kernel = [draw(_TAPS) for _ in range(ndim)]
    if flavour == "wide":
        params = {"groups": draw(_FEW), "channels": draw(st.sampled_from((1, 1, 2, 3)))}
        kernel = [draw(_WIDE)] * min(ndim, 2) + [1] * (ndim - 2)
    long_axis = draw(st.integers(0, ndim - 1)) if flavour == "long" else -1
    if flavour == "long":
        params = {"groups": draw(st.sampled_from((1, 2))), "filters": draw(st.sampled_from((1, 2)))}
        kernel = [draw(st.integers(1, 64)) if n == long_axis else 1 for n in range(ndim)]
    near = st.integers(20, 70) if flavour == "wide" else _SIZES
    sizes = [draw(_LONG if n == long_axis else near) for n in range(ndim)]
    if flavour == "long":
        sizes = [size if n == long_axis else 1 for n, size in enumerate(sizes)]
    # Any axis may be far; but only where all of them are plain is a transform able.
    plainly = flavour == "wide" and draw(st.booleans())
    axes = [
        (
            _unit_axis if plainly
            else _far_axis if flavour == "far" and draw(st.booleans())
            else _near_axis
        )(draw, size, taps)
        for size, taps in zip(sizes, kernel, strict=True)
    ]  # fmt: skip
    _keep_small(params, sizes, kernel, axes, flavour)
    params["padding_mode"] = _draw_mode(draw, sizes, [pads for _, pads, _ in axes])
    params |= {
        "size": plain(sizes),
        "kernel": plain(kernel),
        "stride": plain([stride for stride, _, _ in axes]),
        "padding": _spelling(draw, axes, kernel),
        "dilation": plain([dilation for _, _, dilation in axes]),
    }
    if flavour != "long":
        params["batch"] = draw(st.sampled_from((1, 2, 3, None, 0)))
        if "out" in optional:
            params["activation"] = draw_activation(draw)
        elif params["batch"] is None:  # gradients have neither
            params["batch"] = 1
    dtype = draw_dtype(draw)
    if "out_dtype" in find_operator(name).defaults and draw(st.integers(0, 4)) == 4:
        dtype = draw(st.sampled_from(("float32", *INTEGERS)))
        params["out_dtype"] = draw(st.sampled_from((None, "float32", *INTEGERS)))
    calls = draw_calls(
        draw, options, name,
        sizes=None if flavour == "long" or "out" not in optional
        else lambda draw: _other_size(draw, params, ndim),
        optional=optional, optional_weights=optional_weights, ndim=ndim + 2,
        weight_ndim=ndim + 2,
    )  # fmt: skip
    return calls.case(name, params, dtype)


def _keep_small(
    params: dict[str, Any], sizes: list[int], kernel: list[int], axes: list[Any], flavour: str
) -> None:
    """Cut channels and then sizes until a case takes little work; pads follow."""
    most = _MOST_WORK * {"long": 16, "wide": 8}.get(flavour, 1)
    while True:
        outputs = [_outputs(*axis) for axis in zip(axes, sizes, kernel, strict=True)]
        if _work(params, [max(pair) for pair in zip(outputs, sizes, strict=True)], kernel) <= most:
            return
        largest = max(("channels", "filters", "groups"), key=lambda key: params.get(key, 1))
        if params.get(largest, 1) > 4:
            params[largest] //= 2
            continue
        axis = max(range(len(sizes)), key=lambda n: max(outputs[n], sizes[n]))
        stride, (low, high), dilation = axes[axis]
        if outputs[axis] > 2 * sizes[axis] + 8:
            stride *= 2
        else:
            low += sizes[axis] - sizes[axis] // 2 if low + high else 0
            sizes[axis] = max(1, sizes[axis] // 2)
            short = dilation * (kernel[axis] - 1) + 1 - sizes[axis] - low - high
            low += max(0, short)
            stride *= 2 if outputs[axis] > sizes[axis] else 1
        axes[axis] = (stride, (low, high), dilation)


def _draw_mode(draw: Draw, sizes: list[int], pads: list[tuple[int, int]]) -> Any:
    """Draw a boundary mode, mostly one that can make the pads."""
    mode = draw(st.one_of(st.just("zeros"), st.sampled_from(_MODES)))
    if max(map(max, pads)) > _MOST_PAD:  # a reference pads as far
        return "zeros"
    if can_pad(mode, tuple(sizes), tuple(pads)) or not draw(st.integers(0, 7)):
        return mode
    return "replicate"


def _spelling(draw: Draw, axes: list[Any], kernel: list[int]) -> Any:
    """Return the pads as an int, an int an axis, pairs or 'same', whichever says them."""
    pairs = [list(pads) for _, pads, _ in axes]
    totals = [hole * (taps - 1) for (_, _, hole), taps in zip(axes, kernel, strict=True)]
    same = [[total // 2, total - total // 2] for total in totals]
    if pairs == same and all(stride == 1 for stride, _, _ in axes) and draw(st.booleans()):
        return "same"
    if all(low == high for low, high in pairs):
        return plain([low for low, _ in pairs])
    return pairs


def _other_size(draw: Draw, params: dict[str, Any], ndim: int) -> dict[str, Any]:
    """Draw another input for a later call; the shapes that do not fit must be refused."""
    size = params["size"]
    sizes = list(size) if isinstance(size, list) else [size] * ndim
    other = [max(1, n + draw(st.sampled_from((0, 1, -1, 3, -4, 9)))) for n in sizes]
    return {"size": plain(other), "batch": draw(st.sampled_from((1, 2, None, 4)))}
