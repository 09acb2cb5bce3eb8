"""The Winograd matrices compute the correlation that they stand for, in exact fractions."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from fastconv.kernels.cook_toom import Matrix, matrices


def times(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


FORMS = [
    (m, r, stride)
    for m in range(2, 7)
    for r in range(1, 8)
    for stride in range(1, min(r, 4) + 1)
    if m + -(-r // stride) - 1 <= 12  # there are points for so many
]


@pytest.mark.parametrize(("m", "r", "stride"), FORMS)
def test_matrices_compute_a_strided_correlation(m: int, r: int, stride: int) -> None:
    source = random.Random(100 * m + 10 * r + stride)
    at, g, bt = matrices(m, r, stride)
    n = stride * (m - 1) + r
    assert (len(at), len(g), len(bt)) == (m, n, n)
    x = [Fraction(source.randint(-9, 9)) for _ in range(n)]
    w = [Fraction(source.randint(-9, 9)) for _ in range(r)]
    products = [a * b for a, b in zip(times(g, w), times(bt, x), strict=True)]
    wanted = [sum(w[t] * x[stride * i + t] for t in range(r)) for i in range(m)]
    assert times(at, products) == wanted


@pytest.mark.parametrize(("m", "samples"), [(2, 1), (2, 2), (3, 3), (4, 4), (2, 4)])
def test_few_samples_take_as_many_products_as_taps(m: int, samples: int) -> None:
    source, r = random.Random(10 * m + samples), m + samples - 1
    at, g, bt = matrices(m, r, 1, samples)
    assert (len(at), len(g), len(bt), len(bt[0])) == (m, r, r, samples)
    x = [Fraction(source.randint(-9, 9)) for _ in range(samples)]
    w = [Fraction(source.randint(-9, 9)) for _ in range(r)]
    products = [a * b for a, b in zip(times(g, w), times(bt, x), strict=True)]
    wanted = [sum(x[s] * w[s - i + m - 1] for s in range(samples)) for i in range(m)]
    assert times(at, products) == wanted


def test_a_phase_of_one_tap_costs_no_multiplication() -> None:
    _, _, bt = matrices(4, 3, 2)
    assert sum(row.count(0) == len(row) - 1 for row in bt) == 4
