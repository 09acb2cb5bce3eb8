"""Planning takes bounded work and memory, whatever the sizes are.

What is asked of a kernel before it runs (reasons, cost, cost of packing, workspace, plan) may not
walk an axis: a signal has millions of samples, and a typing error has more. Work is counted, in
lines of Python that run and in bytes, never timed. `extreme_problems` has the problems.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import math
import pickle
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fastconv
from extreme_problems import extreme_problems, operand_bytes
from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem import ConvProblem
from fastconv.contract.problem_line import parse_line
from fastconv.contract.spec import CudaInfo, DeviceInfo, KernelSpec, dense_binding
from fastconv.cuda_device import EMULATED, MODELS, use_device
from fastconv.kernels import taps
from fastconv.kernels.cpu.fast_fir import costs as fir_costs
from fastconv.kernels.cpu.fft import costs as fft_sizes
from fastconv.kernels.cpu.runtime import jit
from fastconv.kernels.cpu.window import (
    pixel_costs,
    row_costs,
    row_parts,
    rows_copied_layout,
)
from fastconv.kernels.cpu.winograd_1d import costs as winograd_1d_blocks
from fastconv.packing import PackedWeights
from helpers import bits, gaussians, in_layout

MIB = 1 << 20
#: Lines of Python: some 50 ms.
MOST_LINES = 600_000
MOST_BYTES = 50 * MIB
#: A thread's workspace beside this many times the operands: a matrix product of one channel packs
#: 32 pixels of its taps, and widens float16.
MOST_TIMES, MOST_FIXED = 32, 160 * MIB

CPU = cpu_info()
NARROW = replace(CPU, isa="avx2", vector_bytes=32, registers=16, threads=16)
GPU = MODELS["A100"]
KERNELS = dispatch.kernels(op="conv")


@contextlib.contextmanager
def bounded_work(what: object, lines: int = MOST_LINES, size: int = MOST_BYTES) -> Iterator[None]:
    """Fail where more lines run than allowed, at once, or more memory is taken."""
    left = lines

    def count(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal left
        left -= event == "line"
        if left < 0:
            raise AssertionError(f"{what}: more than {lines} lines at {frame.f_code}")
        return count

    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    earlier = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(earlier)
    taken = tracemalloc.get_traced_memory()[1] - before
    assert taken <= size, f"{what}: took {taken / MIB:.0f} MiB"


@pytest.fixture
def traced_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def infos(spec: KernelSpec) -> list[DeviceInfo] | list[CudaInfo]:
    return [CPU, NARROW] if spec.device == "cpu" else [GPU]


@pytest.mark.usefixtures("traced_memory")
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_what_is_asked_of_a_kernel_takes_bounded_work(spec: KernelSpec) -> None:
    device = itertools.cycle(infos(spec))
    for each in extreme_problems(spec.device, step=3):
        info = next(device)
        with bounded_work((spec.name, each)):
            refused = spec.reasons(each, info)
            if refused:
                continue
            seconds = spec.cost(each, info) + spec.pack_cost(each, info)
            scratch = spec.workspace(each, info)
        assert 0 < seconds < math.inf
        threads = info.threads if isinstance(info, DeviceInfo) else 1
        assert scratch <= threads * (MOST_TIMES * operand_bytes(each) + MOST_FIXED), each


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_extreme_problem_is_explained(device: str) -> None:
    context = use_device(EMULATED, GPU) if device == "cuda" else contextlib.nullcontext()
    with context:
        for each in extreme_problems(device, step=10):
            explained = fastconv.explain(each)
            assert len(str(explained).splitlines()) == len(explained.rows) + 2 + bool(
                explained.note
            )
            if device == "cpu":
                assert explained.chosen, str(explained)


#: Many times what strips, vectors and tiles are cut by: a signal that is so much longer has more of
#: them and no others.
_LONGER = 2**20 * 3 * 5 * 7 * 11
#: For each kernel a line with a length to fill in.
LONG = {
    "cpu.im2col_gemm": "ic3iw{}oc5kw3pw1",
    "cpu.swapped_gemm": "ic3iw{}oc5kw3pw1",
    "cpu.dilated": "ic3iw{}oc5kw3pw9dw8",
    "cpu.depthwise": "ic1iw{}oc1kw5pw2",
    "cpu.direct": "ic2iw{}oc3kw5pw2",
    "cpu.brgemm": "ic4iw{}oc16kw3pw1",
    "cpu.winograd_f2": "ic4iw{}oc4kw3pw1",
    "cpu.winograd_1d": "ic4iw{}oc16kw3pw1",
    "cpu.fast_fir": "ic1iw{}oc1kw100",
    "cpu.fft": "ic1iw{}oc1kw100",
}


@pytest.mark.usefixtures("traced_memory")
@pytest.mark.parametrize("flags", ["", "--dt=f16 ", "--tag=axb "], ids=["f32", "f16", "last"])
@pytest.mark.parametrize("kernel", LONG)
def test_a_plan_of_any_length_is_small_and_compiles_nothing_of_its_own(
    kernel: str, flags: str
) -> None:
    (spec,) = (each for each in KERNELS if each.name == kernel)
    short, long = (
        parse_line(flags + LONG[kernel].format(n))[0] for n in (600_011, 600_011 + _LONGER)
    )
    made = dispatch.plan_of(spec, short, dense_binding(short))
    known = jit.statistics.compiled, jit.statistics.loaded
    with bounded_work((kernel, long)):
        other = dispatch.plan_of(spec, long, dense_binding(long))
    assert (jit.statistics.compiled, jit.statistics.loaded) == known
    assert made.packing == other.packing


#: Rows that are copied, strips and tiles of them, and what their outputs need besides.
COPIED = {
    "--dt=f16 ic2iw3001oc3kw5pw2": "gelu",
    "--dt=f16 g3ic3mb2iw2050oc3kw3dw4pw40": None,
    "ic2iw4099oc2kw7sw3pw9": "relu",
    "--dt=f64 ic1iw3000oc2kw9sw5dw10pw3": "silu",
    "ic1iw2500oc1kw300pw150": None,
    "--dt=bf16 ic2ih9iw1100oc3kh3kw5ph1pw2": "tanh",
    "ic1ih40iw700oc1kh30kw3ph15pw1": None,
    "--tag=axb ic4ih5iw900oc4kh3kw3ph1pw1sw3sh1": "relu6",
}


@pytest.mark.parametrize("line", COPIED)
def test_spans_of_a_row_do_not_decide_the_bits(line: str, rng: np.random.Generator) -> None:
    of = parse_line(line)[0]
    tensors = gaussians(of, rng)
    binding = replace(
        dense_binding(of), activation=COPIED[line], residual_strides=dense_binding(of).out_strides
    )
    name = "cpu.depthwise" if of.is_depthwise else "cpu.direct"
    (spec,) = (each for each in KERNELS if each.name == name)
    found = []
    for l2 in (CPU.l2, 8 << 10, 1 << 10):
        layout = rows_copied_layout.layout(of, replace(CPU, l2=l2))[1]
        assert (layout["spans"] > 1) == (l2 < CPU.l2)
        module, _, function = spec.target.partition(":")
        plan = getattr(importlib.import_module(module), function)(of, binding, replace(CPU, l2=l2))
        x, residual = (in_layout(each, of.layout) for each in (tensors.x, tensors.residual))
        out = in_layout(np.zeros(of.out_shape, tensors.x.dtype), of.layout)
        plan.run(x, plan.pack(tensors.weight), tensors.bias, residual, out)
        found.append(bits(out))
    assert found[0] == found[1] == found[2]


def test_copied_padding_has_a_price() -> None:
    wide, narrow = (
        parse_line(f"--tag=any mb10ic10iw9oc2kw9pw{4 * hole}dw{hole - 1}")[0]
        for hole in (1 << 16, 1)
    )
    (direct,) = (each for each in KERNELS if each.name == "cpu.direct")
    assert direct.cost(wide, CPU) > 100 * direct.cost(narrow, CPU)
    assert dispatch.choose(wide).name != "cpu.direct"


@pytest.mark.parametrize(
    "line",
    [
        "ic64ih33889iw585oc1kh40kw5",
        "ic3oc1ih4kh6ph586656iw10478562kw260pw0",
        "ic1iw1000000000oc1kw300",
        "ic3ih20000iw20000oc3kh31",
        "--dt=f64 g3ic3ih100000iw900oc3kh63kw9",
    ],
)
def test_blocks_of_fast_fir_have_a_bound(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits in no block that is looked at refuses the problem, and fails no other kernel."""
    given = parse_line(line)[0]
    (spec,) = (spec for spec in KERNELS if spec.name == "cpu.fast_fir")
    if not spec.reasons(given, CPU):
        _, sizes = fir_costs.choose(given, CPU)
        channels = given.in_channels // given.groups
        held = sizes.input_bytes(channels, given.compute_itemsize)
        assert held <= fir_costs.MOST_BYTES == 32 << 20
    assert fastconv.explain(given).chosen
    monkeypatch.setattr(fir_costs, "MOST_BYTES", 1 << 12)
    assert "transforms blocks of" in spec.reasons(given, CPU)[0]


def test_a_transform_is_not_written_out_without_end() -> None:
    (spec,) = (each for each in KERNELS if each.name == "cpu.winograd_1d")
    assert not spec.reasons(parse_line("ic1iw32000oc128kw80sw4pw38")[0], CPU)
    assert "writes out" in spec.reasons(parse_line("ic1iw441000oc64kw400sw160")[0], CPU)[0]


@pytest.mark.parametrize("taps", [3, 64])
def test_a_long_signal_plans_as_a_short_one(taps: int, rng: np.random.Generator) -> None:
    short, long = (rng.integers(-4, 4, (1, 1, n)).astype(np.float32) for n in (1000, 441_000))
    weight = rng.integers(-4, 4, (1, 1, taps)).astype(np.float32)
    with fastconv.precision("exact"):
        fastconv.conv1d(short, weight)
        tracemalloc.start()
        with bounded_work(taps):
            found = fastconv.conv1d(long, weight)
        tracemalloc.stop()
    assert np.array_equal(found[0, 0], np.correlate(long[0, 0], weight[0, 0], "valid"))


def test_a_signal_longer_than_any_transform_is_cut_into_blocks() -> None:
    problem = parse_line("ic2iw4194368oc2kw64")[0]
    seconds, blocks = fft_sizes.choose(problem, CPU)
    assert 0 < seconds < math.inf
    assert blocks.lengths[0] <= 16 * 64


def test_the_kernel_alone_decides_the_transforms_of_long_signals() -> None:
    lengths = fft_sizes._lengths(600_000, 100)
    assert len(lengths) > 10
    assert all(fft_sizes._lengths(out, 100) == lengths for out in (700_011, 3_000_000, 2**41))


def test_an_object_keeps_the_orders_of_its_weight_that_were_used_last() -> None:
    layer = fastconv.Conv1d(np.ones((1, 1, 70), np.float32))
    with fastconv.use_kernel("cpu.fft"):
        for length in range(71, 1100, 40):
            layer(np.ones((1, 1, length), np.float32))
            assert len(layer._packed) <= 8
    assert len(layer._packed) == 8


def test_large_orders_of_a_weight_make_room_for_the_next() -> None:
    kept = PackedWeights()
    large = np.broadcast_to(np.float32(0), (50 * MIB,))  # 200 MiB, of which none is there
    for order in range(5):
        assert kept.find(order, lambda: large) is large
        assert kept.nbytes <= (256 + 200) * MIB
    assert len(kept) == 2
    kept.find("small", lambda: np.zeros(1))
    assert kept.find(4, lambda: None) is large  # used after the others, so still kept
    assert len(copy.deepcopy(kept)) == len(pickle.loads(pickle.dumps(kept))) == 0


def walked_intervals(problem: ConvProblem) -> list[tuple[int, int, int, int]]:
    """`axis_intervals`, position by position."""
    size, kernel = problem.in_size[0], problem.kernel_size[0]
    found: list[tuple[int, int, int, int]] = []
    for position in range(problem.out_size[0]):
        origin = position * problem.stride[0] - problem.padding[0][0]
        taps = [t for t in range(kernel) if 0 <= origin + t * problem.dilation[0] < size]
        first = sum(origin + t * problem.dilation[0] < 0 for t in range(kernel))
        ends = (first, first + len(taps))
        if found and found[-1][2:] == ends:
            found[-1] = (found[-1][0], found[-1][1] + 1, *ends)
        else:
            found.append((position, 1, *ends))
    return found


def small_rows() -> list[ConvProblem]:
    rows = [
        ConvProblem(1, 1, 1, (size,), (kernel,), (stride,), ((low, high),), (dilation,))
        for size, kernel, stride, low, high, dilation in itertools.product(
            (1, 2, 7, 23), (1, 2, 5), (1, 2, 7), (0, 3, 31), (0, 17), (1, 3, 8)
        )
        if size + low + high > dilation * (kernel - 1)
    ]
    assert len(rows) > 500
    return rows


def test_intervals_and_shares_in_closed_form_are_those_of_a_walk() -> None:
    for each in small_rows():
        walked = walked_intervals(each)
        assert taps.axis_intervals(each, 0) == walked, each
        met = sum(size * (end - first) for _, size, first, end in walked)
        whole = each.out_size[0] * each.kernel_size[0]
        assert taps.share_in_reach(each, 0) == met / whole, each


@pytest.mark.parametrize("pixels", [1, 3, 12])
def test_strips_by_kinds_are_those_of_a_walk(pixels: int) -> None:
    for each in small_rows():
        parts = pixel_costs.strips(each, pixels)
        begins = [parts.begin(i) for i in range(parts.count + 1)]
        first = 0
        for stretch in parts.stretches(pixel_costs.side_places(each, pixels)):
            kinds = {width: (begin, many) for width, begin, many in stretch.kinds}
            walked: dict[int, list[int]] = {}
            for begin, end in itertools.pairwise(begins[first : stretch.end + 1]):
                walked.setdefault(end - begin, []).append(begin)
            assert {width: (found[0], len(found)) for width, found in walked.items()} == kinds
            for width, found in walked.items():
                met = {
                    tuple(p for p in pixel_costs._offsets(each, width)
                          if 0 <= begin * each.stride[0] - each.padding[0][0] + p < each.in_size[0])
                    for begin in found
                }  # fmt: skip
                assert len(met) == 1, (each, stretch)
                (columns,) = met
                low, high = pixel_costs.met_columns(each, found[0], width)
                assert (low, high) == ((columns[0], columns[-1] + 1) if columns else (0, 0))
            first = stretch.end
        assert first == parts.count


@pytest.mark.parametrize("total", [1, 2, 15, 16, 17, 63, 64, 65, 441, 4097])
def test_widths_fill_a_row(total: int) -> None:
    for most in (1, 2, 4):
        strips = row_costs.widths(total, 16, most)
        assert sum(many * vectors for many, vectors, _ in strips) == -(-total // 16)
        *whole, (last, vectors, tail) = strips
        assert last == 1 and all(lanes == 16 for *_, lanes in whole)
        before = sum(many * vectors for many, vectors, _ in whole)
        assert 0 < total - 16 * (before + vectors - 1) <= tail <= 16


def test_parts_of_a_row_longer_than_64_bits_count() -> None:
    parts = row_parts.Parts(2**70 + 5, 2**66)
    assert sum(many for stretch in parts.stretches([2**69]) for *_, many in stretch.kinds) == 2**66


def test_pieces_are_counted_as_they_are_listed() -> None:
    for kernel, stride, r in itertools.product(range(1, 30), range(1, 32), (2, 3, 4)):
        blocks = winograd_1d_blocks.Blocks(4, r, kernel, stride, 16)
        pieces = winograd_1d_blocks.row_pieces(kernel, stride, r)
        last = max(phase + stride * (first + blocks.n - 1) for phase, first in pieces)
        assert blocks.pieces == len(pieces)
        assert blocks.reads == -(-(last + 1) // (4 * stride)) * 4 * stride


def test_a_stride_far_beyond_the_input_takes_little_scratch_memory() -> None:
    """Found by the search: tables of samples grew with a stride that one tap passes over."""
    line = "mb4ic2id7ih7iw7oc1od5oh7ow6kd3kh1kw1pw2147483645sw429496729"
    of = parse_line(line)[0]
    able = [spec for spec in dispatch.kernels("conv", "cpu") if not spec.reasons(of, CPU)]
    assert len(able) >= 3
    assert all(spec.workspace(of, CPU) < 1 << 20 for spec in able)
