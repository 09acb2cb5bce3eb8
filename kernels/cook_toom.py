"""Cook-Toom (Winograd) matrices from exact fractions, for any tile and kernel size.

``F(m, r)`` computes m outputs of an r-tap correlation with ``n = m + r - 1`` products instead of
``m r``: ``y = A^T ((G w) * (B^T x))``, where * is the product element by element. The matrices come
from evaluating polynomials at n - 1 points and at infinity; in two and three dimensions they are
applied along each axis in turn.

With a stride, tap t meets input sample ``stride i + t``: the taps of one remainder modulo the
stride are a dense kernel on every stride-th sample, and the output is the sum of these *phases*.
Their matrices side by side are one triple again, with ``n = stride (m - 1) + r`` for any stride:
F(4, 3) with stride 2 has 5 products for taps 0 and 2 and 4 for tap 1, the definition 12.

Where a tile has no more samples than taps meet in its middle (the sub-grids of a large dilation),
kernel and samples exchange their roles: two outputs of 3 taps that see 2 samples, ``y0 = w1 x0 +
w2 x1`` and ``y1 = w0 x0 + w1 x1``, are the correlation of the taps with the samples and take the 3
products of F(2, 2), not 4.

The points decide the rounding error. Small fractions around 1, in pairs of opposite sign, with
reciprocal pairs (p, 1/p), keep the powers that occur in the matrices close to each other; those
below are the best found over all small fractions, by the largest error of random layers. For
F(4, 3) they are four times as accurate as the usual (0, 1, -1, 2, -2).

Sources: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks",
arXiv:1509.09308; B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
Convolution for Deep Neural Networks", arXiv:1803.10986.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from math import prod

__all__ = ["Matrix", "matrices", "points"]

Matrix = tuple[tuple[Fraction, ...], ...]

# Magnitudes of the pairs beside 0, and a last single point where the number is even; by n.
_PAIRS: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    3: ((), ("1",)),
    4: (("1",), ()),
    5: (("2/3",), ("2",)),
    6: (("5/7", "7/5"), ()),
    7: (("1/2", "1"), ("5/2",)),
    8: (("1/2", "1", "2"), ()),
    9: (("1/2", "4/5", "4/3"), ("2",)),
    10: (("2/5", "4/5", "5/4", "5/2"), ()),
    11: (("1/4", "1", "3/2", "5/2"), ("2/3",)),
    12: (("1/4", "4/5", "1", "7/5", "3"), ()),
}


def points(n: int) -> list[Fraction]:
    """Return the n - 1 finite interpolation points."""
    pairs, single = _PAIRS[n]
    chosen = [Fraction(0)]
    for magnitude in pairs:
        chosen += [Fraction(magnitude), -Fraction(magnitude)]
    return chosen + [Fraction(value) for value in single]


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """Return the coefficients, lowest first, of the monic polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [-root * value for value in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _power_of_two(row: list[Fraction]) -> Fraction:
    """Return the power of two that brings a row's largest entry to between 3/4 and 3/2."""
    scale, largest = Fraction(1), max(abs(value) for value in row)
    while largest * scale > Fraction(3, 2):
        scale /= 2
    while largest * scale <= Fraction(3, 4):
        scale *= 2
    return scale


def _dense(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return A^T (m x n), G (n x r) and B^T (n x n) of F(m, r) without a stride."""
    zero, one = Fraction(0), Fraction(1)
    if r == 1:
        unit = tuple(tuple(one if i == j else zero for j in range(m)) for i in range(m))
        return unit, ((one,),) * m, unit
    n = m + r - 1
    chosen = points(n)
    at = [[p**i for p in chosen] + [Fraction(int(i == m - 1))] for i in range(m)]
    g, bt = [], []
    for i, point in enumerate(chosen):
        others = chosen[:i] + chosen[i + 1 :]
        divisor = prod((point - other for other in others), start=one)
        g.append([point**j / divisor for j in range(r)])
        bt.append([*_polynomial(others), zero])
    g.append([Fraction(int(j == r - 1)) for j in range(r)])
    bt.append(_polynomial(chosen))
    for i in range(n):
        scale = _power_of_two(bt[i])
        bt[i] = [value * scale for value in bt[i]]
        g[i] = [value / scale for value in g[i]]
        # Products of small rows would vanish where those of the definition do not.
        scale = max(_power_of_two(g[i]), one)
        g[i] = [value * scale for value in g[i]]
        for row in at:
            row[i] /= scale
    return (
        tuple(tuple(row) for row in at),
        tuple(tuple(row) for row in g),
        tuple(tuple(row) for row in bt),
    )


def _spread(row: tuple[Fraction, ...], first: int, step: int, length: int) -> tuple[Fraction, ...]:
    """Return a row of `length` with the entries of `row` at ``first, first + step, ...``."""
    spread = [Fraction(0)] * length
    spread[first : first + step * len(row) : step] = row
    return tuple(spread)


@functools.cache
def matrices(m: int, r: int, stride: int = 1, samples: int = 0) -> tuple[Matrix, Matrix, Matrix]:
    """Return A^T (m x n), G (n x r) and B^T (n x n) of F(m, r).

    A stride larger than r passes over samples; it is allowed where m is 1. With `samples`, which
    must be ``r - m + 1``, a tile has only those that its first output sees from tap ``m - 1`` on;
    then n is r and B^T has as many columns.

    Rows of B^T are scaled by powers of two, which rounds nothing, and rows of G by the inverse. So
    are small rows of G, and columns of A^T by the inverse: a product is then about as large as the
    largest of those in its place, and comes no closer to the ends of the number range.

    Examples
    --------
    >>> at, g, bt = matrices(2, 3)
    >>> [[str(v) for v in row] for row in at]
    [['1', '1', '1', '0'], ['0', '1', '-1', '1']]
    """
    if samples:
        at, of_samples, of_taps = _dense(m, samples)
        return at[::-1], of_taps, of_samples
    n = stride * (m - 1) + r
    at = ((),) * m
    g: Matrix = ()
    bt: Matrix = ()
    for phase in range(min(stride, r)):
        of_phase = _dense(m, len(range(phase, r, stride)))
        at = tuple(a + b for a, b in zip(at, of_phase[0], strict=True))
        g += tuple(_spread(row, phase, stride, r) for row in of_phase[1])
        bt += tuple(_spread(row, phase, stride, n) for row in of_phase[2])
    return at, g, bt
