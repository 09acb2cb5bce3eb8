"""Kernels with assertions, in a file whose ``assert`` pytest does not rewrite."""

from __future__ import annotations

from numba import cuda


@cuda.jit(device=True)
def half(a):
    assert a >= 0, "only of what is not negative"
    if a % 2:
        raise ArithmeticError("odd")
    return a // 2


@cuda.jit(device=True)
def quarter(a):
    return half(half(a))


@cuda.jit(debug=True, opt=False)
def asserts(out, limit):
    i = cuda.grid(1)
    assert i < limit, "five is enough"
    out[i] = i


@cuda.jit(opt=False, debug=True)
def raises(out, what):
    i = cuda.grid(1)
    if i == 40:
        if what == 0:
            raise IndexError("no such place", 7)
        if what == 1:
            assert what == 0
        if what == 2:
            out[i] = i // (what - 2)
        if what == 3:
            out[i] = quarter(what - 4)
        if what == 4:
            out[i] = quarter(what + 2)
    out[i] = 1


@cuda.jit(debug=True, opt=False)
def raises_before_a_barrier(out):
    t = cuda.threadIdx.x
    assert t != 3
    cuda.syncthreads()
    out[cuda.grid(1)] = 1


@cuda.jit(debug=True, opt=False)
def raises_in_another_order(out):
    i = cuda.grid(1)
    if i == 0:
        cuda.atomic.exch(out, 0, 1)
    if i == 63:
        assert cuda.atomic.add(out, 0, 0) == 1


@cuda.jit(debug=True, opt=False)
def raises_in_two_places(out):
    if cuda.grid(1) == 3:
        raise ValueError("three")
    assert cuda.grid(1) != 35
