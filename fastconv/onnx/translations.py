"""What fastconv has for each operator of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .convolutions import WEIGHTED, compute_weighted
from .node import Node, Refusal
from .norms import NORMS
from .pools import POOLS
from .rearranging import REARRANGING
from .resizing import RESIZING

__all__ = ["TRANSLATIONS", "knows_attributes", "translate"]

#: By ONNX's name, a function that computes a node on arrays or raises `Refusal`.
TRANSLATIONS: dict[str, Callable[..., tuple[Any, ...]]] = {
    **dict.fromkeys(WEIGHTED, compute_weighted),
    **POOLS,
    **NORMS,
    **REARRANGING,
    **RESIZING,
}


_WINDOW = "auto_pad dilations kernel_shape pads strides"
#: Attributes that translations know; a later version of an operator may have others.
_ATTRIBUTES = {
    "AveragePool": f"{_WINDOW} ceil_mode count_include_pad",
    "BatchNormalization": "consumed_inputs epsilon is_test momentum spatial training_mode",
    "Col2Im": "dilations pads strides",
    "Conv": f"{_WINDOW} group",
    "ConvTranspose": f"{_WINDOW} group output_padding output_shape",
    "DeformConv": f"{_WINDOW} group offset_group",
    "DepthToSpace": "blocksize mode",
    "Gemm": "alpha beta broadcast transA transB",
    "InstanceNormalization": "consumed_inputs epsilon",
    "LRN": "alpha beta bias size",
    "LayerNormalization": "axis epsilon stash_type",
    "LogSoftmax": "axis",
    "LpPool": f"{_WINDOW} ceil_mode p",
    "MaxPool": f"{_WINDOW} ceil_mode storage_order",
    "MaxUnpool": "kernel_shape pads strides",
    "PRelu": "consumed_inputs",
    "ReduceMean": "axes keepdims noop_with_empty_axes",
    "Resize": "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside "
    "extrapolation_value keep_aspect_ratio_policy mode nearest_mode",
    "Softmax": "axis",
    "SpaceToDepth": "blocksize mode",
    "Upsample": "mode scales",
}


def knows_attributes(node: Node) -> bool:
    """Tell whether all attributes of a node are known."""
    return set(node.attributes) <= set(_ATTRIBUTES.get(node.kind, "").split())


def translate(node: Node, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Compute a node on fastconv's kernels.

    Parameters
    ----------
    node : Node
        Of an operator in `TRANSLATIONS`.
    arrays : tuple
        Its inputs; None for those that are left out.

    Raises
    ------
    Refusal
        Where fastconv has no operator for it.
    FastconvError
        Where the operator does not take these arrays.
    """
    if not knows_attributes(node):
        raise Refusal(f"fastconv does not know all of its attributes: {', '.join(node.attributes)}")
    if not all(each is None or hasattr(each, "strides") for each in arrays):
        raise Refusal("an input is no array")
    return TRANSLATIONS[node.kind](node, *arrays)
