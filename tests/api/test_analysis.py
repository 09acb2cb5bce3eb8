"""Layer arithmetic against published figures, brute force and PyTorch's own layers."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastconv.analysis
from fastconv.analysis import (
    Conv,
    Linear,
    Pool,
    ReceptiveField,
    analyse,
    output_size,
    receptive_field,
)
from fastconv.contract.errors import DTypeError, ShapeError

pytestmark = pytest.mark.program

# Krizhevsky et al. 2012, with the 227x227 input that its sizes imply.
ALEXNET = [
    Conv(96, 11, stride=4, name="conv1"),
    Pool(3, stride=2, name="pool1"),
    Conv(256, 5, padding=2, groups=2, name="conv2"),
    Pool(3, stride=2, name="pool2"),
    Conv(384, 3, padding=1, name="conv3"),
    Conv(384, 3, padding=1, groups=2, name="conv4"),
    Conv(256, 3, padding=1, groups=2, name="conv5"),
    Pool(3, stride=2, name="pool5"),
    Linear(4096, name="fc6"),
    Linear(4096, name="fc7"),
    Linear(1000, name="fc8"),
]


def vgg16() -> list[Conv | Pool]:
    stack: list[Conv | Pool] = []
    for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        stack += [Conv(channels, 3, padding=1)] * repeats + [Pool(2)]
    return stack


def test_alexnet_sizes_and_parameters() -> None:
    report = analyse(ALEXNET, (3, 227, 227))
    rows = {row.name: row for row in report.rows}
    assert rows["conv1"].output_shape == (96, 55, 55)
    assert rows["conv1"].parameters == 34_944
    assert rows["conv1"].macs == 105_415_200
    assert rows["pool1"].output_shape == (96, 27, 27)
    assert rows["pool1"].parameters == rows["pool1"].macs == 0
    assert rows["fc6"].input_shape == (256, 6, 6)
    assert rows["fc6"].parameters == 37_752_832
    assert report.output_shape == (1000,)
    assert report.parameters == 60_965_224
    assert report.flops == 2 * report.macs


def test_published_receptive_fields() -> None:
    # https://distill.pub/2019/computing-receptive-fields: AlexNet 195, VGG-16 212, both step 32.
    alexnet = receptive_field(layer for layer in ALEXNET if not isinstance(layer, Linear))
    assert (alexnet.size, alexnet.step) == ((195, 195), (32, 32))
    vgg = receptive_field(vgg16())
    assert (vgg.size, vgg.step) == ((212, 212), (32, 32))


def test_five_by_five_with_ten_filters() -> None:
    report = analyse([Conv(10, 5, padding=2)], (3, 32, 32))
    assert report.output_shape == (10, 32, 32)
    assert report.parameters == 760


def test_one_axis_in_numbers() -> None:
    assert output_size(256, 3, stride=2, padding=1) == 128
    assert output_size((256,), 3, stride=2, padding=1) == (128,)


def test_linear_as_convolution() -> None:
    conv = analyse([Conv(4096, 7)], (512, 7, 7))
    linear = analyse([Linear(4096)], (512, 7, 7))
    assert conv.output_shape == (4096, 1, 1)
    assert conv.parameters == linear.parameters == 7 * 7 * 512 * 4096 + 4096
    assert conv.macs == linear.macs
    assert conv.receptive_field.size == linear.receptive_field.size == (7, 7)


@pytest.mark.parametrize("channels", [4, 64, 256])
def test_small_kernels_against_one_large(channels: int) -> None:
    three = [Conv(channels, 3, padding=1, bias=False)] * 3
    seven = [Conv(channels, 7, padding=3, bias=False)]
    shape = (channels, 56, 56)
    assert analyse(three, shape).parameters == 27 * channels**2
    assert analyse(seven, shape).parameters == 49 * channels**2
    assert receptive_field(three) == receptive_field(seven)


@pytest.mark.parametrize("channels", [4, 64, 256])
def test_bottleneck_against_plain(channels: int) -> None:
    half = channels // 2
    bottleneck = [
        Conv(half, 1, bias=False),
        Conv(half, 3, padding=1, bias=False),
        Conv(channels, 1, bias=False),
    ]
    plain = [Conv(channels, 3, padding=1, bias=False)]
    shape = (channels, 14, 14)
    narrow, wide = analyse(bottleneck, shape), analyse(plain, shape)
    assert narrow.parameters == 3.25 * channels**2
    assert wide.parameters == 9 * channels**2
    assert (narrow.macs, wide.macs) == (narrow.parameters * 14 * 14, wide.parameters * 14 * 14)


@pytest.mark.parametrize(
    ("dtype", "item_bytes"), [("float64", 8), ("float32", 4), ("float16", 2), ("bfloat16", 2)]
)
def test_bytes_of_every_dtype(dtype: str, item_bytes: int) -> None:
    report = analyse([Conv(8, 3), Pool(2)], (4, 10, 10), dtype=dtype)
    conv, pool = report.rows
    assert conv.bytes == item_bytes * (4 * 100 + 8 * 4 * 9 + 8 + 8 * 64)
    assert pool.bytes == item_bytes * (8 * 64 + 8 * 16)
    assert report.bytes == conv.bytes + pool.bytes


def test_table_has_every_layer_and_the_total() -> None:
    lines = str(analyse([*ALEXNET[:2], Conv(8, (1, 3), stride=(1, 2))], (3, 227, 227))).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "layer",
        "conv1",
        "pool1",
        "conv 1x3 s1x2",
        "total",
    ]
    assert len({len(line) for line in lines}) == 1


def test_docstrings() -> None:
    result = doctest.testmod(fastconv.analysis)
    assert result.attempted > 0
    assert result.failed == 0


def test_same_padding_puts_the_odd_zero_last() -> None:
    assert output_size((9, 9), (4, 5), padding="same", dilation=(1, 3)) == (9, 9)
    assert receptive_field([Conv(1, 4, padding="same")]).start == (-1, -1)


def test_linear_sees_the_whole_map_whatever_follows() -> None:
    report = analyse([Pool(2), Linear(5), Linear(3)], (2, 9, 8))
    assert [row.output_shape for row in report.rows] == [(2, 4, 4), (5,), (3,)]
    assert report.receptive_field == ReceptiveField((8, 8), (2, 2), (0, 0))


# Brute force: which inputs reach an output, by walking the windows one at a time.

axis_layers = st.builds(
    Pool,
    kernel_size=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.tuples(st.tuples(st.integers(0, 3), st.integers(0, 3))),
    dilation=st.integers(1, 3),
    ceil_mode=st.booleans(),
)


def positions(layer: Pool, size: int) -> list[list[int]]:
    """Return the input positions that each output position reads, padding included."""
    stride, ((low, high),) = layer.stride, layer.padding
    extent = layer.dilation * (layer.kernel_size - 1) + 1
    windows, start = [], -low
    while start + extent <= size + high or (layer.ceil_mode and start < size):
        if start + extent > size + high + stride - 1:
            break  # even in ceil mode a window lacks fewer positions than a stride
        windows.append([start + layer.dilation * tap for tap in range(layer.kernel_size)])
        start += stride
    return windows


@given(layer=axis_layers, size=st.integers(1, 30))
def test_output_size_counts_windows(layer: Pool, size: int) -> None:
    expected = len(positions(layer, size))
    arguments = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    if expected:
        assert output_size(size, *arguments, ceil_mode=layer.ceil_mode) == expected
    else:
        with pytest.raises(ShapeError, match="kernel_size"):
            output_size(size, *arguments, ceil_mode=layer.ceil_mode)


@given(stack=st.lists(axis_layers, min_size=1, max_size=4))
def test_receptive_field_against_walking_back(stack: list[Pool]) -> None:
    field = receptive_field(stack, ndim=1)
    for output in (0, 3):
        first = last = output
        for layer in reversed(stack):
            low = layer.padding[0][0]
            first = first * layer.stride - low
            last = last * layer.stride - low + layer.dilation * (layer.kernel_size - 1)
        start = field.start[0] + output * field.step[0]
        assert (start, start + field.size[0] - 1) == (first, last)


@settings(deadline=None)  # PyTorch's first call loads its library
@given(
    ndim=st.integers(1, 3),
    groups=st.integers(1, 3),
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
def test_convolutions_agree_with_torch(
    ndim: int,
    groups: int,
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    bias: bool,
) -> None:
    assume(dilation * (kernel - 1) < size + 2 * padding)
    channels, filters = 2 * groups, 3 * groups
    make = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[ndim - 1]
    module = make(channels, filters, kernel, stride, padding, dilation, groups, bias, device="meta")
    layer = Conv(filters, kernel, stride, padding, dilation, groups, bias)
    report = analyse([layer], (channels, *(size,) * ndim))
    y = module(torch.empty(1, channels, *(size,) * ndim, device="meta"))
    assert report.output_shape == tuple(y.shape[1:])
    assert report.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert report.macs == y.numel() * channels // groups * kernel**ndim


@settings(deadline=None)  # PyTorch's first call loads its library
@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 6),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 3),
    ceil_mode=st.booleans(),
)
def test_pools_agree_with_torch(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    assume(padding <= kernel // 2)
    assume(dilation * (kernel - 1) < size + 2 * padding)
    module = torch.nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    expected = module(torch.zeros(1, 1, size)).shape[2]
    assert output_size(size, kernel, stride, padding, dilation, ceil_mode=ceil_mode) == expected


@pytest.mark.parametrize(
    ("stack", "shape", "message"),
    [
        ([Conv(8, 5)], (3, 4, 4), r"layer 0 \(conv 5\): .*padded input"),
        ([Conv(8, 3), Pool(9)], (3, 8, 8), r"layer 1 \(pool 9\): kernel_size"),
        ([Conv(8, 3, groups=2)], (3, 8, 8), "groups=2"),
        ([Conv(9, 3, groups=2)], (4, 8, 8), "groups=2"),
        ([Conv(8, (3, 3))], (3, 8), "kernel_size"),
        ([Conv(8, 0)], (3, 8), "kernel_size"),
        ([Conv(8, 3, stride=0)], (3, 8), "stride"),
        ([Conv(8, 3, dilation=(1, -1))], (3, 8, 8), "dilation"),
        ([Conv(8, 3, padding=-1)], (3, 8), "padding"),
        ([Conv(8, 3, padding="full")], (3, 8), "padding"),
        ([Conv(8, 3, stride=2, padding="same")], (3, 8), "'same'"),
        ([Conv(0, 3)], (3, 8), "out channels"),
        ([Linear(0)], (3, 8), "out_features"),
        ([Linear(5), Conv(8, 3)], (3, 8, 8), r"layer 1 .*features of a Linear"),
        ([], (3, 8), "stack"),
        ([Conv(8, 3)], (3,), "input_shape"),
        ([Conv(8, 3)], (3, 0), "input_shape"),
    ],
)
def test_what_does_not_fit_is_named(
    stack: list[Conv | Pool | Linear], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        analyse(stack, shape)


def test_other_wrong_arguments() -> None:
    with pytest.raises(DTypeError, match="dtype"):
        analyse([Conv(8, 3)], (3, 8), dtype="int8")
    with pytest.raises(ShapeError, match="Linear"):
        receptive_field([Linear(3)])
    with pytest.raises(ShapeError, match="ndim"):
        receptive_field([Conv(8, 3)], ndim=4)


def test_it_is_loaded_when_its_name_is_used() -> None:
    code = (
        "import sys, fastconv\n"
        "assert not {'fastconv.analysis', 'fastconv.sparse'} & set(sys.modules)\n"
        "assert fastconv.analysis.analyse and 'analysis' in dir(fastconv)\n"
        "assert 'numba' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
