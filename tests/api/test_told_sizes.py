"""Sizes that a problem refuses are told by the name of the argument that they came by.

A problem has a field for the sizes of its input, which a gradient's caller tells as ``input_size``,
that of `fold` as ``output_size``, and most by an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad
from fastconv.contract.errors import ShapeError

X, W = np.ones((2, 4, 6, 7), np.float32), np.ones((6, 4, 3, 3), np.float32)
FLAT, OFFSET = np.ones((2, 4, 0, 7), np.float32), np.zeros((2, 18, 4, 5), np.float32)
GRADS, WRONG = np.ones((2, 6, 4, 5), np.float32), np.ones(3, np.float32)
HUGE = (2, 4, 1 << 62, 7)

#: Calls with a size that a problem refuses, and the argument that told it.
TOLD_SIZES: dict[str, tuple[Callable[[], Any], str]] = {
    "max_pool2d": (lambda: fastconv.max_pool2d(FLAT, 2), "input"),
    "pixel_shuffle": (lambda: fastconv.pixel_shuffle(FLAT, 2), "input"),
    "deform_conv2d": (lambda: fastconv.deform_conv2d(FLAT, OFFSET, W), "input"),
    "unfold": (lambda: fastconv.unfold(FLAT, 2), "input"),
    "fold": (lambda: fastconv.fold(np.ones((2, 4, 9), np.float32), 1 << 62, 2), "output_size"),
    "adaptive": (lambda: fastconv.adaptive_avg_pool2d(X, 1 << 62), "output_size"),
    "max_unpool2d": (
        lambda: fastconv.max_unpool2d(X, np.zeros(X.shape, np.int64), 2, output_size=HUGE[2:]),
        "output_size",
    ),
    "interpolate": (lambda: fastconv.interpolate(FLAT, 3), "input"),
    "avg_pool2d_input": (lambda: grad.avg_pool2d_input(HUGE, X, 2), "input_size"),
    "adaptive_input": (lambda: grad.adaptive_avg_pool2d_input(HUGE, X), "input_size"),
    "max_pool2d_input": (
        lambda: grad.max_pool2d_input(HUGE, np.zeros(X.shape, np.int64), X), "input_size",
    ),
    "interpolate_input": (lambda: grad.interpolate_input(HUGE, X, (6, 7)), "input_size"),
    "conv2d_input": (lambda: grad.conv2d_input(HUGE, W, GRADS), "input_size"),
    "conv2d_weight": (lambda: grad.conv2d_weight(X, (6, 4, 7, 3), GRADS), "weight_size"),
    "conv_transpose2d_input": (
        lambda: grad.conv_transpose2d_input((2, 6, 1 << 62, 7), W, GRADS), "input_size",
    ),
    "deform_conv2d_input": (
        lambda: grad.deform_conv2d_input((2, 5, 6, 7), OFFSET, W, GRADS), "input_size",
    ),
    "deform_conv2d_weight": (
        lambda: grad.deform_conv2d_weight(X, OFFSET, (0, 4, 3, 3), GRADS), "weight_size",
    ),
    "an output": (
        lambda: grad.deform_conv2d_offset(X, OFFSET, W, GRADS, out=WRONG), "out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD_SIZES)
def test_a_size_is_named_by_the_argument_that_told_it(name: str) -> None:
    call, argument = TOLD_SIZES[name]
    with pytest.raises(ShapeError, match=f"^{argument}: got"):
        call()
