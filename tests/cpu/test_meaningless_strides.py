"""Strides of axes of length 1 mean nothing, so they change nothing: every kernel, every argument.

NumPy makes them 0 with ``x[..., None]`` and leaves whatever an axis had when a slice cuts it to
one element. Any number is legal there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastconv
from fastconv import dispatch
from fastconv.arrays import memory_layout, normal_strides
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import KernelSpec
from helpers import (
    CALLS,
    Tensors,
    assert_close,
    expected,
    gaussians,
    in_layout,
    refusals,
)
from problem_matrix import problem

PROBLEMS = [
    each.with_(layout=layout)
    for layout in ("channels_first", "channels_last")
    for each in (
        problem((16, 16), (9, 3), 3, batch=2, groups=16),
        problem((16, 16), (3, 21), 3, groups=16),
        problem((17, 33), (9, 3), 3, batch=2),
        problem((33, 17), (3, 21), 3, batch=2),
        problem((40, 24), (1,), 9, padding=4),
        problem((20, 24), (1, 9), (1, 3), padding=1),
        problem((20, 24), (9, 1), 3, padding=1),
        problem((1, 1), (1, 70), (1, 9)),
        problem((1, 2), (9, 35), 5, padding=2),
        problem((1, 24), (35, 9), 3, stride=2, padding=1),
        problem((3, 3), (20, 1), (20, 1), groups=3),
        problem((6, 12), (1, 1), 1, batch=3),
        problem((6, 12), (4, 1, 7), (2, 1, 3), padding=((0, 0), (0, 0), (1, 1))),
        problem((6, 6), (1, 6, 9), (1, 3, 3), groups=6),
        problem(
            (5, 16), (5, 6, 1), (3, 3, 1), dilation=(2, 2, 1), padding=((2, 2), (2, 2), (0, 0))
        ),
        problem((1, 1), (9,), (9,)),
        problem((1, 1), (300,), 64, padding=32),
        problem((2, 2), (40, 1), (31, 1), padding=((15, 15), (0, 0)), groups=2),
    )
]
#: Strides for axes of length 1, in bytes: none of them may be multiplied with anything but 0.
STRIDES = (0, 2, -4, (1 << 60) + 1, -(1 << 60))


def restrided(array: np.ndarray, stride: int) -> np.ndarray:
    """The same elements, with a stride of choice for each axis of length 1."""
    strides = [
        stride if size == 1 else step for size, step in zip(array.shape, array.strides, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(array, array.shape, strides)


def supported(problems: list[ConvProblem]) -> list[object]:
    pairs = [
        (spec, each)
        for spec in dispatch.kernels(op="conv", device="cpu")
        for each in problems
        if not refusals(spec, each)
    ]
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].line()}") for pair in pairs]


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "each"), supported(PROBLEMS))
def test_strides_of_single_elements_change_nothing(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    truth = expected(each, tensors, epilogue=True)
    if memory_layout(tensors.x) != each.layout:  # one pixel: another problem of this list
        return
    for stride in STRIDES:
        moved = Tensors(
            *(restrided(getattr(tensors, name), stride) for name in ("x", "weight")),
            tensors.bias,
            restrided(tensors.residual, stride),
        )
        for changed in (("x",), ("weight",), ("residual",), ("x", "weight", "residual")):
            now = dataclasses.replace(tensors, **{name: getattr(moved, name) for name in changed})
            room = np.full((each.out_shape[0] + 2, *each.out_shape[1:]), np.nan, tensors.x.dtype)
            room = in_layout(room, each.layout)
            out = restrided(room[1:-1], stride)
            for how, call in CALLS.items():
                room[1:-1] = np.nan
                with dispatch.use_kernel(spec.name):
                    result = call(each, now, epilogue=True, out=out)
                what = f"{how} {changed} {stride}"
                assert_close(result, truth, spec.tolerance[each.dtype], what)
                assert np.isnan(room[[0, -1]]).all(), what


def test_a_new_axis_at_the_end_of_a_signal() -> None:
    signal = np.broadcast_to(np.float32(1), (1, 256))[:, :, None]
    layer = fastconv.Conv1d(np.ones((256, 256, 9), np.float32), padding=4)
    assert np.all(layer(signal) == 256)


@pytest.mark.parametrize(
    ("shape", "order", "wanted"),
    [
        ((2, 3, 1, 5), (0, 1, 2, 3), (60, 20, 20, 4)),
        ((2, 3, 5, 1), (0, 1, 2, 3), (60, 20, 4, 4)),
        ((2, 3, 5, 1), (0, 2, 3, 1), (60, 4, 12, 12)),
        ((2, 1, 5, 4), (0, 1, 2, 3), (80, 80, 16, 4)),
        ((1, 3, 5, 4), (0, 2, 3, 1), (240, 4, 48, 12)),
        ((1, 1, 1, 1), (0, 1, 2, 3), (4, 4, 4, 4)),
        ((2, 3, 4, 5), (0, 1, 2, 3), (240, 80, 20, 4)),
    ],
)
def test_normal_strides_are_those_of_axes_without_gaps(
    shape: tuple[int, ...], order: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    dense = np.zeros([shape[axis] for axis in order], np.float32)
    array = dense.transpose(np.argsort(order))
    assert array.shape == shape
    for stride in STRIDES:
        assert normal_strides(restrided(array, stride)) == wanted
