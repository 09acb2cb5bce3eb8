"""One axis far longer than the others, each in turn: every kernel that can run it."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.contract.spec import KernelSpec
from helpers import assert_close, assert_exact, expected, functional, refusals, small_integers
from problem_matrix import problem

PROBLEMS = {
    "a signal": problem((1, 1), (10_000_000,), 3),
    "a signal and a long filter": problem((1, 1), (400_000,), 64, padding=32),
    "a strided signal": problem((2, 16), (1_000_000,), 5, stride=4, padding=2),
    "a thinned signal": problem((1, 1), (10_000_000,), 2, stride=300_000, dilation=7_000_000),
    "a row": problem((2, 2), (2, 1_000_000), 3, padding=1, groups=2),
    "a column": problem((2, 4), (1_000_000, 2), 3, padding=1),
    "a dilated row": problem((2, 16), (300_000,), 3, dilation=100_000, padding=100_000),
    "channels last": problem((3, 16), (300_000, 1), (3, 1), layout="channels_last"),
    "input channels": problem((300_000, 2), (2, 3), 1),
    "output channels": problem((2, 300_000), (3,), 2),
    "groups": problem((200_000, 200_000), (5,), 3, padding=1, groups=200_000),
    "images": problem((2, 3), (2, 3), 2, batch=300_000),
    "taps": problem((1, 1), (30_000,), 20_000),
    "padding": problem((1, 2), (9,), 3, padding=300_000),
    "half precision": problem((1, 1), (1_000_000,), 3, dtype="float16"),
}


def cases() -> list[object]:
    return [
        pytest.param(spec, name, id=f"{spec.name}-{name.replace(' ', '_')}")
        for spec in dispatch.kernels(op="conv", device="cpu")
        for name, each in PROBLEMS.items()
        if not refusals(spec, each)
    ]


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "name"), cases())
def test_a_long_axis(spec: KernelSpec, name: str, rng: np.random.Generator) -> None:
    each = PROBLEMS[name]
    tensors = small_integers(each, rng)
    with dispatch.use_kernel(spec.name):
        result = functional(each, tensors, epilogue=True, out=None)
    truth = expected(each, tensors, epilogue=True)
    if spec.exact and np.max(np.abs(truth)) < 2**11:  # whole numbers of float16 too
        assert_exact(result, truth)
    else:
        assert_close(result, truth, spec.tolerance[each.dtype])
