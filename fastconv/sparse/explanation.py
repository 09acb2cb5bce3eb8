"""``python -m fastconv explain sparse``: what a layer over a scan's voxels has to compute.

How often sites meet, at which offsets, how well tiles of rows can skip offsets, and what every
array of the rulebook weighs; then the kernels for given channels, as `fastconv.explain` has them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract.errors import FastconvError
from ..contract.geometry import KINDS
from ..contract.rulebook import HASH_FACTOR, HashTable
from ..contract.sparse_problem import SparseProblem
from .rulebook import Rulebook

__all__ = ["add_arguments", "describe_rulebook", "run"]

#: Rows of a tile whose wasted work is counted.
_TILE = 32
_BAR = 40
_MOST_LINES = 64

Masks = NDArray[np.uint32]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``explain sparse`` understands."""
    group = parser.add_argument_group("sparse", "how 'explain sparse [SCAN]' is to be read")
    group.add_argument(
        "scan", nargs="?", metavar="SCAN", help="a point cloud; by default a simulated LiDAR sweep"
    )
    group.add_argument("--columns", type=int, metavar="N", help="numbers a point of a .bin SCAN")
    group.add_argument("--voxel", default="0.1,0.1,0.15", help="voxel size (default: %(default)s)")
    group.add_argument("--range", metavar="LOW,HIGH", help="low corner, high corner (default: all)")
    group.add_argument("--kind", choices=KINDS, help="default: submanifold, at a stride regular")
    group.add_argument("--kernel", default="3", help="kernel size, one or an axis (default: 3)")
    group.add_argument("--stride", default="1", help="default: 1")
    group.add_argument("--padding", help="default: half the kernel")
    group.add_argument("--dilation", default="1", help="default: 1")
    group.add_argument("--channels", metavar="IN,OUT", help="tell the kernels for these")


def run(arguments: argparse.Namespace) -> int:
    """Print what the rulebook of a scan holds, or the code of the kernel for given channels."""
    from .functional import make_rulebook
    from .tensor import SparseTensor

    name, points = _points(arguments.scan, arguments.columns)
    voxel = _numbers("--voxel", arguments.voxel, float)
    bounds = arguments.range and _numbers("--range", arguments.range, float)
    sizes = {
        option: _sizes(f"--{option}", getattr(arguments, option), len(voxel))
        for option in ("kernel", "stride", "dilation")
    }
    kind = arguments.kind or ("submanifold" if max(sizes["stride"]) == 1 else "regular")
    padding = tuple(
        hole * (size - 1) // 2
        for size, hole in zip(sizes["kernel"], sizes["dilation"], strict=True)
    )
    if arguments.padding is not None:
        padding = _sizes("--padding", arguments.padding, len(voxel))
    channels = arguments.channels and _numbers("--channels", arguments.channels, int)
    if channels and len(channels) != 2:
        raise FastconvError(
            f"--channels: got {arguments.channels!r}, want input channels, output channels"
        )
    if arguments.form and (not channels or arguments.gpu):
        raise FastconvError(
            f"--{arguments.form}: the code of a sparse kernel is that of the CPU, for --channels "
            "IN,OUT; want these and no --gpu"
        )
    x = SparseTensor.from_points(points, voxel, bounds)
    geometry = (sizes["kernel"], sizes["stride"], padding, sizes["dilation"])
    book = make_rulebook(x, *geometry, kind=kind)
    if arguments.form:
        from ..code_listing import list_code

        print(list_code(_problem(book, *channels), arguments.form))
        return 0
    start = time.perf_counter()
    book = make_rulebook(x, *geometry, kind=kind)
    milliseconds = 1e3 * (time.perf_counter() - start)
    print(f"{name}: {len(points):,} points, voxels of {' x '.join(map(str, voxel))}")
    print(describe_rulebook(book))
    print(f"built in {milliseconds:.1f} ms")
    if channels:
        print(_kernels(book, *channels))
    return 0


def _points(scan: str | None, columns: int | None) -> tuple[str, Any]:
    if scan is None:
        from ..scans.lidar import sweep

        return "simulated LiDAR sweep", sweep()
    from ..scans.read import read_scan

    cloud = read_scan(scan, columns)
    return cloud.name, cloud.points


def _numbers(option: str, text: str, kind: type) -> tuple[Any, ...]:
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise FastconvError(f"{option}: got {text!r}, want {wanted} with commas between") from None


def _sizes(option: str, text: str, ndim: int) -> tuple[int, ...]:
    """Return whole numbers, one an axis."""
    numbers = _numbers(option, text, int)
    if len(numbers) not in (1, ndim):
        raise FastconvError(
            f"{option}: got {text!r}, want one number or {ndim}, the axes of --voxel"
        )
    return numbers * (ndim if len(numbers) == 1 else 1)


def describe_rulebook(book: Rulebook) -> str:
    """Return what a rulebook holds, as lines for people.

    Parameters
    ----------
    book : Rulebook
        Of arrays in the host's memory.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((2, 1), "f4"), [[0, 3, 3], [0, 3, 4]], (8, 8))
    >>> print(describe_rulebook(sparse.make_rulebook(x, 3)))  # doctest: +ELLIPSIS
    geometry    submanifold, kernel 3x3, stride 1x1, dilation 1x1, grid 8x8 > 8x8, batch of 1
    sites       2 > 2, 3.12% of the grid
    pairs       4, 2.00 an output site, 22.2% of the table
    ...
    """
    lines = [*_size_lines(book), *_offset_lines(book)]
    if book.out_rows:
        lines += _mask_lines(book)
    lines.append(f"hash table  {_hash_line(book.hash_table)}")
    return "\n".join([*lines, *_memory_lines(book)])


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _size_lines(book: Rulebook) -> Iterator[str]:
    shape = book.geometry
    yield (
        f"geometry    {shape.kind}, kernel {_by(shape.kernel_size)}, stride {_by(shape.stride)}, "
        f"dilation {_by(shape.dilation)}, grid {_by(book.in_shape)} > {_by(book.out_shape)}, "
        f"batch of {shape.batch_size}"
    )
    cells = shape.batch_size * float(np.prod(book.in_shape, dtype=float))
    share = 100 * book.in_rows / cells
    yield f"sites       {book.in_rows:,} > {book.out_rows:,}, {share:.3g}% of the grid"
    rows = max(book.out_rows, 1)
    share = 100 * book.pairs / (rows * shape.volume)
    yield (
        f"pairs       {book.pairs:,}, {book.pairs / rows:.2f} an output site, "
        f"{share:.1f}% of the table"
    )


def _offset_lines(book: Rulebook) -> Iterator[str]:
    """Yield the pairs of each offset: the last axis across, the one before down."""
    kernel = book.geometry.kernel_size
    counts = book.counts.reshape(-1, kernel[-1])
    if len(counts) > _MOST_LINES:
        yield f"by offset   {counts.min():,} to {counts.max():,} pairs"
        return
    yield "by offset   last axis across"
    width = len(f"{counts.max(initial=0):,}")
    for number, row in enumerate(counts):
        if len(kernel) > 2 and number and number % kernel[-2] == 0:
            yield ""
        yield " " * 12 + "  ".join(f"{count:{width},}" for count in row)


def _bits(masks: Masks) -> NDArray[np.int64]:
    """Return the number of bits that are set in each column."""
    return np.unpackbits(masks.view(np.uint8).reshape(*masks.shape, 4), axis=-1).sum(
        axis=(0, 2), dtype=np.int64
    )


def _tile_rows(masks: Masks) -> int:
    """Return the rows that tiles compute: all of a tile for each offset that one of them has."""
    words, rows = masks.shape
    padded = np.zeros((words, -(-rows // _TILE) * _TILE), np.uint32)
    padded[:, :rows] = masks
    joined = np.bitwise_or.reduce(padded.reshape(words, -1, _TILE), axis=2)
    return _TILE * int(_bits(np.ascontiguousarray(joined)).sum())


def _mask_lines(book: Rulebook) -> Iterator[str]:
    masks = book.masks
    yield f"masks       {len(np.unique(masks, axis=1).T):,} different; offsets that a site has:"
    sites = np.bincount(_bits(masks))
    for offsets in np.flatnonzero(sites):
        bar = "#" * max(1, round(_BAR * sites[offsets] / sites.max()))
        yield f"{offsets:>11}  {sites[offsets]:>9,} {bar}"
    before, after = (
        _tile_rows(rows) / max(book.pairs, 1)
        for rows in (masks, np.ascontiguousarray(masks[:, book.order]))
    )
    yield (
        f"tiles       of {_TILE} rows compute {before:.2f} rows a pair as the rows are, "
        f"{after:.2f} with rows sorted by mask"
    )


def _hash_line(table: HashTable) -> str:
    capacity = len(table.keys)
    slots = np.flatnonzero(table.keys >= 0)
    keys = table.keys[slots].astype(np.uint64)
    shift = np.uint64(64 - (capacity.bit_length() - 1))
    wanted = (keys * np.uint64(HASH_FACTOR) >> shift).astype(np.int64)
    probes = (slots - wanted) % capacity + 1
    return (
        f"{capacity:,} slots, {100 * len(slots) / capacity:.0f}% full, longest probe "
        f"{probes.max(initial=0)}, mean {probes.mean() if len(probes) else 0:.2f}"
    )


def _memory_lines(book: Rulebook) -> Iterator[str]:
    arrays = {
        "in_indices": book.in_indices,
        "out_indices": book.out_indices,
        "neighbours": book.neighbours,
        "masks": book.masks,
        "order": book.order,
        "pair_lists": book.pair_lists,
        "hash_table": book.hash_table,
    }
    yield "memory"
    for name, value in arrays.items():
        parts = value if isinstance(value, tuple) else (value,)
        size = sum(part.nbytes for part in parts) / 1e6
        shapes = ", ".join(f"{part.dtype} {tuple(part.shape)}" for part in parts)
        yield f"  {name:<12}{size:9.2f} MB  {shapes}"


def _kernels(book: Rulebook, in_channels: int, out_channels: int) -> str:
    """Return the table of kernels for a convolution with given channels."""
    from ..explanation import explain

    return str(explain(_problem(book, in_channels, out_channels)))


def _problem(book: Rulebook, in_channels: int, out_channels: int) -> SparseProblem:
    """Return a convolution with given channels."""
    return SparseProblem(
        "sparse_conv", book.in_rows, book.out_rows, book.pairs, book.geometry.kernel_size,
        in_channels, out_channels,
    )  # fmt: skip
