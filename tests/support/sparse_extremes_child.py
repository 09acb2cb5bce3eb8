"""Every argument of every sparse call at its extremes.

    python tests/support/sparse_extremes_child.py

Run by sparse/test_attacks.py. A call ends in a result, or in an error that says what is wrong
(`FastconvError`, ValueError, TypeError); not in one that a size ran into on its way, and not in a
crash or never. The last line printed tells who did.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastconv import sparse
from fastconv.contract.errors import FastconvError
from fastconv.sparse import Geometry, Rulebook, SparseProblem, SparseTensor, nn

F4 = np.float32


class Indexed:
    """A whole number of a type of its own."""

    def __index__(self) -> int:
        return 3


VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2, 2.0, float("nan"), float("inf"), 2**31 - 1, 2**31, 2**32, 2**32 + 1,
    2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, 10**30, -(2**31), -(2**63), -(2**70), 10**6,
    10**9, "3", "same", "", b"3", [], (), [2], (2, 2), [2, 2, 2], [[1, 1], [1, 1]], (2**31, 1),
    (1, 2**40), (1, -1), (10**5, 10**5), (1024, 1024), np.int64(3), np.uint64(2**63), np.array(3),
    np.array([3, 3]), np.array([], int), np.array(None, object), np.full((3, 4), np.nan, F4),
    np.ones((3, 4), ">f4"), np.ones((3, 3), ">i2"), np.full((3, 3), 2**62), np.full((3, 3), -7),
    np.ones((3, 4), "S3"), np.ones((3, 4), complex), np.ones((3, 4), bool), np.ones((0, 3), int),
    np.ma.ones((3, 4), F4), np.broadcast_to(F4(1), (3, 2**40)), np.broadcast_to(0, (2**40, 3)),
    np.broadcast_to(F4(1), (6, 4, 10**9, 3)), Indexed(), object(), {}, slice(2), iter([1]),
)  # fmt: skip

SITES = np.array([[0, 1, 1], [0, 4, 7], [1, 2, 3]])
W = np.ones((6, 4, 3, 3), F4)
ROWS, GRADS, POINTS = np.ones((3, 4), F4), np.ones((3, 6), F4), np.ones((5, 4))
KINDS = ("submanifold", "regular", "transposed")


def tensor() -> SparseTensor:
    return SparseTensor(ROWS, SITES, (8, 8))


def layer(**given: Any) -> SparseTensor:
    made = nn.SparseConv2d(**({"in_channels": 4, "out_channels": 6, "kernel_size": 3} | given))
    return made.load(np.ones((6, 3, 3, 4), F4), np.ones(6, F4))(tensor())


def problem(**given: Any) -> Any:
    sizes = dict(zip(("in_rows", "out_rows", "pairs"), (9, 9, 9), strict=True))
    channels = {"kernel_size": (3, 3), "in_channels": 4, "out_channels": 6}
    return SparseProblem("sparse_conv", **(sizes | channels | given)).line()


def built(**given: Any) -> Rulebook:
    ones = {"kernel_size": (3, 3), "stride": (1, 1), "dilation": (1, 1), "output_padding": (0, 0)}
    rest = {"in_shape": (8, 8), "batch_size": 2, "padding": ((0, 0), (0, 0)), "kind": "regular"}
    return Rulebook.build(Geometry(**(ones | rest | given)), np.zeros((1, 3), np.int32))


def by_hand(**given: Any) -> Rulebook:
    made = sparse.make_rulebook(tensor(), 3)
    names = ("geometry", "in_indices", "out_indices", "neighbours", "pairs")
    return Rulebook(**({name: getattr(made, name) for name in names} | given))


def points(**given: Any) -> SparseTensor:
    return SparseTensor.from_points(**({"points": POINTS, "voxel_size": (0.5,) * 3} | given))


def keyed(name: str, function: Callable[..., Any], *keys: str, **fixed: Any) -> Any:
    """Name a function with each of some keywords at a time."""
    return [
        (f"{name} {key}", lambda value, key=key: function(**(fixed | {key: value}))) for key in keys
    ]


def calls() -> list[tuple[str, Callable[[Any], Any]]]:
    """What is called with one value, by name."""
    steps = ("kernel_size", "stride", "padding", "dilation", "output_padding")
    own = ("bias", "groups", "activation", "indice_key", "rulebook", "weight_layout")
    book = sparse.make_rulebook(tensor(), 3)
    conv, spread = sparse.sparse_conv, sparse.sparse_conv_transpose
    found = []
    for kind in KINDS:
        found += keyed(kind, lambda **given: sparse.make_rulebook(tensor(), **given), *steps,
                       kernel_size=3, kind=kind)  # fmt: skip
    found += keyed("pool", lambda **given: sparse.sparse_max_pool(tensor(), **given), *steps[:4],
                   kernel_size=2)  # fmt: skip
    found += keyed("conv", lambda **given: conv(tensor(), W, **given), *steps[1:4], *own)
    found += keyed("spread", lambda **given: spread(tensor(), W, **given), *steps[1:])
    found += keyed("inverse", lambda **given: sparse.sparse_inverse_conv(tensor(), W, **given),
                   *own)  # fmt: skip
    found += keyed("tensor", SparseTensor, "features", "indices", "spatial_shape", "batch_size",
                   "duplicates", features=ROWS, indices=SITES, spatial_shape=(8, 8))  # fmt: skip
    found += keyed("points", points, "points", "voxel_size", "range", "reduce")
    found += keyed(
        "layer", layer, "in_channels", "out_channels", "groups", "indice_key", *steps[:4]
    )
    found += keyed("problem", problem, "in_rows", "pairs", "kernel_size", "in_channels", "groups")
    found += keyed("geometry", built, *steps, "kind", "in_shape", "batch_size")
    found += keyed("by hand", by_hand, "geometry", "in_indices", "out_indices", "neighbours",
                   "pairs", "is_reversed")  # fmt: skip
    grad = sparse.grad
    return [
        *found,
        ("x", lambda value: sparse.subm_conv(value, W)),
        ("weight", lambda value: sparse.subm_conv(tensor(), value)),
        ("replace", lambda value: tensor().replace(value)),
        ("from_dense", SparseTensor.from_dense),
        ("build", lambda value: Rulebook.build(book.geometry, value)),
        ("conv_input weight", lambda value: grad.conv_input(book, value, GRADS)),
        ("conv_input grad", lambda value: grad.conv_input(book, W, value)),
        ("conv_weight input", lambda value: grad.conv_weight(book, value, GRADS)),
        ("conv_weight grad", lambda value: grad.conv_weight(book, ROWS, value)),
        ("conv_bias", grad.conv_bias),
        ("max_pool output", lambda value: grad.max_pool_input(book, ROWS, value, ROWS)),
        ("avg_pool grad", lambda value: grad.avg_pool_input(book, value)),
        ("global_max grad", lambda value: grad.global_max_pool_input(tensor(), value, value)),
        ("global_avg grad", lambda value: grad.global_avg_pool_input(tensor(), value)),
        ("keep key", lambda value: tensor().keep(value, book)),
        ("keep rulebook", lambda value: tensor().keep("a", value)),
    ]


def coordinates() -> Iterator[Callable[[], Any]]:
    """Clouds whose extent overflows one way or the other."""
    far = (1e308, 1e300, -1e308, 5e-324, 1e20, 2**31, 0)
    for a, b in itertools.product(far, far):
        cloud = np.array([[a, b, 0, 1], [b, a, 1, 1]])
        for size in (1e-320, 1e-3, 1, 1e300):
            for range_ in (None, (-1e308,) * 3 + (1e308,) * 3, (0, 0, 0, 1e300, 1e300, 1)):
                yield lambda cloud=cloud, size=size, range_=range_: points(
                    points=cloud, voxel_size=(size,) * 3, range=range_
                )


def main() -> None:
    warnings.simplefilter("error", RuntimeWarning)
    count = 0
    for name, call in calls():
        for number, value in enumerate(VALUES):
            print(name, number, type(value).__name__, flush=True)
            try:
                call(value)
            except FastconvError as error:
                assert ": got " in str(error), error
            except (TypeError, ValueError):
                pass
            except MemoryError:  # a copy of something that no memory holds
                assert np.size(value) > 2**31
            count += 1
    for call in coordinates():
        print("coordinates", flush=True)
        try:
            call()
        except FastconvError as error:
            assert ": got " in str(error), error
        count += 1
    print(f"passed {count} calls")


if __name__ == "__main__":
    main()
