"""Every array of a formula against a page that may not be touched; run by cpu/test_elementwise.py.

    python tests/support/elementwise_guard_child.py before|after

What reads or writes a single byte outside an array ends the process with SIGSEGV; the last line
printed is the call that did it.
"""

from __future__ import annotations

import sys

import numpy as np

from fastconv.contract.formula import Formula, Operation
from fastconv.kernels.cpu.elementwise.plan import plan_formula
from guard_child import guarded
from helpers import DTYPES, in_layout

SUM = Formula(3, (0.5,), (Operation("mul", (0, 3)), Operation("add", (4, 1)),
                          Operation("max", (5, 2))))  # fmt: skip
SHAPES = [
    [(size,)] * 3 for size in (1, 2, 3, 7, 8, 9, 31, 33, 255, 2048, 2049, 5000)
] + [
    [(3, 37), (37,), (3, 1)], [(2, 5, 4, 3), (5, 1, 1), (2, 1, 4, 3)], [(3, 1, 70), (1, 9, 1), ()],
]  # fmt: skip


def main(side: str) -> None:
    rng, count = np.random.default_rng(7), 0
    for shapes in SHAPES:
        shape = np.broadcast_shapes(*shapes)
        for name, dtype in DTYPES.items():
            drawn = [np.asarray(rng.integers(-9, 10, each), dtype) for each in shapes]
            if len(shape) == 4:
                drawn[0] = in_layout(drawn[0], "channels_last")
            arrays = [guarded(each, side) for each in drawn]
            out = guarded(np.zeros(shape, dtype), side)
            print(shapes, name, flush=True)
            strides = [np.broadcast_to(each, shape).strides for each in arrays]
            plan = plan_formula(SUM, name, shape, [*strides, out.strides])
            assert plan is not None
            plan.run(*arrays, out)
            x, y, z = (each.astype(np.float64) for each in drawn)
            np.testing.assert_array_equal(out.astype(np.float64), np.maximum(x / 2 + y, z))
            count += 1
    print(f"passed {count} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
