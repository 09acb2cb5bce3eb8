"""Every array of an operator without a weight, and its workspace, against a forbidden page.

    python tests/support/array_guard_child.py OPERATOR before|after

A kernel that reads or writes a single byte outside an array ends the process with SIGSEGV; the
last line printed is the call that did it.
"""

from __future__ import annotations

import sys
from pkgutil import resolve_name

import numpy as np

import fastconv
from array_matrix import draw, problems
from fastconv import dispatch
from guard_child import guard_workspaces, guarded


def main(op: str, side: str) -> None:
    guard_workspaces(side)
    rng, count = np.random.default_rng(7), 0
    for of in problems(op):
        if of.layout == "strided":
            continue
        given = draw(of, rng, integers=True)
        function = resolve_name(f"fastconv.{of.call().function}")
        args, keywords = of.arguments(given)
        plain = function(*args, **keywords)
        plain = plain[0] if isinstance(plain, tuple) else plain
        for row in fastconv.explain(of).rows:
            if row.milliseconds is None:
                continue
            print(row.kernel, of.line(), flush=True)
            with dispatch.use_kernel(row.kernel):
                args, keywords = of.arguments([guarded(array, side) for array in given])
                out = guarded(np.zeros_like(plain), side)
                function(*args, **keywords, out=out)
            np.testing.assert_allclose(
                out.astype(np.float64), plain.astype(np.float64), rtol=1e-5, atol=1e-5
            )
            count += 1
    print(f"passed {count} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
