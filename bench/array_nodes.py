"""The ONNX node of each operator without a weight, for libraries that are given a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .peer import Refusal

__all__ = ["NODES", "Node"]


class Node(NamedTuple):
    """One node of a model.

    Parameters
    ----------
    kind : str
        ONNX's name of the operator.
    attributes : dict
        Its attributes.
    constants : mapping of str to ndarray
        Inputs behind those of the problem, which the model holds.
    order : tuple of str
        All inputs behind the first as the node takes them, by the problem's names, where that is
        another order than the problem's; those that are not there are left out.
    """

    kind: str
    attributes: dict[str, Any]
    constants: Mapping[str, Any] = MappingProxyType({})
    order: tuple[str, ...] = ()


def _pool(problem: Any) -> Node:
    attributes = {
        "kernel_shape": list(problem.kernel_size),
        "strides": list(problem.stride),
        "pads": [*problem.padding, *problem.padding],
        "ceil_mode": int(problem.ceil_mode),
    }
    if problem.op == "max_pool":
        return Node("MaxPool", attributes | {"dilations": list(problem.dilation)})
    if problem.op == "lp_pool":
        if problem.norm_type != int(problem.norm_type):
            raise Refusal("ONNX has norms of whole powers alone")
        return Node("LpPool", attributes | {"p": int(problem.norm_type)})
    if problem.divisor_override:
        raise Refusal("ONNX has no other divisor of a mean")
    counted = {"count_include_pad": int(problem.count_include_pad)}
    return Node("AveragePool", attributes | counted)


def _adaptive_pool(problem: Any) -> Node:
    kind = "MaxPool" if problem.op == "adaptive_max_pool" else "AveragePool"
    along = list(zip(problem.in_size, problem.out_size, strict=True))
    if all(outputs == 1 for _, outputs in along):
        return Node(f"Global{kind}", {})
    if any(size % outputs for size, outputs in along):
        raise Refusal("ONNX has no node for windows of unequal sizes")
    windows = [size // outputs for size, outputs in along]
    return Node(kind, {"kernel_shape": windows, "strides": windows})


def _deform(problem: Any) -> Node:
    if problem.activation:
        raise Refusal("ONNX's DeformConv has no activation")
    attributes = {
        "kernel_shape": list(problem.kernel_size),
        "strides": list(problem.stride),
        "pads": [*problem.padding, *problem.padding],
        "dilations": list(problem.dilation),
        "group": problem.groups,
        "offset_group": problem.offset_groups,
    }
    return Node("DeformConv", attributes, order=("weight", "offset", "bias", "mask"))


def _pixels(problem: Any) -> Node:
    if problem.op == "pixel_shuffle":
        return Node("DepthToSpace", {"blocksize": problem.factor, "mode": "CRD"})
    if problem.channels > 1:
        raise Refusal("ONNX puts the pixels of SpaceToDepth before the channels")
    return Node("SpaceToDepth", {"blocksize": problem.factor})


def _batch_norm(problem: Any) -> Node:
    if problem.training or not (problem.weight and problem.bias):
        raise Refusal("ONNX has a node for given statistics, weight and bias alone")
    order = ("weight", "bias", "running_mean", "running_var")
    return Node("BatchNormalization", {"epsilon": problem.eps}, order=order)


def _affine(kind: str, attributes: dict[str, Any], problem: Any) -> Node:
    if not (problem.weight and problem.bias):
        raise Refusal("ONNX has a node with weight and bias alone")
    return Node(kind, {"epsilon": problem.eps, **attributes})


def _local_response(problem: Any) -> Node:
    if problem.size % 2 == 0:
        raise Refusal("ONNX puts the odd channel of an even window on the other side")
    attributes = {"alpha": problem.alpha, "beta": problem.beta, "bias": problem.k}
    return Node("LRN", attributes | {"size": problem.size})


def _resize(problem: Any) -> Node:
    """Return a Resize to the output's sizes, which ONNX takes places from, too."""
    if problem.scale:
        raise Refusal("ONNX takes one factor for all axes, or the sizes")
    modes = {"nearest": "nearest", "nearest-exact": "nearest", "bicubic": "cubic"}
    aligned, exact = problem.align_corners, problem.mode == "nearest-exact"
    where = "align_corners" if aligned else "half_pixel"
    attributes: dict[str, Any] = {
        "mode": modes.get(problem.mode, "linear"),
        "coordinate_transformation_mode": "asymmetric" if problem.mode == "nearest" else where,
        "nearest_mode": "round_prefer_ceil" if exact else "floor",
        "cubic_coeff_a": -0.75,
    }
    sizes = np.array(problem.out_shape, np.int64)
    none = np.zeros(0, np.float32)
    return Node("Resize", attributes, {"roi": none, "scales": none, "sizes": sizes})


#: By operator, a function that returns the node of a problem or raises `Refusal`.
NODES: dict[str, Callable[[Any], Node]] = {
    "deform_conv": _deform,
    "pixel_shuffle": _pixels,
    "pixel_unshuffle": _pixels,
    "batch_norm": _batch_norm,
    "instance_norm": lambda problem: _affine("InstanceNormalization", {}, problem),
    "layer_norm": lambda problem: _affine("LayerNormalization", {"axis": -1}, problem),
    "local_response_norm": _local_response,
    "softmax": lambda problem: Node("Softmax", {"axis": 1}),
    "log_softmax": lambda problem: Node("LogSoftmax", {"axis": 1}),
    "interpolate": _resize,
    "max_pool": _pool,
    "avg_pool": _pool,
    "lp_pool": _pool,
    "adaptive_max_pool": _adaptive_pool,
    "adaptive_avg_pool": _adaptive_pool,
}
