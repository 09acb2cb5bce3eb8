"""Exceptions in kernels: with ``debug=True`` they are reported, as Numba does after a launch."""

from __future__ import annotations

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

import emulator_kernels as kernels  # noqa: E402 - after the look for the package
from emulator_helpers import launch as launch_clean  # noqa: E402
from emulator_helpers import line_of  # noqa: E402
from fastconv import cuda_emulator  # noqa: E402

ORDERS = ["forward", "reverse", 7]


def run(kernel, *args, checks=cuda_emulator.ALL, **options):
    kernel = cuda_emulator.EmulatedKernel(kernel)
    return kernel.launch(2, 32, args, checks=checks, **options)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("checks", [cuda_emulator.FAST, cuda_emulator.ALL])
def test_an_assertion_that_fails_names_kernel_thread_block_and_message(checks, order):
    out = np.zeros(64, np.int64)
    (fault,) = run(kernels.asserts, out, 41, checks=checks, order=order).faults
    assert issubclass(fault.error, AssertionError)
    assert issubclass(fault.error, cuda_emulator.RaisedError)
    assert fault.lines == (line_of(kernels.asserts.py_func, "assert i"),)
    message = fault.message
    assert message.startswith("asserts: AssertionError: five is enough, at ")
    assert "of block (1, 0, 0)" in message
    if order == "forward":
        assert "thread (9, 0, 0)" in message
    assert f"emulator_kernels.py:{fault.lines[0]}" in message
    np.testing.assert_array_equal(out, np.where(np.arange(64) < 41, np.arange(64), 0))
    assert run(kernels.asserts, out, 64, checks=checks, order=order).faults == []


def test_launching_as_numba_does_raises():
    out = np.zeros(64, np.int64)
    with pytest.raises(AssertionError, match=r"asserts: AssertionError: five is enough"):
        cuda_emulator.EmulatedKernel(kernels.asserts)[2, 32](out, 5)
    cuda_emulator.EmulatedKernel(kernels.asserts)[2, 32](out, 64)


@pytest.mark.parametrize(
    ("what", "text", "function", "line"),
    [
        (0, "IndexError: no such place, 7", kernels.raises, "raise IndexError"),
        (1, "AssertionError", kernels.raises, "assert what"),
        (2, "ZeroDivisionError: ", kernels.raises, "out[i] = i //"),
        (3, "AssertionError: only of what is not negative", kernels.half, "assert a"),
        (4, "ArithmeticError: odd", kernels.half, "raise Arith"),
    ],
)
def test_every_exception_is_told_from_the_others(what, text, function, line):
    """Numbers of exceptions begin anew in every device function."""
    out = np.zeros(64, np.int64)
    (fault,) = run(kernels.raises, out, what).faults
    assert fault.message.startswith(f"raises: {text}")
    assert "thread (8, 0, 0) of block (1, 0, 0)" in fault.message
    assert fault.lines == (line_of(function.py_func, line),)
    assert issubclass(fault.error, AssertionError) == text.startswith("Assert")
    assert out.sum() == 63
    assert out[40] == 0


def test_several_exceptions_are_several_faults():
    faults = run(kernels.raises_in_two_places, np.zeros(64)).faults
    assert sorted(fault.message.split(", at")[0] for fault in faults) == [
        "raises_in_two_places: AssertionError",
        "raises_in_two_places: ValueError: three",
    ]


def test_nobody_waits_for_who_has_raised():
    out = np.zeros(64)
    (fault,) = run(kernels.raises_before_a_barrier, out).faults
    assert issubclass(fault.error, AssertionError)
    assert out.sum() == 62


def test_what_is_raised_in_another_order_is_reported_too():
    report = run(kernels.raises_in_another_order, np.zeros(1, np.int32))
    assert any(issubclass(fault.error, AssertionError) for fault in report.faults)


def test_without_debug_the_thread_ends_as_on_a_gpu():
    out = np.zeros(64, np.int64)
    launch_clean(kernels.asserts.py_func, out, 41, grid=2)
    np.testing.assert_array_equal(out, np.where(np.arange(64) < 41, np.arange(64), 0))
