"""Taps so far apart that their distance does not fit in 32 bits; run by cpu/test_far_taps.py.

    python tests/support/far_taps_child.py KERNEL

Plans are made for the kernel itself, since a caller's problem may lose the taps that meet nothing
but padding before it gets here. A position that is cut to 32 bits looks as if it lay within the
input: the process ends with SIGSEGV, or numbers are wrong.
"""

from __future__ import annotations

import importlib
import mmap
import sys

import numpy as np

from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding
from helpers import DTYPES, in_layout
from problem_matrix import problem

#: Distances around which a lane number, a position or a byte offset passes 32 bits.
DISTANCES = (2**29, 2**30, 2**31, 2**32, 2**32 + 1, 2**33, 2**40, 2**46)


def run(kernel: str, of: ConvProblem, x: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """The output of one kernel, None where it refuses.

    That its taps reach too far counts only where the kernel copies its input.
    """
    out = in_layout(np.full(of.out_shape, np.nan, x.dtype), of.layout)
    binding = Binding(x.strides, weight.strides, out.strides)
    spec = next(spec for spec in dispatch.kernels(device="cpu") if spec.name == kernel)
    in_place = of.layout == "channels_first" and kernel in ("cpu.direct", "cpu.depthwise")
    against = [text for text in spec.reasons(of, cpu_info()) if not (in_place and "reach" in text)]
    if against:
        return None
    module, _, function = spec.target.partition(":")
    plan = getattr(importlib.import_module(module), function)(of, binding, cpu_info())
    plan.run(x, plan.pack(weight), None, None, out)
    return out


def only_the_middle_meets(kernel: str) -> int:
    """Three taps an axis, of which the outer ones lie in the padding, however far."""
    count = 0
    for distance in DISTANCES:
        kind = {"padding": ((distance, distance),), "dilation": distance}
        for channels, groups, size in (
            ((3, 2), 1, (9,)), ((20, 20), 20, (40,)), ((6, 40), 1, (21,)), ((3, 3), 3, (9, 33)),
            ((2, 17), 1, (3, 20)), ((2, 2), 2, (3, 4, 9)), ((4, 2), 2, (2, 3, 5)),
        ):  # fmt: skip
            kind["padding"] = ((distance, distance),) * len(size)
            for dtype, layout in (
                ("float32", "channels_first"), ("float64", "channels_first"),
                ("float32", "channels_last"),
            ):  # fmt: skip
                of = problem(channels, size, 3, groups=groups, dtype=dtype, layout=layout, **kind)
                x = in_layout(np.ones(of.x_shape, DTYPES[dtype]), layout)
                result = run(kernel, of, x, np.ones(of.weight_shape, x.dtype))
                if result is not None:
                    print(of.line(), flush=True)
                    assert np.all(result == channels[0] // groups), of.line()
                    count += 1
    return count


def both_ends_meet(kernel: str, dtype: str, stride: int) -> int:
    """Two taps far apart in a signal of which only the pages that are touched exist."""
    distance = 2**32 + 1
    kind = np.dtype(dtype)
    size = distance + 40 * stride
    pages = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # not reserved
    memory = mmap.mmap(-1, size * kind.itemsize, pages)
    x = np.frombuffer(memory, kind).reshape(1, 1, size)
    x[..., : 40 * stride] = np.arange(40 * stride) % 7
    x[..., -40 * stride :] = np.arange(40 * stride) % 5
    of = problem((1, 1), (size,), 2, dilation=distance, dtype=dtype, stride=stride)
    result = run(kernel, of, x, np.ones(of.weight_shape, kind))
    if result is None:
        return 0
    print(of.line(), flush=True)
    places = np.arange(40) * stride
    assert np.array_equal(result[0, 0], x[0, 0, places] + x[0, 0, places + distance])
    return 1


def main(kernel: str) -> None:
    count = only_the_middle_meets(kernel)
    if kernel in ("cpu.direct", "cpu.depthwise", "cpu.im2col_gemm", "cpu.swapped_gemm"):
        count += both_ends_meet(kernel, "float32", 1) + both_ends_meet(kernel, "float64", 2)
    print(f"passed {count} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
