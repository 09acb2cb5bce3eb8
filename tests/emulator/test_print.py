"""``print`` in kernels."""

from __future__ import annotations

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from fastconv import cuda_emulator  # noqa: E402 - after the look for the package


def speaks(x):
    i = cuda.grid(1)
    if i < x.size:
        print("thread", i, "has", x[i], i > 1, "100%")
    cuda.syncthreads()
    if i == 0:
        print("done")
        print()


@pytest.mark.parametrize("checks", [cuda_emulator.FAST, cuda_emulator.ALL])
def test_text_and_values_come_in_order_and_once(checks, capsys):
    """Once, though a launch with all checks runs in three orders."""
    x = np.array([1.5, -2, np.inf, np.nan, 5], np.float32)
    cuda_emulator.EmulatedKernel(speaks).launch(3, 2, (x,), checks=checks)
    assert capsys.readouterr().out.splitlines() == [
        "thread 0 has 1.500000 False 100%",
        "thread 1 has -2.000000 False 100%",
        "done",
        "",
        "thread 2 has inf True 100%",
        "thread 3 has nan True 100%",
        "thread 4 has 5.000000 True 100%",
    ]


def test_other_orders_print_as_they_run(capsys):
    kernel = cuda_emulator.EmulatedKernel(speaks)
    kernel.launch(1, 3, (np.ones(3, np.float32),), order="reverse")
    words = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert words == [["thread", "2"], ["thread", "1"], ["thread", "0"], ["done"], []]


def every_type(a, b, c, d, e):
    print(a[0], b[0], c[0], d[0], cuda.threadIdx.x, e, (a[0], b[0]), cuda.blockDim)


def test_every_type_that_numba_prints(capsys):
    arrays = (
        np.array([-(2**63)]), np.array([2**64 - 1], np.uint64), np.array([-7], np.int8),
        np.array([0.1], np.float64),
    )  # fmt: skip
    cuda_emulator.EmulatedKernel(every_type)[1, 1](*arrays, True)
    assert capsys.readouterr().out == (
        "-9223372036854775808 18446744073709551615 -7 0.100000 0 True "
        "(-9223372036854775808, 18446744073709551615) (1, 1, 1)\n"
    )


def test_many_blocks_over_two_host_threads(capsys):
    def counts(x):
        print(cuda.blockIdx.z, cuda.blockIdx.y, cuda.blockIdx.x)
        x[0] = 1

    cuda_emulator.EmulatedKernel(counts).launch((5, 4, 3), 1, (np.zeros(1),))
    found = [tuple(map(int, line.split())) for line in capsys.readouterr().out.splitlines()]
    assert found == [(z, y, x) for z in range(3) for y in range(4) for x in range(5)]
