"""Twins of ``mma.sync``: the matrix product of a warp, m16n8k8 and m16n8k16 into float32.

Fragments as PTX's manual lays them out. With ``g = lane // 4`` and ``t = lane % 4``::

    C   c0 (g, 2t)  c1 (g, 2t+1)  c2 (g+8, 2t)  c3 (g+8, 2t+1)
    A   tf32, k8:   a0 (g, t)  a1 (g+8, t)  a2 (g, t+4)  a3 (g+8, t+4)
        16 bits:    registers hold columns 2t and 2t+1 of rows g, g+8, and again 8 columns on
    B   tf32, k8:   b0 (t, g)  b1 (t+4, g)
        16 bits:    registers hold rows 2t and 2t+1 of column g, and again 8 rows on

Sums are kept in float64 and rounded once; a GPU's own rounding is not documented.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from . import context as c

__all__ = ["multiply"]


@njit(nogil=True, error_model="numpy")
def _half(bits: int) -> float:
    sign = -1.0 if bits & 0x8000 else 1.0
    exponent, fraction = (bits >> 10) & 31, bits & 1023
    if exponent == 31:
        return sign * np.inf if fraction == 0 else np.nan
    if exponent == 0:
        return sign * fraction * 2.0**-24
    return sign * (1024 + fraction) * 2.0 ** (exponent - 25)


@njit(nogil=True, error_model="numpy")
def _element(words: Any, reals: Any, thread: int, slot: int, high: int, opcode: int) -> float:
    """One number of a register of A or B."""
    bits = words[thread, slot]
    if opcode == c.MMA_TF32:
        # The hardware does not look at the low 13 bits.
        words[thread, slot] = bits & ~0x1FFF
        value = float(reals[thread, slot])
        words[thread, slot] = bits
        return value
    part = (bits >> (16 * high)) & 0xFFFF
    if opcode == c.MMA_BF16_K16:
        words[thread, slot] = part << 16
        value = float(reals[thread, slot])
        words[thread, slot] = bits
        return value
    return _half(part)


@njit(nogil=True, error_model="numpy")
def multiply(words: Any, reals: Any, first: int, opcode: int, operand: int, result: int) -> None:
    """Carry out D = A B + C for the 32 lanes from `first` on."""
    depth = 8 if opcode == c.MMA_TF32 or opcode == c.MMA_F16_K8 else 16
    a = np.zeros((16, 16))
    b = np.zeros((16, 8))
    registers = 2 if opcode == c.MMA_F16_K8 else 4
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for i in range(registers + registers // 2):
            slot = operand + 2 * i
            in_a = i < registers
            for high in range(1 if opcode == c.MMA_TF32 else 2):
                value = _element(words, reals, first + lane, slot, high, opcode)
                if in_a:
                    column = (
                        t + 4 * (i // 2) if opcode == c.MMA_TF32 else 2 * t + high + 8 * (i // 2)
                    )
                    a[g + 8 * (i % 2), column] = value
                else:
                    j = i - registers
                    row = t + 4 * j if opcode == c.MMA_TF32 else 2 * t + high + 8 * j
                    b[row, g] = value
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for i in range(4):
            row, column = g + 8 * (i // 2), 2 * t + i % 2
            total = float(reals[first + lane, operand + 2 * (registers + registers // 2 + i)])
            for k in range(depth):
                total += a[row, k] * b[k, column]
            reals[first + lane, result + i] = total
