"""Memory of large outputs is used again, and never while an array lies in it."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.arrays import empty_output
from fastconv.contract import recycling

SHAPE = (1, 9, 1024, 1024)  # 36 MB in float32


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    recycling._free.clear()


def large(shape: tuple[int, ...] = SHAPE, layout: str = "channels_first") -> np.ndarray:
    return empty_output(np.empty(0, np.float32), shape, layout)


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    out = large()
    address = out.ctypes.data
    view = out[0, 3:, 5]
    del out
    assert large().ctypes.data != address
    recycling._free.clear()
    view[...] = 7
    other = large()
    other.fill(1)
    assert np.all(view == 7)
    del view
    assert large().ctypes.data == address


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_outputs_are_whole_aligned_and_apart(layout: str) -> None:
    arrays = [large(layout=layout) for _ in range(3)]
    for number, array in enumerate(arrays):
        assert array.shape == SHAPE and array.dtype == np.float32
        assert array.ctypes.data % 64 == 0
        array.fill(number)
    for number, array in enumerate(arrays):
        assert np.all(array == number)


def test_a_block_serves_like_sizes_only_and_little_is_kept() -> None:
    del_me = large((1, 40, 1024, 1024))
    address = del_me.ctypes.data
    del del_me
    assert large().ctypes.data != address  # less than half of it
    again = large((1, 30, 1024, 1024))
    assert again.ctypes.data == address
    many = [large() for _ in range(12)]
    del many, again
    assert sum(block.size for block in recycling._free) <= 256 << 20


def test_small_outputs_are_not_kept() -> None:
    small = empty_output(np.empty(0, np.float32), (1, 4, 100, 100), "channels_first")
    del small
    assert not recycling._free
