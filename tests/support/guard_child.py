"""Every array of a call, and its workspace, against a page that may not be touched.

    python tests/support/guard_child.py KERNEL before|after PERCENT SEED

A kernel that reads or writes a single byte outside an array ends the process with SIGSEGV; the
last line printed is the call that did it. PERCENT of the matrix is drawn by SEED. Run by
cpu/test_guard_pages.py.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import zlib

import numpy as np

from fastconv import dispatch
from fastconv.kernels.cpu.machine.lines import whole_lines
from fastconv.kernels.cpu.runtime import scratch
from helpers import (
    assert_close,
    assert_exact,
    expected,
    functional,
    packed,
    refusals,
    small_integers,
)
from problem_matrix import matrix

LIBC = ctypes.CDLL(None, use_errno=True)
PROT_NONE = 0


def guarded(values: np.ndarray, side: str) -> np.ndarray:
    """A copy of dense `values` that begins right after, or ends right before, a forbidden page."""
    page, size = mmap.PAGESIZE, values.nbytes
    pages = -(-max(size, 1) // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    guard = start if side == "before" else start + pages * page
    if LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    offset = page if side == "before" else pages * page - size
    # The strides of `values` are kept: it is dense in some order of its axes.
    order = np.argsort([-stride for stride in values.strides], kind="stable")
    shape = tuple(values.shape[axis] for axis in order)
    flat = np.frombuffer(memory, np.uint8, size, offset).view(values.dtype)
    array = flat.reshape(shape).transpose(np.argsort(order))
    array[...] = values
    return array


def guard_workspaces(side: str) -> None:
    """Let calls borrow nothing but memory against such a page, each its own; to whole lines."""
    scratch._MOST_KEPT = 0
    scratch.aligned = lambda size: guarded(np.zeros(whole_lines(size), np.uint8), side)


def main(kernel: str, side: str, percent: str, seed: str) -> None:
    guard_workspaces(side)
    rng = np.random.default_rng(5)
    spec = next(spec for spec in dispatch.kernels(device="cpu") if spec.name == kernel)
    count = 0
    for of in matrix():
        if zlib.crc32(f"{seed} {of.line()}".encode()) % 100 >= int(percent):
            continue
        if refusals(spec, of) or of.layout == "strided" or of.batch == 0:
            continue
        print(of.line(), flush=True)
        t = small_integers(of, rng)
        sums = expected(of, t, epilogue=True)
        truth = np.maximum(sums, 0)
        layout_like = np.zeros_like(t.residual)
        for name in ("x", "weight", "bias", "residual"):
            setattr(t, name, guarded(getattr(t, name), side))
        out = guarded(layout_like, side)
        call = packed if count % 3 == 0 else functional
        with dispatch.use_kernel(spec.name):
            call(of, t, epilogue=True, activation="relu", out=out)
        if spec.exact:
            assert_exact(out, truth)
        else:
            assert_close(out, truth, spec.tolerance[of.dtype], before_activation=sums)
        count += 1
    print(f"passed {count} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
