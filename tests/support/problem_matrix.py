"""The problems that every convolution kernel is tested on.

Families vary one thing at a time around awkward sizes (channels that divide no tile, maps narrower
than a vector and wider than several); a seeded random family then mixes everything. The list is the
same in every process, so that pytest-xdist's workers agree on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, product

from fastconv.contract.problem import DTYPES, INTEGERS, ConvProblem

CHANNELS = (1, 3, 5, 13, 17, 33, 65)
WIDTHS = (1, 2, 7, 14, 31, 33, 50, 70)
MAX_MACS = 4_000_000
RANDOM_PROBLEMS = 110

Pads = tuple[tuple[int, int], ...]


def problem(
    channels: tuple[int, int],
    in_size: tuple[int, ...],
    kernel_size: int | tuple[int, ...],
    *,
    batch: int = 1,
    stride: int | tuple[int, ...] = 1,
    padding: int | Pads = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    dtype: str = "float32",
    layout: str = "channels_first",
) -> ConvProblem:
    """A problem with ints standing for "the same on each axis"."""

    def per_axis(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * len(in_size) if isinstance(value, int) else value

    return ConvProblem(
        batch=batch,
        in_channels=channels[0],
        out_channels=channels[1],
        in_size=in_size,
        kernel_size=per_axis(kernel_size),
        stride=per_axis(stride),
        padding=((padding, padding),) * len(in_size) if isinstance(padding, int) else padding,
        dilation=per_axis(dilation),
        groups=groups,
        dtype=dtype,
        layout=layout,
    )


def channels_and_widths() -> Iterator[ConvProblem]:
    for i, channels in enumerate(CHANNELS):
        yield problem((channels, CHANNELS[-1 - i]), (7, 14), 1)
        yield problem((channels, CHANNELS[i - 3]), (9, 14), 3, padding=1)
        yield problem((16, channels), (5, 31), 3, padding=1)
    for width in WIDTHS:
        yield problem((5, 17), (6, width), 3, padding=1)
        yield problem((13, 5), (4, width), 1)
        yield problem((3, 33), (width, 7), 3, padding=1)
        yield problem((17, 5), (width,), 3, padding=1)
    yield problem((1, 1), (33, 70), 3)
    yield problem((1, 1), (1, 1), 1)
    yield problem((256, 40), (3, 5), 3, padding=1)  # a reduction longer than one panel
    yield problem((520, 20), (4, 4), 1)
    yield problem((600, 40), (6, 14), 1)  # several blocks of channels, read in place
    yield problem((4, 300), (5, 5), 3)  # more output channels than one panel


def kernel_sizes() -> Iterator[ConvProblem]:
    for k in range(1, 12):
        yield problem((3, 5), (14, 33), k, padding=k // 2)
        yield problem((17, 3), (50,), k, padding=k // 2)
        yield problem((1, 1), (20, 50), k)
        yield problem((13, 13), (12, 31), k, padding=k // 2, groups=13)
    for kernel in ((1, 7), (7, 1), (2, 5), (4, 2), (1, 11), (3, 1)):
        yield problem((13, 17), (11, 14), kernel, padding=1)
        yield problem((5, 5), (11, 33), kernel, groups=5)
    for kernel in ((1, 3, 3), (3, 1, 2), (2, 2, 2), (3, 3, 3), (1, 1, 1), (5, 1, 4)):
        yield problem((5, 13), (5, 6, 9), kernel, padding=((1, 0), (0, 1), (1, 2)))
        yield problem((6, 6), (5, 6, 17), kernel, groups=6)
    yield problem((3, 5), (4, 4), 7, padding=3)  # kernels larger than the unpadded input
    yield problem((2, 3), (3,), 9, padding=((4, 5),))
    yield problem((5, 5), (3, 2), 5, padding=2, groups=5)
    yield problem((3, 3), (2, 3, 2), 5, padding=2)
    yield problem((3, 4), (3, 3), 2, padding=4)  # some outputs see nothing but padding
    yield problem((4, 4), (5,), 3, padding=6, groups=4)
    # depthwise kernels of more rows than registers, nearly as large as the map, and long signals
    yield problem((17, 17), (14, 14), 27, padding=13, groups=17)
    yield problem((17, 17), (15, 14), 27, padding=((12, 14), (0, 25)), groups=17)
    yield problem((3, 3), (20, 50), 17, padding=8, groups=3)
    yield problem((3, 3), (37, 40), 17, padding=16, groups=3, dilation=2)
    yield problem((3, 3), (30, 40), 17, padding=8, groups=3, stride=2)
    yield problem((17, 17), (14, 14), 7, padding=3, groups=17)
    yield problem((19, 19), (200,), 31, padding=15, groups=19)
    # one dimension, folded into rows: sub-grids, several panels of tiles, groups, channels last
    yield problem((17, 20), (300,), 9, padding=20, dilation=5)
    yield problem((6, 34), (90,), 16, padding=8, groups=2, batch=2)
    yield problem((5, 9), (70,), 11, padding=((4, 7),), layout="channels_last")


def strides_and_dilations() -> Iterator[ConvProblem]:
    for stride, kernel in product((2, 3, 4), (1, 2, 3, 5)):
        yield problem((5, 17), (15, 33), kernel, stride=stride, padding=kernel // 2)
        yield problem((7, 7), (14, 31), kernel, stride=stride, padding=kernel // 2, groups=7)
    yield problem((13, 5), (9, 34), 3, stride=(1, 2), padding=1)
    yield problem((13, 5), (9, 34), 3, stride=(3, 1), padding=1)
    yield problem((4, 17), (9, 34), (2, 3), stride=(1, 4))  # some samples meet no tap
    yield problem((3, 17), (31, 50), 7, stride=2, padding=3)
    yield problem((3, 33), (35, 35), 11, stride=4)
    yield problem((17, 9), (70,), 5, stride=3, padding=2)
    yield problem((2, 17), (900,), 7, stride=2, padding=3)  # several parts of a row
    yield problem((1, 24), (700,), 10, stride=5)
    yield problem((3, 20), (6, 150), (3, 10), stride=(1, 2), padding=1)
    yield problem((5, 8), (7, 8, 9), 3, stride=2, padding=1)
    yield problem((6, 6), (7, 8, 19), 3, stride=(1, 2, 3), padding=1, groups=6)
    yield problem((17, 33), (33, 33), 3, dilation=6, padding=6)  # a row ends amid its sub-grids
    yield problem((16, 40), (9, 150), 3, stride=2, padding=1)
    yield problem((5, 9), (20, 33), 3, dilation=(2, 3), stride=2, padding=2)
    for dilation in range(2, 13):
        yield problem((5, 13), (14, 33), 3, dilation=dilation, padding=dilation)
        yield problem((3, 3), (27, 31), 3, dilation=dilation, padding=1, groups=3)
        yield problem((13, 5), (50,), 3, dilation=dilation, padding=dilation)
    yield problem((5, 20), (14, 33), 3, dilation=18, padding=18)  # sub-grids of two samples
    yield problem((5, 13), (20, 33), 3, dilation=(1, 4), padding=2)
    yield problem((5, 13), (20, 33), 3, dilation=(5, 1), padding=3)
    yield problem((5, 9), (20, 33), 3, dilation=2, stride=2, padding=2)
    yield problem((4, 4), (20, 33), 3, dilation=3, stride=2, padding=2, groups=4)
    yield problem((5, 9), (7, 8, 9), 3, dilation=2, padding=2)
    yield problem((6, 6), (7, 8, 19), 3, dilation=(3, 2, 1), padding=2, groups=6)


def groups_batches_and_pads() -> Iterator[ConvProblem]:
    for groups, per_group in product((2, 3, 5), ((1, 2), (3, 1), (5, 7), (6, 6), (16, 17))):
        channels = (groups * per_group[0], groups * per_group[1])
        yield problem(channels, (7, 14), 3, padding=1, groups=groups)
    for multiplier, channels in product((1, 2, 3), (1, 3, 17, 33)):
        pair = (channels, channels * multiplier)
        yield problem(pair, (9, 31), 3, padding=1, groups=channels)
        yield problem(pair, (9, 31), 3, padding=1, groups=channels, layout="channels_last")
        yield problem(pair, (33,), 5, padding=2, groups=channels)
    # few channels side by side: a pattern that ends amid a vector, in each of two strips
    for channels in (2, 3, 5, 12):
        pair, few = (channels, channels), {"groups": channels, "layout": "channels_last"}
        yield problem(pair, (14, 50), 5, padding=2, batch=2, **few)
        yield problem(pair, (12, 27), 3, dilation=2, padding=((0, 3), (2, 1)), **few)
    yield problem((3, 3), (4, 9, 21), 3, padding=1, groups=3, layout="channels_last")
    yield problem((5, 10), (5, 6, 7), 3, padding=1, groups=5)
    for batch in (0, 1, 3):
        yield problem((5, 17), (7, 14), 3, batch=batch, padding=1)
        yield problem((5, 5), (7, 33), 3, batch=batch, padding=1, groups=5)
        yield problem((17, 5), (31,), 1, batch=batch)
        yield problem((3, 5), (4, 5, 6), 2, batch=batch)
        yield problem((1, 3), (9, 20), 5, batch=batch)
        yield problem((5, 9), (9, 20), 3, batch=batch, dilation=2)
    for pads in (((0, 1), (2, 0)), ((3, 0), (0, 0)), ((0, 0), (0, 3)), ((1, 2), (3, 4))):
        yield problem((5, 17), (7, 33), 3, padding=pads)
        yield problem((5, 5), (7, 33), 3, padding=pads, groups=5)
        yield problem((5, 7), (13, 33), 3, padding=pads, stride=2, dilation=2)


def dtypes_and_layouts() -> Iterator[ConvProblem]:
    for dtype, layout in product(DTYPES, ("channels_first", "channels_last", "strided")):
        if (dtype, layout) == ("float32", "channels_first"):
            continue  # the other families
        kind = {"dtype": dtype, "layout": layout}
        yield problem((13, 33), (7, 14), 1, batch=2, **kind)
        yield problem((13, 33), (1, 1), 1, batch=2, **kind)  # any stride fits a map of one pixel
        yield problem((5, 17), (9, 3), 3, **kind)  # and one of one column
        yield problem((17, 8), (1,), 1, **kind)
        yield problem((17, 5), (7, 33), 3, padding=1, **kind)
        yield problem((3, 17), (15, 31), 5, stride=2, padding=2, **kind)
        yield problem((13, 13), (9, 50), 3, padding=1, groups=13, **kind)
        yield problem((4, 12), (15, 33), 3, stride=2, padding=1, groups=4, **kind)
        yield problem((12, 6), (7, 14), 3, padding=1, groups=3, **kind)
        yield problem((5, 13), (14, 31), 3, dilation=4, padding=4, **kind)
        yield problem((13, 5), (70,), 4, padding=((1, 2),), **kind)
        yield problem((3, 5), (5, 6, 7), 3, padding=1, **kind)
        yield problem((2, 1), (20, 50), 7, padding=3, **kind)
        yield problem((6, 6), (5, 6, 17), 3, padding=1, groups=6, **kind)


def integers() -> Iterator[ConvProblem]:
    """Every way that an input is read and an output written, each with one pair of types."""
    kinds = cycle(
        [*product(INTEGERS, ("uint8", "float32", "int16", "uint16")), ("float32", "uint8")]
    )
    last, any_order = {"layout": "channels_last"}, {"layout": "strided"}
    for each in (
        problem((1, 1), (33, 70), 5, padding=2),
        problem((13, 33), (7, 14), 1, batch=2),
        problem((3, 3), (14, 50), 5, padding=2, groups=3, **last),
        problem((3, 17), (15, 31), 5, stride=2, padding=2),
        problem((13, 13), (9, 50), 3, padding=1, groups=13),
        problem((17, 17), (14, 14), 7, padding=3, groups=17),
        problem((2, 1), (20, 50), 7, padding=3),
        problem((5, 13), (14, 31), 3, dilation=4, padding=4),
        problem((17, 17), (9, 20), 3, padding=1, groups=17, **last),
        problem((13, 5), (70,), 4, padding=((1, 2),)),
        problem((1, 1), (900,), 65, padding=32),
        problem((17, 17), (14, 14), 27, padding=13, groups=17),
        problem((3, 16), (15, 31), 3, stride=2, padding=1, **last),
        problem((5, 17), (7, 33), 3, padding=1, **any_order),
        problem((4, 12), (15, 33), 3, stride=2, padding=1, groups=4),
        problem((3, 3), (37, 40), 17, padding=8, groups=3),
        problem((3, 5), (5, 6, 7), 3, padding=1, **last),
        problem((1, 1), (35, 70), 3, padding=1),
        problem((6, 6), (5, 6, 17), 3, padding=1, groups=6),
        problem((3, 3), (20, 33), 9, padding=4, groups=3, **last),
        problem((1, 1), (50, 70), 31, padding=15),
        problem((2, 3), (400,), 65, padding=32),
        problem((2, 2), (33, 40), (9, 12), padding=4, groups=2, **any_order),
    ):
        dtype, result = next(kinds)
        yield each.with_(dtype=dtype, out_dtype=result)


def large_kernels() -> Iterator[ConvProblem]:
    yield problem((1, 1), (300,), 64, padding=32)
    yield problem((3, 3), (200,), 65, padding=((64, 0),), groups=3)
    yield problem((2, 3), (150,), 100, batch=2, padding=50)
    yield problem((1, 2), (250,), 64, dilation=2)
    yield problem((16, 6), (70,), 20, padding=9)
    yield problem((1, 1), (5000,), 129, padding=64)
    yield problem((1, 1), (40, 50), 9, padding=4)
    yield problem((3, 3), (33, 147), (13, 11), padding=((6, 6), (5, 4)), groups=3)
    yield problem((3, 2), (30, 35), 15, batch=2, padding=7)
    yield problem((2, 4), (20, 21), (21, 17), padding=10, groups=2)  # larger than the map
    yield problem((1, 1), (17, 70), (3, 31))
    yield problem((1, 1), (70, 17), (31, 3), padding=1)
    yield problem((4, 4), (31, 33), 9, dilation=2, groups=4)
    yield problem((2, 2), (9, 10, 11), (5, 4, 5), padding=2)
    for dtype, layout in product(DTYPES, ("channels_first", "channels_last", "strided")):
        kind = {"dtype": dtype, "layout": layout}
        yield problem((2, 2), (20, 33), (9, 12), padding=4, groups=2, **kind)
        yield problem((2, 3), (170,), 70, padding=35, **kind)
        yield problem((5, 5), (4, 6), (7, 12), padding=((3, 3), (5, 6)), groups=5, **kind)
    for batch in (1, 3):  # every output reaches every input
        yield problem((3, 3), (14, 14), 27, batch=batch, padding=13, groups=3)
        yield problem((4, 4), (9,), 20, batch=batch, padding=10, groups=4)
        yield problem((2, 2), (3, 2, 4), (5, 3, 9), batch=batch, padding=((2, 2), (1, 1), (5, 3)),
                      groups=2)  # fmt: skip


def channels_last() -> Iterator[ConvProblem]:
    kind = {"layout": "channels_last"}
    yield problem((64, 40), (9, 17), 3, padding=1, **kind)
    yield problem((40, 64), (9, 17), 1, batch=2, **kind)
    yield problem((256, 24), (3, 9), 3, padding=1, **kind)  # pixels a power of two apart
    yield problem((256, 24), (3, 9), 1, stride=2, **kind)
    yield problem((520, 33), (5, 7), 1, **kind)  # a reduction longer than one panel
    yield problem((24, 48), (7, 14), 3, stride=2, padding=1, **kind)
    yield problem((24, 40), (20, 15), 3, dilation=6, padding=6, **kind)
    yield problem((32, 64), (9, 15), 3, padding=1, groups=2, **kind)
    yield problem((3, 40), (20, 31), 7, stride=2, padding=3, **kind)
    yield problem((17, 40), (50,), 5, stride=2, padding=2, **kind)
    yield problem((9, 24), (5, 6, 7), 3, padding=1, **kind)
    yield problem((16, 16), (4, 5, 6), 3, dilation=2, padding=2, **kind)


def _random_problem(source: random.Random) -> ConvProblem | None:
    ndim = source.choice((1, 1, 2, 2, 2, 3))
    largest = {1: 90, 2: 40, 3: 9}[ndim]

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(source.randint(low, high) for _ in range(ndim))

    groups = source.choice((1, 1, 1, 2, 3, 8))
    inputs = source.choice((1, 1, 2, 3, 5, 16, 17))
    outputs = source.choice((1, 1, 2, 3, 8, 13))
    kernel = axes(1, {1: 11, 2: 6, 3: 3}[ndim])
    dilation = axes(1, source.choice((1, 1, 2, 12 if ndim < 3 else 3)))
    padding = tuple((source.randint(0, k), source.randint(0, k)) for k in kernel)
    in_size = axes(1, largest)
    reaches = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if any(s + sum(p) < r for s, p, r in zip(in_size, padding, reaches, strict=True)):
        return None
    made = problem(
        (groups * inputs, groups * outputs),
        in_size,
        kernel,
        batch=source.choice((1, 1, 3)),
        stride=axes(1, source.choice((1, 1, 2, 4))),
        padding=padding,
        dilation=dilation,
        groups=groups,
        dtype=source.choice(("float32", "float32", "float32", *DTYPES)),
        layout=source.choice(("channels_first", "channels_first", "channels_last")),
    )
    return made if made.macs <= MAX_MACS else None


def random_mixtures() -> Iterator[ConvProblem]:
    source = random.Random(7)
    found = 0
    while found < RANDOM_PROBLEMS:
        made = _random_problem(source)
        if made is not None:
            found += 1
            yield made


FAMILIES = (
    channels_and_widths,
    kernel_sizes,
    strides_and_dilations,
    groups_batches_and_pads,
    dtypes_and_layouts,
    large_kernels,
    channels_last,
    random_mixtures,
)


def as_called(of: ConvProblem) -> ConvProblem:
    """The problem as a call sees it: one pixel, or one channel, is channels first in any order."""
    one_channel = of.in_channels == 1 and of.layout == "channels_last"
    one_pixel = max(of.in_size) == 1
    return of.with_(layout="channels_first") if one_channel or one_pixel else of


def matrix() -> list[ConvProblem]:
    """Every problem of the CPU once."""
    return [*float_matrix(), *map(as_called, integers())]


def float_matrix() -> list[ConvProblem]:
    """Every problem once that both devices have kernels for."""
    return list(dict.fromkeys(as_called(each) for family in FAMILIES for each in family()))
