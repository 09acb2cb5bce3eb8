"""Neighbours in a row, out of vectors of it that lie end to end.

Every step-th element of `step` vectors, from each of the first `step` on, is a *phase*: outputs
that are `step` elements apart meet one phase with each tap, shifted by whole lanes. Everything here
runs while Numba compiles.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .ir import I32

__all__ = ["split_phases", "tap_vectors"]


def _lanes_of(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """Return lanes of two vectors laid end to end."""
    kind = ir.VectorType(I32, len(places))
    return builder.shuffle_vector(a, b, ir.Constant(kind, [I32(place) for place in places]))


def _end_to_end(builder: Any, vectors: list[Any]) -> Any:
    """Return as many vectors as one; what is undefined stands behind an odd one."""
    while len(vectors) > 1:
        if len(vectors) % 2:
            vectors = [*vectors, ir.Constant(vectors[0].type, ir.Undefined)]
        size = 2 * vectors[0].type.count
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_lanes_of(builder, a, b, list(range(size))) for a, b in pairs]
    return vectors[0]


def split_phases(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return the phases of vectors that lie end to end, as many as there are vectors."""
    step, lanes = len(vectors), vectors[0].type.count
    if step == 1:
        return vectors
    wide = _end_to_end(builder, vectors)
    return [
        _lanes_of(builder, wide, wide, [phase + step * lane for lane in range(lanes)])
        for phase in range(step)
    ]


def tap_vectors(builder: Any, here: list[Any], behind: list[Any], taps: int) -> list[Any]:
    """Return what each tap meets, of phases and of those behind them."""
    met, lanes = [], here[0].type.count
    for tap in range(taps):
        steps, phase = divmod(tap, len(here))
        shifted = list(range(steps, steps + lanes))
        first, second = here[phase], behind[phase]
        met.append(_lanes_of(builder, first, second, shifted) if steps else first)
    return met
