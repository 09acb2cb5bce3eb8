"""What a caller may do to sparse values so that machine code would read or write elsewhere.

    python tests/support/sparse_attack_child.py host|device|NAME ...

Run by sparse/test_attacks.py. Each attack has to end in an error of the kind it names, or in the
right answer. One that gets through ends the process with SIGSEGV; the last line printed is its
name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import sparse
from fastconv.array_libraries import EmulatedArray, view_array
from fastconv.contract.errors import DeviceError, DTypeError, ShapeError
from fastconv.sparse import Geometry, Rulebook, SparseTensor, nn

F4 = np.float32
FAR = 10**6

#: By name: the error that must come and words of its message, and what is done.
ATTACKS: dict[str, tuple[type[Exception] | tuple[type[Exception], ...], str, Any]] = {}


def attack(
    error: type[Exception] | tuple[type[Exception], ...], words: str
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter an attack under the name of its function."""

    def enter(function: Callable[[], Any]) -> Callable[[], Any]:
        ATTACKS[function.__name__] = error, words, function
        return function

    return enter


def tensor(channels: int = 4, emulated: bool = False) -> SparseTensor:
    features, sites = np.ones((3, channels), F4), np.array([[0, 1, 1], [0, 4, 7], [1, 2, 3]])
    if emulated:
        return SparseTensor(EmulatedArray(features), EmulatedArray(sites), (8, 8))
    return SparseTensor(features, sites, (8, 8))


def rows(channels: int = 4, count: int = 3) -> np.ndarray:
    return np.ones((count, channels), F4)


def by_hand(row: int, kind: str = "submanifold", emulated: bool = False) -> Rulebook:
    """A rulebook with a row that there is none of."""
    book = sparse.make_rulebook(tensor(), 3, kind=kind)
    table = np.array(book.neighbours)
    table[np.nonzero(table >= 0)[0][0], 0] = row
    arrays: list[Any] = [np.array(book.in_indices), np.array(book.out_indices), table]
    if emulated:
        arrays = [view_array("table", EmulatedArray(each)) for each in arrays]
    return Rulebook(book.geometry, *arrays, int((table >= 0).sum()))


def each_operator(make: Callable[[], Rulebook], emulated: bool = False) -> None:
    """Give a rulebook to every operator and gradient; all must raise, the last one for us."""
    x = tensor(emulated=emulated)
    weight, grads = np.ones((6, 4, 3, 3), F4), rows(6)
    features = rows()
    if emulated:
        weight, grads, features = (EmulatedArray(each) for each in (weight, grads, features))
    calls = [
        lambda: sparse.grad.conv_input(make(), weight, grads),
        lambda: sparse.grad.conv_weight(make(), features, grads),
        lambda: sparse.grad.max_pool_input(make(), features, features, features),
        lambda: sparse.grad.avg_pool_input(make(), features),
        lambda: sparse.sparse_inverse_conv(x, weight, rulebook=make()),
        lambda: sparse.subm_conv(x, weight, rulebook=make()),
    ]
    for call in calls[:-1]:
        try:
            call()
        except ShapeError as error:
            assert "neighbours" in str(error), error
        else:
            raise AssertionError("nothing was raised")
    calls[-1]()


@attack(ShapeError, f"neighbours: got {FAR}")
def rows_beyond_the_last() -> None:
    each_operator(lambda: by_hand(FAR))


@attack(ShapeError, "neighbours: got -7")
def rows_before_the_first() -> None:
    each_operator(lambda: by_hand(-7))


@attack(ShapeError, f"neighbours: got {FAR}")
def rows_beyond_the_last_on_a_device() -> None:
    each_operator(lambda: by_hand(FAR, emulated=True), emulated=True)


def _arrays(book: Rulebook) -> list[Any]:
    lists = (*book.pair_lists, *book.hash_table, book.masks, book.order, book.counts)
    return [book.in_indices, book.out_indices, book.neighbours, *lists]


def _all_refuse(arrays: list[Any]) -> None:
    """No array of these may be written, whatever is done to its flags or those of its base."""
    for array in arrays:
        while isinstance(array, np.ndarray):
            try:
                array.flags.writeable = True
            except ValueError:
                array = array.base
            else:
                raise AssertionError("an array could be made writeable")
    arrays[0][...] = FAR


@attack(ValueError, "read-only")
def arrays_of_a_rulebook_are_written() -> None:
    book = sparse.make_rulebook(tensor(), 3, 2, 1, kind="regular")
    _all_refuse([*_arrays(book), *_arrays(book.reverse())])


@attack(ValueError, "read-only")
def arrays_of_a_rulebook_by_hand_are_written() -> None:
    made = sparse.make_rulebook(tensor(), 3)
    parts = [np.array(each) for each in (made.in_indices, made.out_indices, made.neighbours)]
    book = Rulebook(made.geometry, *parts, made.pairs)
    truth = sparse.subm_conv(tensor(), np.ones((6, 4, 3, 3), F4), rulebook=book).features
    for part in parts:
        part[...] = FAR
    found = sparse.subm_conv(tensor(), np.ones((6, 4, 3, 3), F4), rulebook=book).features
    assert np.array_equal(found, truth)
    sparse.grad.conv_input(book, np.ones((6, 4, 3, 3), F4), rows(6))
    _all_refuse(_arrays(book))


@attack(ValueError, "read-only")
def sites_of_a_result_are_written() -> None:
    x = tensor()
    y = sparse.sparse_conv(x, np.ones((6, 4, 3, 3), F4), None, 2, 1)
    _all_refuse([y.indices, x.indices, SparseTensor.from_dense(x.dense()).indices,
                 SparseTensor.from_points(np.ones((5, 3)), (1, 1, 1)).indices])  # fmt: skip
    y.indices[:, 0] = 1 << 24
    sparse.global_max_pool(y)


@attack(ValueError, "read-only")
def sites_are_written_after_flags_were_set() -> None:
    y = sparse.sparse_conv(tensor(), np.ones((6, 4, 3, 3), F4), None, 2, 1)
    try:
        y.indices.flags.writeable = True
    except ValueError:
        y.indices[:, 0] = 1 << 24
    y.indices[:, 0] = 1 << 24
    sparse.global_max_pool(y)
    raise AssertionError("the flag could be set")


@attack((), "")
def sites_are_written_on_a_device() -> None:
    y = sparse.sparse_conv(
        tensor(emulated=True), EmulatedArray(np.ones((6, 4, 3, 3), F4)), None, 2, 1
    )
    truth = sparse.global_max_pool(y).memory.copy()
    y.indices.memory[:, 0] = 1 << 24
    assert np.array_equal(sparse.global_max_pool(y).memory, truth)


@attack(ShapeError, "x: got shape")
def features_change_their_shape() -> None:
    x = tensor()
    x.features.shape = (1, 12)
    sparse.sparse_max_pool(x, 2)


@attack(ShapeError, "x: got shape")
def features_are_cut_off() -> None:
    features = np.ones((3, FAR), F4)
    x = SparseTensor(features, [[0, 1], [0, 2], [0, 3]], (8,))
    features.resize((1, FAR), refcheck=False)
    sparse.global_avg_pool(x)


@attack((), "")
def sites_change_their_shape() -> None:
    x = tensor()
    truth = sparse.subm_conv(x, np.ones((6, 4, 3, 3), F4)).features
    x.indices.shape = (9, 1)
    x.indices.dtype = np.int8
    assert np.array_equal(sparse.subm_conv(x, np.ones((6, 4, 3, 3), F4)).features, truth)


@attack((), "")
def tables_change_their_shape() -> None:
    x = tensor()
    book = sparse.make_rulebook(x, 3)
    for array in _arrays(book):
        array.shape = (-1,)
        array.dtype = np.int8
    found = sparse.subm_conv(x, np.ones((6, 4, 3, 3), F4), rulebook=book).features
    assert np.array_equal(found, sparse.subm_conv(x, np.ones((6, 4, 3, 3), F4)).features)


@attack(AttributeError, "")
def a_tensor_is_given_other_sites() -> None:
    x = tensor()
    x.index_array = np.full((3, 3), FAR, np.int32)  # type: ignore[misc]
    sparse.global_max_pool(x)


@attack(AttributeError, "")
def a_rulebook_is_given_another_table() -> None:
    book = sparse.make_rulebook(tensor(), 3)
    book.neighbours = np.full((9, 3), FAR, np.int32)  # type: ignore[misc]


@attack((), "")
def lists_are_planted() -> None:
    """What a caller derives is not taken for what the library derives."""
    x = tensor()
    book = sparse.make_rulebook(x, 3)
    bad = sparse.rulebook.PairLists(*(np.full(FAR, FAR, kind) for kind in ("i8", "i4", "i4")))
    for name in ("pair_lists", "masks", "reverse", "check", ("cpu.sparse_gemm", 16)):
        try:
            book.derive(name, lambda book: bad)  # type: ignore[call-arg]
        except TypeError:
            book.derive(lambda book, name: bad, name)  # type: ignore[arg-type]
    found = sparse.sparse_inverse_conv(x, np.ones((4, 1, 3, 3), F4), groups=4, rulebook=book)
    assert found.features.shape == (3, 4)


@attack(ShapeError, r"kernel.*\(5, 5\)")
def a_layer_is_given_a_larger_kernel() -> None:
    layer = nn.SubMConv2d(4, 6, 3, bias=False).load(np.ones((6, 3, 3, 4), F4))
    layer.kernel_size = (5, 5)
    layer(tensor())


@attack(ShapeError, "stride: got")
def a_stride_of_zero_by_hand() -> None:
    geometry = Geometry("regular", (8, 8), 2, (3, 3), (0, 0), (1, 1), ((1, 1),) * 2, (0, 0))
    Rulebook.build(geometry, np.zeros((1, 3), np.int32))


@attack(ShapeError, "indices: got")
def sites_outside_by_hand() -> None:
    geometry = sparse.make_rulebook(tensor(), 3).geometry
    Rulebook.build(geometry, np.full((1, 3), -FAR, np.int32)).reverse()


@attack(ShapeError, "indices: got")
def sites_twice_by_hand() -> None:
    geometry = sparse.make_rulebook(tensor(), 3).geometry
    book = Rulebook.build(geometry, np.zeros((50000, 3), np.int32))
    sparse.grad.avg_pool_input(book, rows(1, 50000))


@attack(ShapeError, "indices: got the site")
def sites_after_twice_by_hand() -> None:
    made = sparse.make_rulebook(tensor(), 3)
    sites, table = np.zeros((50000, 3), np.int32), np.full((9, 50000), -1, np.int32)
    book = Rulebook(made.geometry, made.in_indices, sites, table, 0)
    y = sparse.sparse_max_pool(tensor(), 3, 1, 1, rulebook=book)
    sparse.sparse_max_pool(y, 3, 1, 1)


@attack(ShapeError, "padding: got")
def a_lopsided_submanifold_kernel_by_hand() -> None:
    geometry = Geometry("submanifold", (8,), 1, (3,), (1,), (1,), ((0, 2),), (0,))
    sites = np.stack([np.zeros(8), np.arange(8)], 1).astype(np.int32)
    assert Rulebook.build(geometry, sites).pairs >= 0


@attack(ShapeError, "batch_size: got")
def a_batch_number_beyond_32_bits() -> None:
    SparseTensor(rows(), np.array([[2**32 + 1, 0], [0, 1], [0, 2]]), (4,))


@attack(ShapeError, "batch_size: got")
def a_batch_size_beyond_32_bits() -> None:
    SparseTensor(rows(), np.array([[0, 0], [0, 1], [0, 2]]), (4,), 2**31)


def at_the_end_of_the_largest_grid(emulated: bool) -> None:
    """2**63 - 1 = 7 * 7 * 73 * 127 * 337 * 92737 * 649657 sites, of which the last is active."""
    long, longer = 92737 * 127, 649657 * 337
    wrap: Callable[[np.ndarray], Any] = EmulatedArray if emulated else np.asarray

    def host(array: Any) -> list[Any]:
        return (array.memory if emulated else array).tolist()

    for grid in ((1, longer, long, 73 * 49), (7, 73 * 7, long, longer), (49, 73, 1, longer, long)):
        last = [size - 1 for size in grid]
        few = np.array([last, [*last[:-1], last[-1] - 1]])
        batch, *shape = grid
        for sites, sums in ((few, [15, 15]), (np.array([*few, [0] * len(grid)]), [15, 15, 9])):
            features = np.arange(7, 7 + len(sites), dtype=F4)[:, None]
            ones = np.ones((1, 1, *(3,) * len(shape)), F4)
            x = SparseTensor(wrap(features), wrap(sites), shape, batch)
            y, z = sparse.subm_conv(x, wrap(ones)), sparse.sparse_max_pool(x, 1, 1)
            assert host(y.features) == [[each] for each in sums], y.features
            assert host(z.features) == features[::-1].tolist(), z.features
            assert host(z.indices) == sites[::-1].tolist(), z.indices


@attack((), "")
def the_last_site_of_the_largest_grid() -> None:
    at_the_end_of_the_largest_grid(emulated=False)


@attack((), "")
def the_last_site_of_the_largest_grid_on_a_device() -> None:
    at_the_end_of_the_largest_grid(emulated=True)


@attack(DTypeError, "rulebook: got ")
def something_else_as_a_rulebook() -> None:
    wanted = "want a fastconv.sparse.Rulebook"
    for value in (None, 5, "key", object(), {}, np.zeros(3), tensor()):
        for call in (
            lambda value=value: sparse.grad.conv_input(value, np.ones((6, 4, 3, 3), F4), rows(6)),
            lambda value=value: sparse.grad.conv_weight(value, rows(), rows(6)),
            lambda value=value: sparse.grad.max_pool_input(value, rows(), rows(), rows()),
            lambda value=value: sparse.grad.avg_pool_input(value, rows()),
        ):
            try:
                call()
            except DTypeError as error:
                assert wanted in str(error), error
            else:
                raise AssertionError("nothing was raised")
    sparse.subm_conv(tensor(), np.ones((6, 4, 3, 3), F4), rulebook=5)  # type: ignore[arg-type]


@attack(DeviceError, "rulebook: got ")
def a_rulebook_on_a_device() -> None:
    book = sparse.make_rulebook(tensor(emulated=True), 3)
    sparse.grad.avg_pool_input(book, rows())


@attack(DeviceError, "rulebook: got ")
def a_rulebook_of_the_host_with_features_on_a_device() -> None:
    book = sparse.make_rulebook(tensor(), 3)
    sparse.grad.avg_pool_input(book, EmulatedArray(rows()))


def main(names: list[str]) -> None:
    if names in (["host"], ["device"]):
        names = [each for each in ATTACKS if each.endswith("_on_a_device") == (names == ["device"])]
    for name in names:
        print(name, flush=True)
        error, words, function = ATTACKS[name]
        if error == ():
            function()
            continue
        try:
            function()
        except error as raised:  # type: ignore[misc]
            assert re.search(words, str(raised)), f"{name}: {raised}"
        else:
            raise AssertionError(f"{name}: nothing was raised")
    print(f"passed {len(names)} attacks")


if __name__ == "__main__":
    main(sys.argv[1:])
