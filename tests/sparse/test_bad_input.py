"""Bad input of sparse operators: a sentence that names the argument, what came, what is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fastconv import sparse
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import DeviceError, DTypeError, ShapeError
from fastconv.sparse import SparseTensor, nn

F4 = np.float32


def rows(count: int = 3, channels: int = 4, dtype: Any = F4) -> np.ndarray:
    return np.ones((count, channels), dtype)


def weight(*shape: int, dtype: Any = F4) -> np.ndarray:
    return np.ones(shape, dtype)


def tensor(**changes: Any) -> SparseTensor:
    given: dict[str, Any] = {
        "features": rows(),
        "indices": np.array([[0, 1, 1], [0, 4, 7], [1, 2, 3]]),
        "spatial_shape": (8, 8),
    }
    return SparseTensor(**(given | changes))


def sites(*extra: Any) -> np.ndarray:
    return np.array([[0, 1, 1], [0, 4, 7], *extra])


@dataclass
class Case:
    """A call that must fail, and words that its message must hold, in order."""

    name: str
    error: type[Exception]
    words: str
    call: Callable[[], Any]


TENSORS = (
    Case("negative", ShapeError, r"indices: got -1 in row 2.*want 0 to 7",
         lambda: tensor(indices=sites([0, -1, 0]))),
    Case("beyond_shape", ShapeError, r"indices: got 8 in row 2, column 2, want 0 to 7.*axis 1",
         lambda: tensor(indices=sites([0, 0, 8]))),
    Case("beyond_batch", ShapeError, r"indices: got 2 in row 2, column 0, want 0 to 1.*batch_size",
         lambda: tensor(indices=sites([2, 0, 0]), batch_size=2)),
    Case("negative_batch", ShapeError, r"indices: got -1 in row 2, column 0",
         lambda: tensor(indices=sites([-1, 0, 0]))),
    Case("beyond_int32", ShapeError, r"indices: got 4294967299 in row 2",
         lambda: tensor(indices=sites([0, 0, 2**32 + 3]))),
    Case("beyond_int64", ShapeError, r"indices: got 18446744073709551615 in row 1",
         lambda: tensor(indices=np.array([[0, 0, 0], [0, 2**64 - 1, 0], [0, 1, 1]], np.uint64))),
    Case("twice", ShapeError, r"indices: got the site \(0, 4, 7\) in row 1 and in row 2",
         lambda: tensor(indices=sites([0, 4, 7]))),
    Case("float_indices", DTypeError, "indices: got float64, want an integer",
         lambda: tensor(indices=sites([0, 0, 0]).astype(float))),
    Case("bool_indices", DTypeError, "indices: got bool",
         lambda: tensor(indices=sites([0, 0, 0]) > 0)),
    Case("columns", ShapeError, r"indices: got shape \(3, 4\), want \(rows, 3\)",
         lambda: tensor(indices=np.zeros((3, 4), int))),
    Case("indices_of_one_axis", ShapeError, r"indices: got shape \(3,\)",
         lambda: tensor(indices=np.zeros(3, int))),
    Case("lengths", ShapeError, "indices: got 3 rows, want 5 as the features have",
         lambda: tensor(features=rows(5))),
    Case("int_features", DTypeError, "features: got int64, want one of float32",
         lambda: tensor(features=rows(dtype=np.int64))),
    Case("list_features", DTypeError, "features: got list, want a NumPy array",
         lambda: tensor(features=[[1.0]] * 3)),
    Case("features_of_one_axis", ShapeError, r"features: got shape \(3,\)",
         lambda: tensor(features=np.ones(3, F4))),
    Case("no_channels", ShapeError, r"features: got shape \(3, 0\)",
         lambda: tensor(features=rows(3, 0))),
    Case("no_axes", ShapeError, "spatial_shape: got .*want 1 to 4",
         lambda: tensor(spatial_shape=())),
    Case("five_axes", ShapeError, "spatial_shape: got .*want 1 to 4",
         lambda: tensor(spatial_shape=(2,) * 5, indices=np.zeros((3, 6), int))),
    Case("set_of_sizes", ShapeError, "spatial_shape: got {8, 9}",
         lambda: tensor(spatial_shape={8, 9})),
    Case("array_of_batches", ShapeError, "batch_size: got array.*want a whole number",
         lambda: tensor(batch_size=np.array([1, 2]))),
    Case("one_number", ShapeError, "spatial_shape: got 8", lambda: tensor(spatial_shape=8)),
    Case("float_shape", ShapeError, r"spatial_shape: got 8\.0",
         lambda: tensor(spatial_shape=(8.0, 8))),
    Case("empty_axis", ShapeError, r"spatial_shape: got \(8, 0\)",
         lambda: tensor(spatial_shape=(8, 0))),
    Case("long_axis", ShapeError, r"spatial_shape: got .*want no axis above 2147483647",
         lambda: tensor(spatial_shape=(8, 2**31))),
    Case("keys", ShapeError, r"spatial_shape: got .*batch_size=2.*2\*\*63 - 1.*64 bits",
         lambda: tensor(spatial_shape=(2**31 - 1, 2**31 - 1, 2), indices=np.zeros((3, 4), int),
                        batch_size=2)),
    Case("batch_zero", ShapeError, "batch_size: got 0, want at least 1",
         lambda: tensor(batch_size=0)),
    Case("batch_float", ShapeError, r"batch_size: got 2\.0", lambda: tensor(batch_size=2.0)),
    Case("duplicates", ValueError, "duplicates: got 'last', want one of 'error', 'sum'",
         lambda: tensor(duplicates="last")),
    Case("indices_elsewhere", DeviceError, "indices: got ndarray on the CPU, want an emulated",
         lambda: tensor(features=EmulatedArray(rows()))),
    Case("features_elsewhere", DeviceError, "indices: got an array on a GPU",
         lambda: tensor(indices=EmulatedArray(sites([1, 2, 3])))),
    Case("replace_rows", ShapeError, "features: got 4 rows, want 3",
         lambda: tensor().replace(rows(4))),
    Case("dense_axes", ShapeError, "x: got 2 axes", lambda: SparseTensor.from_dense(rows())),
)  # fmt: skip

W = weight(6, 4, 3, 3)
CALLS = (
    Case("layer_without_channels", ShapeError, "out_channels: got 0, want at least 1",
         lambda: sparse.nn.SubMConv2d(3, 0, 3)),
    Case("layer_of_negative_channels", ShapeError, "in_channels: got -3, want at least 1",
         lambda: sparse.nn.SubMConv2d(-3, 4, 3)),
    Case("masked_state", DTypeError, "weight: got a masked array",
         lambda: sparse.nn.SubMConv2d(4, 6, 3, bias=False).load_state_dict(
             {"weight": np.ma.ones((6, 3, 3, 4), F4)})),
    Case("array_of_groups", ShapeError, "groups: got array.*want a whole number",
         lambda: sparse.subm_conv(tensor(), W, groups=np.array([1, 2]))),
    Case("not_a_tensor", DTypeError, "x: got ndarray, want a fastconv.sparse.SparseTensor",
         lambda: sparse.subm_conv(rows(), W)),
    Case("not_a_tensor_pool", DTypeError, "x: got ndarray",
         lambda: sparse.sparse_max_pool(rows(), 2)),
    Case("not_a_tensor_global", DTypeError, "x: got list", lambda: sparse.global_avg_pool([])),
    Case("weight_axes", ShapeError, r"weight: got 3 axes \(6, 4, 3\), want 4 \(KCRS\)",
         lambda: sparse.subm_conv(tensor(), weight(6, 4, 3))),
    Case("weight_none", ShapeError, "weight: got None", lambda: sparse.subm_conv(tensor(), None)),
    Case("weight_empty", ShapeError, "weight: got shape .*size 0",
         lambda: sparse.subm_conv(tensor(), weight(6, 4, 3, 0))),
    Case("weight_channels", ShapeError, "features: got 4 channels with a weight of 5 .*want 5",
         lambda: sparse.sparse_conv(tensor(), weight(6, 5, 3, 3))),
    Case("weight_dtype", DTypeError, "features: got float32 with a weight of float64",
         lambda: sparse.sparse_conv(tensor(), W.astype(float))),
    Case("weight_elsewhere", DeviceError, "weight: got an array on a GPU, want a NumPy",
         lambda: sparse.sparse_conv(tensor(), EmulatedArray(W))),
    Case("layout", ValueError, "weight_layout: got 'RSKC', want 'KCRS' or 'KRSC'",
         lambda: sparse.subm_conv(tensor(), W, weight_layout="RSKC")),
    Case("layout_of_a_gradient", ValueError, "weight_layout: got 'RSCK'",
         lambda: sparse.grad.conv_weight(sparse.make_rulebook(tensor(), 3), rows(), rows(),
                                         weight_layout="RSCK")),
    Case("groups", ShapeError, "groups: got 4, want a divisor of the weight's 6",
         lambda: sparse.subm_conv(tensor(), weight(6, 1, 3, 3), groups=4)),
    Case("groups_zero", ShapeError, "groups: got 0",
         lambda: sparse.subm_conv(tensor(), W, groups=0)),
    Case("bias_shape", ShapeError,
         r"bias: got shape \(5,\), want \(6,\)",
         lambda: sparse.subm_conv(tensor(), W, np.ones(5, F4))),
    Case("bias_dtype", DTypeError, "bias: got float64",
         lambda: sparse.subm_conv(tensor(), W, np.ones(6))),
    Case("activation", ValueError, "activation: got 'swoosh'",
         lambda: sparse.subm_conv(tensor(), W, activation="swoosh")),
    Case("stride_zero", ShapeError, r"stride: got \(0, 0\)",
         lambda: sparse.sparse_conv(tensor(), W, stride=0)),
    Case("stride_count", ShapeError, "stride: got 3 values",
         lambda: sparse.sparse_conv(tensor(), W, stride=(1, 1, 1))),
    Case("dilation", ShapeError, r"dilation: got \(-1, -1\)",
         lambda: sparse.subm_conv(tensor(), W, dilation=-1)),
    Case("padding", ShapeError, r"padding: got \(\(-1, -1\), \(-1, -1\)\), want no negative",
         lambda: sparse.sparse_conv(tensor(), W, padding=-1)),
    Case("same", ShapeError, "padding: got 'same' with stride",
         lambda: sparse.sparse_conv(tensor(), W, stride=2, padding="same")),
    Case("does_not_fit", ShapeError, r"kernel_size: got \(3, 3\) with dilation=\(4, 4\).*\(0, 0\)",
         lambda: sparse.sparse_conv(tensor(), W, dilation=4)),
    Case("output_padding", ShapeError, r"output_padding: got \(2, 2\).*below the stride",
         lambda: sparse.sparse_conv_transpose(tensor(), W, stride=2, output_padding=2)),
    Case("grows_too_long", ShapeError, "spatial_shape: got .*want no axis above",
         lambda: sparse.sparse_conv_transpose(tensor(spatial_shape=(8, 2**30)), W, stride=3)),
    Case("kernel_size", ShapeError, "kernel_size: got 2.5",
         lambda: sparse.sparse_avg_pool(tensor(), 2.5)),
    Case("kind", ShapeError, "kind: got 'dense', want one of submanifold",
         lambda: sparse.make_rulebook(tensor(), 3, kind="dense")),
    Case("unknown_key", ShapeError, "indice_key: got 'up', want one that is known: 'subm', 'down'",
         lambda: sparse.sparse_inverse_conv(named(), weight(4, 6, 3, 3), indice_key="up")),
    Case("no_key_known", ShapeError, "indice_key: got 'up'.*there is none yet",
         lambda: sparse.sparse_inverse_conv(tensor(), W, indice_key="up")),
    Case("no_key", ValueError, "indice_key: got none, want the name",
         lambda: sparse.sparse_inverse_conv(tensor(), W)),
    Case("key_and_rulebook", ValueError, "rulebook: got one and an indice_key",
         lambda: sparse.subm_conv(tensor(), W, indice_key="a",
                                  rulebook=sparse.make_rulebook(tensor(), 3))),
)  # fmt: skip


def named() -> SparseTensor:
    """A tensor after a layer "subm" and a layer "down"."""
    x = sparse.subm_conv(tensor(), weight(4, 4, 3, 3), indice_key="subm")
    return sparse.sparse_conv(x, W, None, 2, 1, indice_key="down")


def start() -> SparseTensor:
    x = tensor()
    sparse.subm_conv(x, W, indice_key="subm")
    sparse.sparse_conv(x, W, None, 2, 1, indice_key="down")
    sparse.sparse_conv_transpose(x, W, None, 2, indice_key="up")
    return x


MISMATCHES = (
    Case("kernel", ShapeError, r"indice_key='subm': got kernel_size \(3, 3\), not \(5, 5\)",
         lambda: sparse.subm_conv(start(), weight(6, 4, 5, 5), indice_key="subm")),
    Case("dilation", ShapeError, r"indice_key='subm': got dilation \(1, 1\), not \(2, 2\)",
         lambda: sparse.subm_conv(start(), W, dilation=2, indice_key="subm")),
    Case("kind", ShapeError, "indice_key='subm': got kind submanifold, not regular",
         lambda: sparse.sparse_conv(start(), W, None, 1, 1, indice_key="subm")),
    Case("stride", ShapeError, r"indice_key='down': got stride \(2, 2\), not \(3, 3\), want a rule",
         lambda: sparse.sparse_conv(start(), W, None, 3, 1, indice_key="down")),
    Case("padding", ShapeError, r"indice_key='down': got padding .*, not \(\(0, 0\), \(0, 0\)\)",
         lambda: sparse.sparse_conv(start(), W, None, 2, 0, indice_key="down")),
    Case("output_padding", ShapeError,
         r"indice_key='up': got output_padding \(0, 0\), not \(1, 1\)",
         lambda: sparse.sparse_conv_transpose(start(), W, None, 2, 0, 1, indice_key="up")),
    Case("shape", ShapeError, r"indice_key='subm': got in_shape \(8, 8\), not \(4, 4\)",
         lambda: sparse.subm_conv(named(), weight(6, 6, 3, 3), indice_key="subm")),
    Case("sites", ShapeError, "rulebook: got other sites before than those of x",
         lambda: sparse.subm_conv(tensor(indices=sites([1, 2, 4])), W,
                                  rulebook=sparse.make_rulebook(tensor(), 3))),
    Case("order_of_sites", ShapeError, "rulebook: got other sites before",
         lambda: sparse.subm_conv(tensor(indices=sites([1, 2, 3])[::-1]), W,
                                  rulebook=sparse.make_rulebook(tensor(), 3))),
    Case("reversed", ShapeError, "rulebook: got sites before and after changed",
         lambda: sparse.subm_conv(tensor(), W,
                                  rulebook=sparse.make_rulebook(tensor(), 3).reverse())),
    Case("inverse_kernel", ShapeError,
         r"indice_key='down': got kernel_size \(3, 3\), not \(2, 2\)",
         lambda: sparse.sparse_inverse_conv(named(), weight(4, 6, 2, 2), indice_key="down")),
    Case("inverse_grid", ShapeError,
         r"indice_key='down': got a grid of \(4, 4\) after, not \(8, 8\)",
         lambda: sparse.sparse_inverse_conv(start(), W, indice_key="down")),
    Case("inverse_sites", ShapeError, "rulebook: got other sites after than those of x",
         lambda: sparse.sparse_inverse_conv(
             tensor(spatial_shape=(4, 4), indices=[[0, 0, 0], [1, 1, 1], [1, 2, 2]]), W,
             rulebook=start().rulebooks["down"])),
)  # fmt: skip


def book() -> sparse.Rulebook:
    return sparse.make_rulebook(tensor(), 3)


GRADIENTS = (
    Case("rows", ShapeError, "grad_output: got 4 rows, want 3 as the rulebook has",
         lambda: sparse.grad.conv_input(book(), W, rows(4, 6))),
    Case("kernel", ShapeError, r"weight: got a kernel of \(2, 2\), want \(3, 3\)",
         lambda: sparse.grad.conv_input(book(), weight(6, 4, 2, 2), rows(3, 6))),
    Case("channels", ShapeError, "grad_output: got 5 channels, want 6",
         lambda: sparse.grad.conv_input(book(), W, rows(3, 5))),
    Case("dtype", DTypeError, "weight: got float32, want float64",
         lambda: sparse.grad.conv_input(book(), W, rows(3, 6, float))),
    Case("weight_rows", ShapeError, "input: got 2 rows, want 3",
         lambda: sparse.grad.conv_weight(book(), rows(2), rows(3, 6))),
    Case("weight_groups", ShapeError, "groups: got 3, want a divisor",
         lambda: sparse.grad.conv_weight(book(), rows(3), rows(3, 6), 3)),
    Case("weight_dtype", DTypeError, "grad_output: got float64, want float32",
         lambda: sparse.grad.conv_weight(book(), rows(3), rows(3, 6, float))),
    Case("pool_channels", ShapeError, "output: got 3 channels, want 4",
         lambda: sparse.grad.max_pool_input(book(), rows(3), rows(3, 3), rows(3))),
    Case("pool_rows", ShapeError, "grad_output: got 1 rows, want 3",
         lambda: sparse.grad.avg_pool_input(book(), rows(1))),
    Case("not_features", ShapeError, r"grad_output: got shape \(3,\)",
         lambda: sparse.grad.conv_bias(np.ones(3))),
)  # fmt: skip


def layer(**changes: Any) -> nn.SubMConv2d:
    given: dict[str, Any] = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "bias": False}
    return nn.SubMConv2d(**(given | changes))


LAYERS = (
    Case("no_weight", ShapeError, r"weight: got none yet.*SubMConv2d\(4, 6",
         lambda: layer()(tensor())),
    Case("weight_shape", ShapeError, r"weight: got \(6, 5, 3, 3\).*want \(6, 4, 3, 3\)",
         lambda: layer().load(weight(6, 3, 3, 5))),
    Case("no_bias", ShapeError, "bias: got none, want .*bias=True",
         lambda: layer(bias=True).load(weight(6, 3, 3, 4))),
    Case("a_bias", ShapeError, "bias: got one, want .*bias=False",
         lambda: layer().load(weight(6, 3, 3, 4), np.ones(6, F4))),
    Case("axes", ShapeError, "x: got 1 spatial axes, want 2 as SubMConv2d has",
         lambda: layer().load(weight(6, 3, 3, 4))(
             SparseTensor(rows(1), np.array([[0, 1]]), (8,)))),
    Case("stride", ShapeError, r"stride: got \(2, 2\), want 1",
         lambda: layer(stride=2).load(weight(6, 3, 3, 4))(tensor())),
    Case("groups", ShapeError, "groups: got 3, want a divisor of in_channels=4",
         lambda: layer(groups=3)),
    Case("state", ShapeError, "state: got no 'conv.weight'",
         lambda: layer().load_state_dict({}, "conv.")),
    Case("activation", ValueError, "activation: got 'swoosh'", lambda: layer(activation="swoosh")),
    Case("elsewhere", DeviceError, "weight: got ndarray on the CPU, want an emulated array",
         lambda: layer().load(weight(6, 3, 3, 4))(
             tensor(features=EmulatedArray(rows()), indices=EmulatedArray(sites([1, 2, 3]))))),
    Case("weight_elsewhere", DeviceError, "weight: got an array on a GPU",
         lambda: layer().load(EmulatedArray(weight(6, 3, 3, 4)))(tensor())),
    Case("pool_axes", ShapeError, "x: got 2 spatial axes, want 3 as SparseMaxPool3d has",
         lambda: nn.SparseMaxPool3d(2)(tensor())),
    Case("sequential", DTypeError, "x: got ndarray",
         lambda: nn.SparseSequential(layer())(rows())),
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{family}-{case.name}")
        for family, cases in (
            ("tensor", TENSORS), ("call", CALLS), ("rulebook", MISMATCHES), ("grad", GRADIENTS),
            ("layer", LAYERS),
        )
        for case in cases
    ],
)  # fmt: skip
def test_the_message_names_argument_and_wish(case: Case) -> None:
    with pytest.raises(case.error) as caught:
        case.call()
    message = str(caught.value)
    assert re.search(case.words, message), message
    assert len(message) < 400 and "\n" not in message


def test_names_are_unique() -> None:
    for family in (TENSORS, CALLS, MISMATCHES, GRADIENTS, LAYERS):
        names = [case.name for case in family]
        assert len(set(names)) == len(names)
