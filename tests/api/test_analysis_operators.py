"""Every operator in `fastconv.analysis`: what it sees against its reference, figures by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv.analysis import Conv, ConvTranspose, Linear, Operator, analyse, receptive_field
from fastconv.contract import first_use
from fastconv.contract.array_problem import ARRAY_OPS, ArrayProblem
from fastconv.contract.errors import ArgumentError, ShapeError
from fastconv.kernels import reference

FORWARD = [op for op in ARRAY_OPS if "_grad" not in op and op not in ("interleave", "pad")]
#: Of every operator a sample, the sizes that it is told, output and parameters.
ROWS: dict[str, tuple[tuple[int, ...], dict[str, Any], tuple[int, ...], int]] = {
    "max_pool": ((3, 11), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}, (3, 5), 0),
    "avg_pool": ((3, 11), {"kernel_size": 4}, (3, 2), 0),
    "lp_pool": ((3, 11), {"kernel_size": 2, "stride": 3}, (3, 4), 0),
    "adaptive_max_pool": ((3, 11), {"out_size": 4}, (3, 4), 0),
    "adaptive_avg_pool": ((3, 12), {"out_size": 8}, (3, 8), 0),
    "max_unpool": ((3, 5), {"kernel_size": 3, "stride": 2, "padding": 1}, (3, 9), 0),
    "deform_conv": (
        (4, 6, 7),
        {"out_channels": 6, "kernel_size": 3, "padding": 1, "stride": 2, "bias": True},
        (6, 3, 4),
        6 * 4 * 9 + 6,
    ),
    "pixel_shuffle": ((18, 3, 4), {"factor": 3}, (2, 9, 12), 0),
    "pixel_unshuffle": ((2, 6, 9), {"factor": 3}, (18, 2, 3), 0),
    "channel_shuffle": ((6, 5), {"groups": 2}, (6, 5), 0),
    "unfold": ((3, 11), {"kernel_size": 3, "dilation": 2, "padding": 1}, (9, 9), 0),
    "fold": ((6, 5), {"in_size": 11, "kernel_size": 3, "stride": 2}, (2, 11), 0),
    "batch_norm": ((6, 5), {}, (6, 5), 12),
    "group_norm": ((6, 5), {"groups": 3}, (6, 5), 12),
    "instance_norm": ((6, 5), {"weight": False, "bias": False}, (6, 5), 0),
    "layer_norm": ((2, 3, 5), {}, (2, 3, 5), 10),
    "prelu": ((6, 5), {}, (6, 5), 6),
    "local_response_norm": ((6, 5), {}, (6, 5), 0),
    "softmax": ((6,), {}, (6,), 0),
    "log_softmax": ((6, 5), {}, (6, 5), 0),
    "interpolate": ((2, 5), {"out_size": 8, "mode": "linear"}, (2, 8), 0),
    "linear": ((12,), {"out_channels": 5, "bias": True}, (5,), 65),
}
#: Those whose statistics are taken over positions that do not count as seen.
_STATISTICS = ("group_norm", "instance_norm", "layer_norm", "linear", "softmax")
_RESIZED: list[dict[str, Any]] = [
    {"out_size": 8}, {"out_size": 3}, {"scale": 1.7}, {"out_size": 1},
    {"out_size": 7, "mode": "nearest-exact"}, {"out_size": 10, "mode": "nearest-exact"},
    {"out_size": 10, "mode": "linear"}, {"out_size": 3, "mode": "linear"},
    {"scale": 2.5, "mode": "linear"}, {"out_size": 9, "mode": "linear", "align_corners": True},
    {"out_size": 1, "mode": "linear", "align_corners": True},
]  # fmt: skip
SEEN = [
    *((op, shape, sizes) for op, (shape, sizes, _, _) in ROWS.items() if op not in _STATISTICS),
    *(("interpolate", (2, 5), sizes) for sizes in _RESIZED),
]


def problem_of(op: str, shape: tuple[int, ...], sizes: dict[str, Any]) -> ArrayProblem:
    module, _, name = ARRAY_OPS[op].partition(":")
    kind = getattr(first_use.load(f"fastconv.contract.{module}"), name)
    made: ArrayProblem = kind.of_sample(op, shape, **sizes)
    return made


def seen_along_the_last_axis(of: ArrayProblem, rng: np.random.Generator) -> list[list[int]]:
    """Return the positions of the input that reach each position of the output."""
    arrays: list[Any] = []
    for operand in of.inputs:
        if operand.name == "indices":  # each in the middle of its window
            arrays.append(np.broadcast_to(2 * np.arange(operand.shape[-1]), operand.shape))
        elif operand.name == "offset":
            arrays.append(np.zeros(operand.shape))
        else:
            arrays.append(rng.uniform(1, 2, operand.shape))
    made = []
    for place in range(-1, of.x_shape[-1]):
        given = [array.copy() for array in arrays]
        if place >= 0:
            given[0][..., place] += rng.uniform(10, 20, given[0].shape[:-1])
        args, keywords = of.arguments(given)
        result = getattr(reference, of.op)(*args, **keywords)
        made.append(result[0] if isinstance(result, tuple) else result)
    plain, changed = made[0], made[1:]
    return [
        [
            place
            for place, result in enumerate(changed)
            if (abs(result - plain) > 1e-9)[..., out].any()
        ]
        for out in range(plain.shape[-1])
    ]


def test_every_operator_has_a_row() -> None:
    assert set(ROWS) == set(FORWARD)


@pytest.mark.parametrize("op", FORWARD)
def test_figures(op: str) -> None:
    shape, sizes, out, parameters = ROWS[op]
    first = [Linear(shape[0])] if len(shape) == 1 else []
    *_, row = analyse([*first, Operator(op, **sizes)], (4, 4) if first else shape).rows
    assert (row.output_shape, row.parameters) == (out, parameters)
    assert row.flops >= 2 * row.macs >= 0
    assert row.flops > 0
    assert row.bytes >= 4 * (math.prod(shape) + parameters + math.prod(out))


@pytest.mark.parametrize(("op", "shape", "sizes"), SEEN, ids=str)
def test_outputs_see_what_the_reference_reads(
    op: str, shape: tuple[int, ...], sizes: dict[str, Any], rng: np.random.Generator
) -> None:
    (row,) = analyse([Operator(op, **sizes)], shape).rows
    field = row.receptive_field
    for out, seen in enumerate(seen_along_the_last_axis(problem_of(op, shape, sizes), rng)):
        low = math.ceil(field.start[-1] + out * field.step[-1])
        high = math.floor(field.start[-1] + out * field.step[-1] + field.size[-1] - 1)
        assert all(low <= place <= high for place in seen)
        if op != "max_unpool" and 0 <= low <= high < shape[-1]:
            assert (seen[0], seen[-1]) == (low, high)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_convolutions_agree_with_torch(ndim: int) -> None:
    make = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)[ndim - 1]
    module = make(6, 4, 3, 2, 1, 1, 2, True, 2, device="meta")
    layer = ConvTranspose(4, 3, 2, 1, 1, groups=2, dilation=2)
    (row,) = analyse([layer], (6, *(5,) * ndim)).rows
    y = module(torch.empty(1, 6, *(5,) * ndim, device="meta"))
    assert row.output_shape == tuple(y.shape[1:])
    assert row.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert row.macs == 6 * 5**ndim * 2 * 3**ndim
    # Output o sees the samples i with 2 i + 2 t - 1 = o for a tap t of three.
    assert receptive_field([layer], ndim).size == (3,) * ndim
    assert receptive_field([layer], ndim).step == (Fraction(1, 2),) * ndim


def test_down_and_up_again() -> None:
    stack = [
        Conv(8, 3, stride=2, padding=1), Operator("group_norm", groups=4), Operator("prelu"),
        ConvTranspose(16, 4, stride=2, padding=1), Operator("pixel_shuffle", factor=2),
        Operator("unfold", kernel_size=2, stride=2),
        Operator("fold", in_size=(64, 64), kernel_size=2, stride=2), Conv(3, 1),
        Operator("adaptive_avg_pool", out_size=1), Linear(10), Operator("softmax"),
    ]  # fmt: skip
    report = analyse(stack, (3, 32, 32))
    shapes = [row.output_shape for row in report.rows]
    assert shapes == [
        (8, 16, 16), (8, 16, 16), (8, 16, 16), (16, 32, 32), (4, 64, 64), (16, 1024), (4, 64, 64),
        (3, 64, 64), (3, 1, 1), (10,), (10,),
    ]  # fmt: skip
    assert report.parameters == 224 + 16 + 8 + (8 * 16 * 16 + 16) + 15 + 40
    up = report.rows[3].receptive_field
    assert up.step == (1, 1)
    # An output of the transposed convolution sees two of the first one's, or, by the bound, 5 / 2.
    assert up.size == (6, 6)
    assert report.rows[4].receptive_field.step == (Fraction(1, 2),) * 2
    assert "interpolate 2.0" in str(analyse([Operator("interpolate", scale=2.0)], (3, 4)))


@pytest.mark.parametrize(
    ("op", "sizes", "shape", "error", "message"),
    [
        (
            "max_pool",
            {"kernel": 3},
            (3, 8),
            ArgumentError,
            r"layer 0 .*kernel: got it for max_pool",
        ),
        ("max_pool", {"kernel_size": 9}, (3, 8), ShapeError, "kernel_size: got"),
        ("max_pool", {}, (3, 8), ShapeError, "kernel_size: got 0 values"),
        ("interpolate", {"mode": "bilinear", "out_size": 4}, (3, 8), ShapeError, "mode: got"),
        (
            "fold",
            {"in_size": 11, "kernel_size": 3},
            (6, 5),
            ShapeError,
            r"input: got shape \(6, 5\)",
        ),
        ("linear", {"out_channels": 4}, (3, 8, 8), ShapeError, "in_size: got"),
        ("group_norm", {"groups": 4}, (6, 5), ShapeError, "num_groups: got 4"),
    ],
)
def test_what_does_not_fit_is_named(
    op: str, sizes: dict[str, Any], shape: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        analyse([Operator(op, **sizes)], shape)


def test_other_operators_are_refused() -> None:
    with pytest.raises(ArgumentError, match="op: got 'avg_pool_grad'"):
        Operator("avg_pool_grad")
    with pytest.raises(ShapeError, match=r"want analyse\(\)"):
        fastconv.analysis.receptive_field([Operator("prelu")])
    with pytest.raises(ShapeError, match="padding: got 'same'"):
        analyse([ConvTranspose(4, 3, padding="same")], (3, 8))
    columns = [Operator("unfold", kernel_size=2), Operator("max_pool", kernel_size=2)]
    with pytest.raises(ShapeError, match="1 spatial axes, want 2"):
        analyse(columns, (3, 8, 8))
