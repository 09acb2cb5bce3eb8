"""Rulebooks on the CPU: against dictionaries, over a generated matrix of geometries."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastconv
import fastconv.sparse
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import DeviceError, DTypeError, ShapeError
from fastconv.contract.geometry import KINDS, Geometry
from fastconv.contract.rulebook import HASH_FACTOR, HashTable
from fastconv.kernels.cpu.rulebook import build as cpu_rulebook
from fastconv.kernels.cpu.rulebook import stage as rulebook_stage
from fastconv.kernels.reference import sparse as reference_sparse
from fastconv.sparse.rulebook import Rulebook


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide even a few rows into tasks."""
    monkeypatch.setattr(rulebook_stage, "_LEAST_ROWS", 4)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(fastconv.contract.settings.config, "num_threads", request.param)
    return request.param


def make_geometry(
    kind: str, shape: tuple[int, ...], kernel: int | tuple[int, ...] = 3, stride: int = 1,
    dilation: int = 1, padding: tuple[int, int] = (1, 1), more: int = 0, batch_size: int = 1,
) -> Geometry:  # fmt: skip
    """A geometry that is alike on all axes but for the kernel."""
    ndim = len(shape)
    sizes = kernel if isinstance(kernel, tuple) else (kernel,) * ndim
    pads = (padding,) * ndim
    if kind == "submanifold":
        reach = [dilation * (size - 1) for size in sizes]
        pads, stride = tuple((r // 2, r - r // 2) for r in reach), 1
    return Geometry(
        kind, shape, batch_size, sizes, (stride,) * ndim, (dilation,) * ndim, pads,
        (more if kind == "transposed" else 0,) * ndim,
    )  # fmt: skip


def matrix() -> Iterator[Geometry]:
    """Geometries of every kind and rank, with an output of at least one position."""
    shapes = [(23,), (7, 9), (4, 5, 6), (3, 4, 3, 5)]
    for kind, shape in itertools.product(KINDS, shapes):
        for kernel in (1, 2, 3, 4):
            for stride, dilation, padding in (
                (1, 1, (1, 1)), (2, 1, (0, 0)), (2, 2, (2, 1)), (3, 1, (0, 2)),
            ):  # fmt: skip
                if kind == "submanifold" and stride > 2:
                    continue
                with contextlib.suppress(ShapeError):  # of a grid after that is empty
                    yield make_geometry(
                        kind, shape, kernel, stride, dilation, padding, stride - 1, 2
                    )
    yield make_geometry("submanifold", (4, 5, 6), (1, 3, 5))
    yield make_geometry("submanifold", (4, 5, 6), (2, 3, 4), dilation=2)
    yield make_geometry("regular", (9, 9), (5, 1), 2, padding=(2, 2))


def name_of(geometry: Geometry) -> str:
    return (
        f"{geometry.kind} {geometry.in_shape} k{geometry.kernel_size} s{geometry.stride[0]} "
        f"d{geometry.dilation[0]} p{geometry.padding[0]}"
    )


def draw_sites(geometry: Geometry, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Different sites in any order."""
    grid = (geometry.batch_size, *geometry.in_shape)
    cells = rng.choice(math.prod(grid), rows, replace=False)
    return np.stack(np.unravel_index(cells, grid), 1).astype(np.int32)


def check(geometry: Geometry, indices: np.ndarray) -> None:
    """Compare the rulebooks of one and of two threads with the reference's."""
    out_indices, table = reference_sparse.build(geometry, indices)
    settings, before = fastconv.contract.settings.config, fastconv.get_num_threads()
    for threads in (1, 2):
        try:
            settings.num_threads = threads
            book = Rulebook.build(geometry, indices)
        finally:
            settings.num_threads = before
        np.testing.assert_array_equal(book.out_indices, out_indices, strict=True)
        np.testing.assert_array_equal(book.neighbours, table, strict=True)
        assert book.pairs == np.count_nonzero(table >= 0)
        if geometry.kind == "submanifold":
            assert book.out_indices.base is book.in_indices.base


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("geometry", list(matrix()), ids=name_of)
def test_build(geometry: Geometry, rng: np.random.Generator) -> None:
    cells = geometry.batch_size * math.prod(geometry.in_shape)
    for rows in (0, 1, min(cells, 30), cells):
        check(geometry, draw_sites(geometry, rows, rng))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_build_of_any_geometry(data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, 4))
    kind = data.draw(st.sampled_from(KINDS))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    shape, kernel, dilation = each(1, 6), each(1, 5), each(1, 3)
    stride, low, high, more = each(1, 4), each(0, 4), each(0, 4), each(0, 2)
    if kind == "submanifold":
        reach = [(k - 1) * hole for k, hole in zip(kernel, dilation, strict=True)]
        low, high = tuple(r // 2 for r in reach), tuple(r - r // 2 for r in reach)
        stride = (1,) * ndim
    more = more if kind == "transposed" else (0,) * ndim
    pads = tuple(zip(low, high, strict=True))
    batch_size = data.draw(st.integers(1, 3))
    try:
        geometry = Geometry(kind, shape, batch_size, kernel, stride, dilation, pads, more)
    except ShapeError:  # of a grid after that is empty, or of output padding
        assume(False)
    cells = geometry.batch_size * math.prod(shape)
    chosen = data.draw(st.lists(st.integers(0, cells - 1), max_size=40, unique=True))
    sites = np.stack(np.unravel_index(np.array(chosen, int), (geometry.batch_size, *shape)), 1)
    check(geometry, sites.astype(np.int32))


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("kind", KINDS)
def test_corners_of_a_wide_grid(kind: str, rng: np.random.Generator) -> None:
    wide = 1 << 20
    ends = (0, 1, 2, wide - 2, wide - 1)
    sites = np.array([(b, *at) for b in (0, 6) for at in itertools.product(ends, repeat=3)])
    rng.shuffle(sites)
    stride = 2 if kind == "regular" else 1
    geometry = make_geometry(kind, (wide,) * 3, 3, stride, batch_size=7)
    check(geometry, sites.astype(np.int32))


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_63_bits(kind: str) -> None:
    shape = (2**31 - 1, 2**31 - 1)
    sites = [(b, y, x) for b in (0, 1) for y in (0, 2**31 - 2) for x in (0, 5, 2**31 - 3)]
    # The grid of a transposed kernel is no larger than the one before.
    pads = (1, 1) if kind != "transposed" else (1, 2)
    geometry = make_geometry(kind, shape, 3, padding=pads, batch_size=2)
    check(geometry, np.array(sites[::-1], np.int32))


def test_a_grid_after_that_is_too_large() -> None:
    with pytest.raises(ShapeError, match="want at most 2"):
        make_geometry("transposed", (1 << 20,) * 3, 3, 2, batch_size=2)


@pytest.mark.usefixtures("small_tasks")
def test_the_same_bits_for_any_threads_and_order(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in KINDS:
        geometry = make_geometry(kind, (30, 40, 50), 3, 2, padding=(1, 1), batch_size=2)
        sites = draw_sites(geometry, 5000, rng)
        sites = sites[np.lexsort(sites.T[::-1])]
        made = []
        for threads in (1, 2, 3):
            monkeypatch.setattr(fastconv.contract.settings.config, "num_threads", threads)
            for _ in range(3):
                book = Rulebook.build(geometry, sites)
                made.append([book.out_indices, book.neighbours, book.masks, book.order,
                             *book.pair_lists, *book.hash_table,
                             book.reverse().neighbours])  # fmt: skip
        for other in made[1:]:
            for one, two in zip(made[0], other, strict=True):
                np.testing.assert_array_equal(one, two, strict=True)
        shuffle = rng.permutation(len(sites))
        book = Rulebook.build(geometry, np.ascontiguousarray(sites[shuffle]))
        table = np.where(book.neighbours < 0, -1, shuffle[book.neighbours])
        if kind == "submanifold":
            table = table[:, np.argsort(shuffle)]
        else:
            np.testing.assert_array_equal(book.out_indices, made[0][0])
        np.testing.assert_array_equal(table, made[0][1])
        np.testing.assert_array_equal(book.hash_table.keys, made[0][7])


@pytest.mark.usefixtures("small_tasks", "threads")
@pytest.mark.parametrize("rows", [0, 1, 7, 5000])
@pytest.mark.parametrize("shape", [(1 << 14,), (300, 400), (1 << 20, 1 << 20, 1 << 20)])
def test_sort_keys(rows: int, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    grid = (3, *shape)
    sites = np.stack([rng.integers(0, size, rows) for size in grid], 1).astype(np.int32)
    sites[rows // 2 :] = sites[: rows - rows // 2]  # some come twice
    keys, order = cpu_rulebook.sort_keys(shape, 3, sites)
    wanted = [0] * rows
    for column, size in zip(sites.T.tolist(), grid, strict=True):
        wanted = [key * size + place for key, place in zip(wanted, column, strict=True)]
    expected = sorted(range(rows), key=lambda row: (wanted[row], row))
    assert keys.dtype == np.int64 and order.dtype == np.int32
    assert order.tolist() == expected
    assert keys.tolist() == [wanted[row] for row in expected]
    again, unmoved = cpu_rulebook.sort_keys(shape, 3, np.ascontiguousarray(sites[order]))
    assert again.tolist() == keys.tolist() and unmoved.tolist() == list(range(rows))


@pytest.mark.usefixtures("small_tasks", "threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (9, 9)], ids=str)
def test_derived_tables(kind: str, kernel: tuple[int, int], rng: np.random.Generator) -> None:
    geometry = make_geometry(kind, (20, 30), kernel, padding=(4, 4), batch_size=2)
    sites = draw_sites(geometry, 300, rng)
    book = Rulebook.build(geometry, sites)
    table = book.neighbours

    back = book.reverse()
    np.testing.assert_array_equal(
        back.neighbours, reference_sparse.reverse(table, len(sites)), strict=True
    )
    assert back.reverse() is book and back.pairs == book.pairs and back.is_reversed
    assert np.shares_memory(back.in_indices, book.out_indices)
    assert np.shares_memory(back.out_indices, book.in_indices)
    assert (back.in_shape, back.out_shape) == (geometry.out_shape, geometry.in_shape)

    wanted = [sum(1 << k for k in range(len(table)) if table[k, row] >= 0)
              for row in range(table.shape[1])]  # fmt: skip
    masks = book.masks.astype(object)
    assert [sum(int(word) << 32 * i for i, word in enumerate(column)) for column in masks.T] == (
        wanted
    )
    assert book.order.tolist() == sorted(range(len(wanted)), key=lambda row: (wanted[row], row))
    assert book.counts.tolist() == [int(np.count_nonzero(row >= 0)) for row in table]

    lists = book.pair_lists
    rows, offsets = np.nonzero(table.T >= 0)
    np.testing.assert_array_equal(
        np.diff(lists.row_start), np.bincount(rows, minlength=len(wanted))
    )
    assert lists.row_start[0] == 0 and lists.row_start[-1] == book.pairs
    np.testing.assert_array_equal(lists.pair_offset, offsets)
    np.testing.assert_array_equal(lists.pair_input, table[offsets, rows])
    assert np.shares_memory(book.masks, book.masks)
    assert np.shares_memory(book.pair_lists.pair_input, book.pair_lists.pair_input)


def look_up(table: HashTable, key: int) -> int:
    """The row of a key as `HashTable` says that it is found."""
    capacity = len(table.keys)
    slot = (key * HASH_FACTOR % 2**64) >> (64 - (capacity.bit_length() - 1))
    while table.keys[slot] not in (key, -1):
        slot = (slot + 1) % capacity
    return int(table.rows[slot])


@pytest.mark.usefixtures("small_tasks", "threads")
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 64, 900])
def test_hash_table_finds_every_key_and_no_other(rows: int, rng: np.random.Generator) -> None:
    geometry = make_geometry("submanifold", (40, 50))
    sites = draw_sites(geometry, rows, rng)
    table = Rulebook.build(geometry, sites).hash_table
    capacity = len(table.keys)
    assert capacity >= max(2, 2 * rows) and capacity & (capacity - 1) == 0
    assert table.keys.dtype == np.int64 and table.rows.dtype == np.int32
    found = {y * 50 + x: row for row, (_, y, x) in enumerate(sites.tolist())}
    for key in range(2000):
        assert look_up(table, key) == found.get(key, -1)


def test_hash_table_goes_round_its_end() -> None:
    # Keys that all want one of the last slots of a table of 64.
    late = [key for key in range(200_000) if (key * HASH_FACTOR % 2**64) >> 58 >= 62][:30]
    sites = np.array([(0, key) for key in late], np.int32)
    table = cpu_rulebook.hash_table((200_000,), 1, sites)
    assert len(table.keys) == 64
    assert [look_up(table, key) for key in late] == list(range(30))
    assert np.count_nonzero(table.keys >= 0) == 30 and table.keys[0] >= 0


def test_a_rulebook_may_be_made_by_hand() -> None:
    geometry = make_geometry("regular", (8, 8), stride=2)
    sites = np.array([[0, 3, 3]], np.int32)
    hand_made = Rulebook(geometry, sites, np.array([[0, 1, 1], [0, 2, 2]], np.int32),
                         np.full((2, 9), -1, np.int32).T, 0)  # fmt: skip
    assert repr(hand_made) == "Rulebook(regular, kernel 3x3, 1 > 2 sites, 0 pairs)"
    assert hand_made.neighbours.flags.c_contiguous


BROKEN = {
    "neighbours: got shape": {"neighbours": np.full((8, 2), -1, np.int32)},
    "neighbours: got int64": {"neighbours": np.full((9, 2), -1, np.int64)},
    "neighbours: got 5 ": {"neighbours": np.full((9, 2), 5, np.int32)},
    "neighbours: got -2 ": {"neighbours": np.full((9, 2), -2, np.int32)},
    "neighbours: got >i4": {"neighbours": np.full((9, 2), -1, ">i4")},
    "neighbours: got a masked array": {
        "neighbours": np.ma.masked_less(np.full((9, 2), -1, np.int32), 0)
    },
    "neighbours: got list": {"neighbours": [[1], [2, 3]]},
    "neighbours: got object": {"neighbours": np.full((9, 2), None)},
    "neighbours: got an array on a GPU": {"neighbours": EmulatedArray(np.zeros((9, 2), "i4"))},
    "out_indices: got the site .0, 1, 1. in row 0 and in row 1": {
        "out_indices": np.array([[0, 1, 1], [0, 1, 1]], np.int32)
    },
    "neighbours: got row 0 2 times at offset 0": {"neighbours": np.zeros((9, 2), np.int32)},
    "pairs: got 3": {"pairs": 3},
    "in_indices: got shape": {"in_indices": np.zeros((1, 2), np.int32)},
    "out_indices: got 4 ": {"out_indices": np.array([[0, 1, 1], [0, 4, 0]], np.int32)},
    "in_indices: got -1 ": {"in_indices": np.array([[0, -1, 1]], np.int32)},
    "out_indices: got float64": {"out_indices": np.zeros((2, 3))},
}


@pytest.mark.parametrize("said", list(BROKEN))
def test_a_rulebook_by_hand_is_told_what_is_wrong(said: str) -> None:
    parts = {
        "in_indices": np.array([[0, 3, 3]], np.int32),
        "out_indices": np.array([[0, 1, 1], [0, 2, 2]], np.int32),
        "neighbours": np.full((9, 2), -1, np.int32),
        "pairs": 0,
    }
    geometry = make_geometry("regular", (8, 8), stride=2)
    with pytest.raises((ShapeError, DTypeError, DeviceError), match=said):
        Rulebook(geometry, **(parts | BROKEN[said]))


def test_operators_take_what_is_made_by_hand() -> None:
    x = fastconv.sparse.SparseTensor(np.ones((2, 1), np.float32), [[0, 2], [0, 3]], (8,))
    book = fastconv.sparse.make_rulebook(x, 3)
    weight = np.ones((1, 1, 3), np.float32)
    table = np.where(book.neighbours == 0, 7, book.neighbours)
    with pytest.raises(ShapeError, match="neighbours: got 7"):
        Rulebook(book.geometry, book.in_indices, book.out_indices, table, book.pairs)
    fewer = np.where(np.arange(3)[:, None] == 1, book.neighbours, -1)
    middle = Rulebook(book.geometry, book.in_indices, book.out_indices, fewer, 2)
    assert fastconv.sparse.subm_conv(x, weight, rulebook=middle).features.tolist() == [[1], [1]]
