"""Rulebooks built by CUDA kernels in the emulator, against the dictionary of the reference.

Each case is built three times, with threads and blocks forwards, backwards and in a random order,
under all checks of the emulator; the tables must be the same bits, the hash table's too.
"""

from __future__ import annotations

import itertools
import linecache
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from fastconv import cuda_emulator
from fastconv.array_libraries import EmulatedArray, view_array
from fastconv.contract.errors import ShapeError
from fastconv.contract.geometry import Geometry
from fastconv.contract.rulebook import HASH_FACTOR
from fastconv.device_arrays import DeviceArray
from fastconv.kernels.cpu.rulebook import build as on_cpu
from fastconv.kernels.cuda.common import launch
from fastconv.kernels.cuda.emulator.errors import RaceError
from fastconv.kernels.cuda.rulebook import build as rulebook
from fastconv.kernels.cuda.rulebook import hash as rulebook_hash
from fastconv.kernels.cuda.rulebook import scan as rulebook_scan
from fastconv.kernels.cuda.rulebook import sites as rulebook_sites
from fastconv.kernels.cuda.rulebook import sort as rulebook_sort
from fastconv.kernels.reference import sparse as reference_sparse
from fastconv.sparse.rulebook import Rulebook

ORDERS: tuple[Any, ...] = ("forward", "reverse", 3)
WIDE = 1 << 20


class Watched:
    """A kernel that is launched with all checks, in one order of threads and blocks."""

    def __init__(self, kernel: launch.Kernel, order: Any) -> None:
        self._kernel, self._order = PLAIN(kernel), order

    def launch(self, grid: Any, block: Any, arguments: Any) -> None:
        checks = cuda_emulator.ALL & ~cuda_emulator.Checks.ORDERS
        self._kernel.launch(grid, block, arguments, checks=checks, order=self._order).raise_faults()


PLAIN = launch.emulated


@pytest.fixture(params=ORDERS, ids=str)
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Launch every kernel with checks, in the order of this test."""
    monkeypatch.setattr(launch, "emulated", lambda kernel: Watched(kernel, request.param))
    return request.param


def geometry(
    kind: str, shape: tuple[int, ...], taps: Any = 3, stride: Any = 1, dilation: Any = 1,
    padding: Any = None, batch: int = 2, more: int = 0,
) -> Geometry:  # fmt: skip
    """A geometry with the same entry on each axis where one is given."""

    def each(value: Any) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * len(shape)

    taps, dilation = each(taps), each(dilation)
    reaches = [hole * (size - 1) for size, hole in zip(taps, dilation, strict=True)]
    same = tuple((reach // 2, reach - reach // 2) for reach in reaches)
    pads = same if padding is None else ((padding, padding),) * len(shape)
    return Geometry(kind, shape, batch, taps, each(stride), dilation, pads, each(more))


def sites(of: Geometry, count: int, rng: np.random.Generator) -> np.ndarray:
    """Different sites at random, in a random order."""
    sizes = (of.batch_size, *of.in_shape)
    drawn = np.stack([rng.integers(0, size, count) for size in sizes], axis=1)
    found = np.unique(drawn.astype(np.int32), axis=0)
    rng.shuffle(found)
    return found


def cases() -> Iterator[tuple[str, Geometry, int]]:
    """Every kind on one to four axes, then what each of them may do."""
    shapes = ((40,), (9, 11), (6, 5, 7), (4, 3, 5, 4))
    for shape in shapes:
        yield "rank", geometry("submanifold", shape), 60
        yield "rank", geometry("regular", shape, stride=2, padding=1), 60
        yield "rank", geometry("transposed", shape, 2, 2, padding=0), 30
    yield "even kernel", geometry("submanifold", (9, 8), (2, 4)), 70
    yield "even kernel", geometry("regular", (9, 8), (2, 4), padding=0), 70
    yield "dilation", geometry("submanifold", (9, 9, 9), 3, dilation=(1, 2, 3)), 300
    yield "dilation and stride", geometry("regular", (17, 15), 3, (2, 3), (4, 2), 2), 100
    yield "strides", geometry("transposed", (5, 6), (3, 4), (3, 1), (1, 2), 1, more=0), 25
    yield "output padding", geometry("transposed", (5, 6), 3, 2, 1, 1, more=1), 25
    yield "no padding", geometry("regular", (7, 7), 3, padding=0, batch=1), 30
    yield "stride above the kernel", geometry("regular", (16, 16), 2, 5, padding=0), 80
    yield "large kernel", geometry("submanifold", (9, 9), (7, 5)), 90
    yield "one tap", geometry("regular", (8, 8), 1, padding=0), 40
    yield "full grid", geometry("submanifold", (6, 6, 6)), 100000
    yield "full grid", geometry("regular", (7, 6, 5), stride=(2, 1, 2), padding=1), 100000
    yield "one site", geometry("submanifold", (5, 5, 5)), 1
    yield "one site", geometry("regular", (5, 5, 5), stride=2, padding=1), 1
    yield "no site", geometry("submanifold", (5, 5)), 0
    yield "no site", geometry("transposed", (5, 5), 2, 2, padding=0), 0
    yield "rows over several tiles", geometry("submanifold", (70, 80), batch=1), 5000
    yield "outputs over several tiles", geometry("regular", (60, 70), stride=1, batch=1), 1500


CASES = [pytest.param(of, count, id=f"{i}-{name}") for i, (name, of, count) in enumerate(cases())]


def assert_built(of: Geometry, indices: np.ndarray) -> None:
    """Compare all that a rulebook holds with the reference and with the CPU's."""
    after, table, pairs = rulebook.build(of, indices)
    true_after, true_table = reference_sparse.build(of, indices)
    assert after.dtype == table.dtype == np.int32
    assert np.array_equal(after, true_after) and np.array_equal(table, true_table)
    assert pairs == (true_table >= 0).sum()
    back = rulebook.reverse(table, len(indices))
    assert np.array_equal(back, reference_sparse.reverse(true_table, len(indices)))
    masks = rulebook.masks(table)
    assert masks.dtype == np.uint32 and np.array_equal(masks, bits_of(true_table))
    order = rulebook.order(masks)
    assert order.dtype == np.int32
    assert np.array_equal(order, np.lexsort(tuple(masks))), "the last word decides first"
    starts, offsets, inputs = rulebook.pair_lists(table)
    rows, at = np.nonzero(true_table.T >= 0)
    assert starts.dtype == np.int64 and offsets.dtype == inputs.dtype == np.int32
    assert np.array_equal(starts, np.searchsorted(rows, np.arange(table.shape[1] + 1)))
    assert np.array_equal(offsets, at) and np.array_equal(inputs, true_table[at, rows])


def bits_of(table: np.ndarray) -> np.ndarray:
    words = -(-len(table) // 32)
    padded = np.zeros((32 * words, table.shape[1]), np.uint32)
    padded[: len(table)] = table >= 0
    powers = np.uint32(1) << np.arange(32, dtype=np.uint32)
    return (padded.reshape(words, 32, -1) * powers[:, None]).sum(1, dtype=np.uint32)


@pytest.mark.parametrize(("of", "count"), CASES)
def test_rulebooks_are_those_of_the_reference(
    of: Geometry, count: int, watched: Any, rng: np.random.Generator
) -> None:
    assert_built(of, sites(of, count, rng))


@pytest.mark.parametrize("kind", ["submanifold", "regular"])
def test_corners_of_a_wide_grid(kind: str, watched: Any) -> None:
    of = geometry(kind, (WIDE,) * 3, batch=1, padding=1)
    corners = [(0, *place) for place in itertools.product((0, 1, WIDE - 1), repeat=3)]
    assert_built(of, np.array(corners, np.int32))


@pytest.mark.parametrize("kind", ["regular", "transposed"])
def test_outputs_do_not_wrap_round_the_grid(kind: str, watched: Any) -> None:
    """Keys of sites beside an edge differ by one from those at the other end of the next row."""
    of = geometry(kind, (4, 4), padding=1, batch=3)
    edges = [(b, y, x) for b in range(3) for y in range(4) for x in (0, 3)]
    assert_built(of, np.array(edges, np.int32))


@pytest.mark.parametrize("shape", [(1000,), (17, 2**31 - 1), (5, 6, 7), (WIDE, WIDE, WIDE)])
def test_keys_are_sorted_and_keep_the_order_of_equal_ones(
    shape: tuple[int, ...], watched: Any, rng: np.random.Generator
) -> None:
    indices = sites(geometry("submanifold", shape), 400, rng)
    indices = np.concatenate((indices, indices[::3]))
    keys, rows = rulebook.sort_keys(shape, 2, indices)
    true_keys, true_rows = on_cpu.sort_keys(shape, 2, indices)
    assert (keys.dtype, rows.dtype) == (np.int64, np.int32)
    assert np.array_equal(keys, true_keys) and np.array_equal(rows, true_rows)


def look_up(table: Any, key: int) -> int:
    """The row of a key as `HashTable` says that it is found."""
    capacity = len(table.keys)
    at = (key * HASH_FACTOR % 2**64) >> (65 - capacity.bit_length())
    while table.keys[at] not in (key, -1):
        at = (at + 1) % capacity
    return int(table.rows[at])


def test_the_hash_table_is_the_same_in_every_order(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    of = geometry("submanifold", (30, 30))
    indices = sites(of, 700, rng)
    tables = []
    for order in ORDERS:
        monkeypatch.setattr(launch, "emulated", lambda kernel, order=order: Watched(kernel, order))
        tables.append(rulebook.hash_table(of.in_shape, 2, indices))
        shuffled = rulebook.hash_table(of.in_shape, 2, indices[::-1].copy())
        assert np.array_equal(shuffled.keys, tables[0].keys)
    for table in tables[1:]:
        assert np.array_equal(table.keys, tables[0].keys)
        assert np.array_equal(table.rows, tables[0].rows)
    keys = (indices[:, 0] * 30 + indices[:, 1]) * 30 + indices[:, 2]
    assert [look_up(tables[0], int(key)) for key in keys] == list(range(len(indices)))
    assert len(tables[0].keys) >= 2 * len(indices)
    assert sorted(tables[0].keys[tables[0].keys >= 0]) == sorted(keys)


@pytest.mark.parametrize("count", [1, 31, 256, 2047, 2048, 2049, 5000])
def test_prefix_sums(count: int, watched: Any, rng: np.random.Generator) -> None:
    values = rng.integers(0, 100, count).astype(np.int32)
    for kind in (np.int32, np.int64):
        starts = np.full(count + 1, -1, kind)
        rulebook_scan.exclusive_scan(values, starts)
        assert np.array_equal(starts, np.concatenate(([0], np.cumsum(values))))


@pytest.mark.parametrize("kind", ["submanifold", "regular", "transposed"])
def test_rulebooks_of_device_arrays(kind: str, rng: np.random.Generator) -> None:
    of = geometry(kind, (7, 8, 6), 2 if kind == "transposed" else 3, 1 if kind[0] == "s" else 2)
    indices = sites(of, 80, rng)
    view = view_array("indices", EmulatedArray(indices))
    assert isinstance(view, DeviceArray)
    book, truth = Rulebook.build(of, view), Rulebook.build(of, indices)
    assert isinstance(book.neighbours, DeviceArray) and book.pairs == truth.pairs
    assert (book.out_indices is book.in_indices) == (kind == "submanifold")
    pairs = [
        (book.out_indices, truth.out_indices), (book.neighbours, truth.neighbours),
        (book.reverse().neighbours, truth.reverse().neighbours), (book.masks, truth.masks),
        (book.order, truth.order), *zip(book.pair_lists, truth.pair_lists, strict=True),
    ]  # fmt: skip
    for mine, cpu in pairs:
        assert mine.dtype == cpu.dtype and np.array_equal(mine.to_host(), cpu)


def test_what_32_bits_do_not_reach_is_refused() -> None:
    site = np.zeros((1, 2), np.int32)
    with pytest.raises(ShapeError, match=r"^spatial axis 0: .* want at most 2147483647"):
        rulebook.build(geometry("transposed", (2**29,), 3, 4, padding=0, batch=1), site)
    wide = geometry("submanifold", (2**31 - 9, 3), batch=1)
    assert rulebook.build(wide, np.array([[0, 2**31 - 10, 2]], np.int32))[2] == 1


def altered(module: Any, right: str, wrong: str) -> Any:
    """The module as it would be with another text."""
    text = Path(module.__file__).read_text()
    assert right in text
    made = types.ModuleType(module.__name__)
    made.__package__ = module.__package__
    text, name = text.replace(right, wrong), f"<altered {module.__name__}: {wrong}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), vars(made))
    return made


def scan_with(module: Any) -> None:
    values = np.arange(3000, dtype=np.int32)
    starts = np.zeros(3001, np.int32)
    module.exclusive_scan(values, starts)
    assert np.array_equal(starts[1:], np.cumsum(values))


def sort_with(module: Any) -> None:
    keys = np.arange(3000, dtype=np.int64)[::-1] % 300
    _, rows = module.sort_rows(keys.copy(), np.arange(3000, dtype=np.int32), 9)
    assert np.array_equal(rows, np.argsort(keys, kind="stable"))


PLANTED = {
    "no barrier behind the warps' sums": (
        rulebook_scan, "upto\n    cuda.syncthreads()\n", "upto\n", scan_with, RaceError
    ),
    "no barrier before the next sums": (
        rulebook_scan, "    cuda.syncthreads()\n    return", "    return", scan_with, RaceError
    ),
    "a shuffle too few": (rulebook_scan, "range(5)", "range(4)", scan_with, AssertionError),
    "lanes that do not wait": (
        rulebook_sort, "        cuda.syncwarp()\n", "", sort_with, RaceError
    ),
    "lanes that take one place": (rulebook_sort, " + before)", ")", sort_with, AssertionError),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, right, wrong, use, error = PLANTED[name]
    monkeypatch.setattr(launch, "emulated", lambda kernel: Watched(kernel, "forward"))
    use(module)
    with pytest.raises(error):
        use(altered(module, right, wrong))


def test_offsets_that_leave_the_grid_unseen_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    of = geometry("submanifold", (4, 4))
    edges = np.array([(b, y, x) for b in range(2) for y in range(4) for x in (0, 3)], np.int32)
    assert_built(of, edges)
    check = "inside = inside and other{a} < size{a}"
    assert check in rulebook_sites._AXIS
    monkeypatch.setattr(rulebook_sites, "_AXIS", rulebook_sites._AXIS.replace(check, "pass"))
    monkeypatch.setattr(rulebook_sites, "site_kernel", rulebook_sites.site_kernel.__wrapped__)
    with pytest.raises(AssertionError):
        assert_built(of, edges)


def test_a_table_whose_keys_stay_where_they_came_depends_on_the_order(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """What ordered hashing is for: without it the same sites make different tables."""
    module = altered(rulebook_hash, "if stored < key:", "if stored < int64(0):")
    monkeypatch.setattr(rulebook_sites, "insert", module.insert)
    monkeypatch.setattr(rulebook_sites, "site_kernel", rulebook_sites.site_kernel.__wrapped__)
    indices = sites(geometry("submanifold", (30, 30)), 700, rng)
    tables = [rulebook.hash_table((30, 30), 2, each) for each in (indices, indices[::-1].copy())]
    assert sorted(tables[0].keys) == sorted(tables[1].keys)
    assert not np.array_equal(tables[0].keys, tables[1].keys)
