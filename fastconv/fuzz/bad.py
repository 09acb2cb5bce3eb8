"""Arguments that must be refused: which there are, and whether they are.

A step's `bad` says for each argument what stands in its place: for an array one of `ARRAYS` or
`OUTPUTS`, for another argument its value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ARRAYS", "LONE", "NAMES", "OUTPUTS", "VALUES", "replacement"]

#: What is given in place of an array.
ARRAYS = {
    "none": "None",
    "list": "a list of lists",
    "text": "a string",
    "int32": "an array of int32",
    "complex64": "an array of complex64",
    "object": "an array of objects",
    "swapped": "an array of the other byte order",
    "other": "an array of another float type",
    "more": "an array with two more axes",
    "fewer": "an array with one axis",
    "longer": "an array one longer along each axis",
}
#: Those of `ARRAYS` that must be refused whatever the other arguments are.
LONE = ("none", "text", "int32", "complex64", "object", "swapped", "more", "fewer")
#: What is given in place of an output, beside `ARRAYS`.
OUTPUTS = {
    "readonly": "an array that may not be written",
    "broadcast": "an array whose elements share memory",
}
_NUMBERS: tuple[Any, ...] = (0, -1, 1.5, "2", [], [1, 1, 1, 1, 1], True, {"a": 1}, -(2**70))
_POSITIVE: tuple[Any, ...] = (*_NUMBERS, [0, 0], [1, 1.0], [[1, 1], [1, 1]])
#: Values that each kind of argument may not have.
VALUES: dict[str, tuple[Any, ...]] = {
    "positive": (*_POSITIVE, None),
    "stride": _POSITIVE,  # where None is a window's own size
    "pads": (-1, 1.5, "full", "", None, [], [1, 1, 1, 1, 1], True, [[1]], [[[1, 1]]], [-1, -1]),
    "sizes": (-1, 1.5, "2", [], [1, 1, 1, 1, 1], True, 2**45, None),
    "count": (*_NUMBERS, None, [1], 997, 2**64),
    "type": ("text", "int32", "complex64", "object", "swapped"),
    "axis": (1.5, "1", None, [1], True, 99, -99, 2**70),
    "element": ("nope", "int8", "complex64", 5, [], True),
    "mode": ("mirror", "", "constant", 5, None, [], ["reflect", 1.0], ["constant", "1"], True),
    "activation": ("nope", "", 5, ["relu", "x"], ["nope", 1.0], ["leaky_relu", "a"], [], True),
}
#: What a message may call an argument by.
NAMES = frozenset(
    (
        "input", "weight", "bias", "residual", "out", "stride", "padding", "dilation", "groups",
        "kernel", "kernel_size", "activation", "x", "features", "indices", "spatial_shape", "grad",
        "grad_output", "output", "output_padding", "padding_mode", "rulebook", "indice_key",
        "weight_layout", "offset", "mask", "upscale_factor", "downscale_factor",
        "in_channels", "out_channels", "mode", "ceil_mode", "output_size", "norm_type",
        "count_include_pad", "divisor_override", "return_indices", "input_size", "weight_size",
        "dim", "num_groups",
        "normalized_shape", "running_mean", "running_var", "size", "scale_factor", "out_dtype",
        "depthwise_weight", "depthwise_bias", "depthwise_activation", "pointwise_weight",
        *(f"{part}_{name}" for part in ("first", "second") for name in (
            "weight", "bias", "stride", "padding", "dilation", "groups", "activation",
        )),
    )
)  # fmt: skip


def replacement(kind: str, array: NDArray[Any]) -> Any:
    """Return what stands in the place of an array.

    Examples
    --------
    >>> replacement("more", np.ones((2, 3))).shape
    (1, 1, 2, 3)
    """
    if kind in ("none", "list", "text"):
        return {"none": None, "list": np.asarray(array, np.float64).tolist(), "text": "array"}[kind]
    if kind in ("int32", "complex64", "object"):
        with np.errstate(all="ignore"):
            return np.zeros(array.shape, kind)
    if kind == "swapped":
        dtype = array.dtype if array.itemsize > 1 else np.dtype(np.float32)
        return np.zeros(array.shape, dtype.newbyteorder())
    if kind == "other":
        other = np.float64 if array.dtype == np.float32 or array.dtype.kind in "iu" else np.float32
        return np.zeros(array.shape, other)
    if kind in ("more", "fewer"):
        return array[None, None] if kind == "more" else np.zeros(3, array.dtype)
    if kind == "longer":
        return np.zeros([size + 1 for size in array.shape], array.dtype)
    assert kind in OUTPUTS
    # One element shares its memory with no other, whatever its strides.
    if kind == "readonly" or array.size < 2:
        closed = array.view()
        closed.flags.writeable = False
        return closed
    return np.lib.stride_tricks.as_strided(array, array.shape, (0,) * array.ndim)
