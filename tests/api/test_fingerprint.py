"""Fingerprints: whatever is written to memory is seen, and nothing else is taken for a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.fingerprint import Fingerprint
from fastconv.kernels.cpu.runtime.fingerprint import Parts

#: Bytes: less than a word, words, blocks of 256, parts of 131,072, and what is left behind them.
SIZES = [1, 4, 7, 8, 15, 255, 256, 257, 519, 131_071, 131_072, 131_073, 131_336, 1_000_003]


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_counts(size: int, rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, size, np.uint8)
    seen = Fingerprint([array])
    assert seen.holds([array]) and seen.holds([array.copy()])
    ends = {0, size // 8 * 8 - 1, size // 256 * 256 - 1, size // 256 * 256, 131_071, 131_072}
    drawn = rng.integers(0, size, 30).tolist()
    for place in {*ends, *range(size - 8, size), *drawn}:
        if 0 <= place < size:
            for bit in (1, 16, 128):
                array[place] ^= bit
                assert not seen.holds([array]), place
                array[place] ^= bit
    assert seen.holds([array])


@pytest.mark.parametrize("size", [64, 96, 8192, 65_536])
def test_the_order_of_what_is_equal_counts(size: int) -> None:
    """Blocks or words that change places, or change by as much."""
    array = np.zeros(size, np.float32)
    seen = set()
    for place in range(0, size, max(1, size // 512)):
        array[place] = 1
        seen.add(Parts([(array.ctypes.data, array.nbytes)]).fingerprints())
        array[place] = 0
    assert len(seen) == min(size, 512)
    ones = Fingerprint([np.ones(size, np.float32)])
    assert not any(ones.holds([np.full(size, x, np.float32)]) for x in (0, -1, 2, 0.5, np.nan))


def test_zeros_of_other_signs_differ_and_a_nan_is_itself() -> None:
    zeros, nans = np.zeros(100, np.float32), np.full(100, np.nan, np.float32)
    assert Fingerprint([nans]).holds([nans.copy()])
    assert not Fingerprint([zeros]).holds([-zeros])


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(np.int32),
        lambda a: a.view(np.int32),
        lambda a: a.reshape(6, 4),
        np.asfortranarray,
        lambda a: None,
    ],
)
def test_type_shape_and_order_count(change: Callable[[Any], Any]) -> None:
    array = np.zeros((4, 6), np.float32)
    seen = Fingerprint([array, None], (1, "word"))
    assert seen.holds([array, None], (1, "word"))
    assert not seen.holds([change(array), None], (1, "word"))
    assert not seen.holds([array, None], (2, "word"))
    assert not seen.holds([array], (1, "word"))
    assert not seen.holds([array, array], (1, "word"))


@pytest.mark.parametrize("kind", ["permuted", "gaps", "negative", "repeated", "empty", "scalar"])
def test_arrays_however_they_lie(kind: str, rng: np.random.Generator) -> None:
    base = rng.standard_normal((6, 8, 10)).astype(np.float32)
    array = {
        "permuted": base.transpose(2, 0, 1),
        "gaps": base[:, ::2, 1:],
        "negative": base[::-1],
        "repeated": np.broadcast_to(base[0, 0], (3, 10)),
        "empty": base[:0],
        "scalar": base[0, 0, 0:1].reshape(()),
    }[kind]
    seen = Fingerprint([array])
    assert seen.holds([array])
    base[0, 0, 3 if kind != "scalar" else 0] += 1
    base[-1, 4, 5] += 1
    assert seen.holds([array]) == (kind == "empty")


def test_what_lies_beside_an_array_does_not_count() -> None:
    base = np.zeros(1000, np.uint8)
    seen = Fingerprint([base[100:777]])
    base[99] = base[777] = 1
    assert seen.holds([base[100:777]])


def test_the_same_for_any_number_of_threads(rng: np.random.Generator) -> None:
    array = rng.standard_normal(1_000_001).astype(np.float32)
    threads = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(1)
        seen = Fingerprint([array])
        fastconv.set_num_threads(2)
        assert seen.holds([array])
        array[700_000] += 1
        assert not seen.holds([array])
    finally:
        fastconv.set_num_threads(threads)
