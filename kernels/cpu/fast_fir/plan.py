"""Fast FIR convolution: long and large kernels of few channels from fewer multiplications.

Along an axis of k taps, input, kernel and output are split into m *phases*, every m-th element::

    y_p = sum over q of w_q * x_(p + q)                        * a correlation of k / m taps

This is F(m, m) of Cook and Toom (kernels/cook_toom.py) with correlations for products: 2 m - 1 of
them instead of m^2, each on sequences m times shorter. On two axes, or on one axis twice::

    phases       products of the direct kernel's, by taps
    2 x 2         9 / 16    0.56
    3 x 3        25 / 81    0.31
    4 x 4        49 / 256   0.19          31x31 taps become 49 kernels of 8x8

Wins from about 9x9 taps, or 50 in one dimension, where the sums outweigh the transforms; there is
no sum over many channels to hide them behind, so cpu.winograd has nothing to gain here::

    task = image x group x block of the output, whose V fits L2
      for channel
        read rows, transform their phases along the width       T    8 rows of tiles at a time
        transform along the height                              V[e1, e2, C, rows, columns]
      for output channel, for rh rows of tiles
        for e1, e2: correlate V[e1, e2] with U[e1, e2]          M    register tile of tile.py
        transform back along the height, join along the width   R    bias, residual, activation

A signal of one axis is *folded* first: cut into segments that become the columns of an image, by
transposing blocks in registers. All transforms then run along the rows, a vector never crosses a
cache line, and each loaded vector serves rh outputs, where a window along the signal would serve
one. Its two levels of phases are those of one axis, (m1 m2) in all.

Phases and blocks are chosen by counted cycles (costs.py). Their number is bounded by the
error, relative to the largest output. In float32, over fifty random filters of 9x9 to 63x63 taps
(one to three channels) and as many of 64 to 1024 (up to 48 channels), normal and positive, it was
at most 3.1e-6 with 2 x 2 phases, 5.5e-6 with 3 x 3, 9.8e-6 with 4 x 3, and with 4 x 4 1.8e-5 for
sums of up to 12,000 products; for 49,000 it was 2.1e-5, so longer sums take fewer phases. 5 x 5
phases would make 5e-5.
A NaN or an infinity spreads over the tiles of m x m outputs that its window reaches.

Sources: Z.-J. Mou and P. Duhamel, "Short-length FIR filters and their use in fast nonrecursive
filtering", IEEE Trans. Signal Processing 39 (1991); R. Blahut, "Fast Algorithms for Signal
Processing" (2010), chapter 5.
"""

from __future__ import annotations

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, ConvPlan, DeviceInfo

from ..common.epilogue import epilogue_fields
from ..common.toom_cook_lines import INPUT, OUTPUT, lines_address
from ..common.workspace import Workspace
from ..machine.lines import whole_lines
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.ir import F64, ITEMSIZE, operand_codes
from ..window.separable import with_passes
from .costs import Sizes, choose
from .fields import FIELDS
from .tasks import CHUNK, make_kernel
from .tile import correlate_address, join_address, split_address
from .weights import make_pack_kernel, transform_address

__all__ = ["plan", "workspace"]


def _offsets(s: Sizes, channels: int, lanes: int, size: int) -> dict[str, int]:
    """Return where the parts of a worker's memory begin."""
    out_lines = s.rh * s.m2
    row = (s.in_cols + 2 * lanes) * s.m1
    if s.fold:
        read = ((CHUNK + 1) * s.m2 * s.m1 + lanes) * lanes
        row = max(read, (out_lines * s.m1 + lanes) * lanes)
    memory = Workspace()
    memory.add("input", s.input_bytes(channels, size))
    memory.add("lines", s.n1 * ((CHUNK + 1) * s.m2 - 1) * s.in_cols * size)
    memory.add("products", s.n1 * s.n2 * s.rh * s.cols * size)
    memory.add("sums", s.n1 * out_lines * s.cols * size)
    memory.add("row", row * size)
    memory.add("scratch", (lanes + 1) * lanes * size)
    memory.add("signal", (s.span + lanes) * size if s.fold else 0)
    return memory.fields


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    size = problem.compute_itemsize
    channels = problem.in_channels // problem.groups
    offsets = _offsets(choose(problem, device)[1], channels, device.lanes(size), size)
    return offsets["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def _addresses(s: Sizes, lanes: int, code: int) -> dict[str, int]:
    """Return the addresses of compiled parts."""
    addresses = {f"{name}_{axis}": lines_address(kind, m, m, 1, 0, lanes, code)
             for name, kind in (("input", INPUT), ("output", OUTPUT))
             for axis, m in ((1, s.m1), (2, s.m2))}  # fmt: skip
    addresses["split"] = split_address(s.m1, lanes, code)
    addresses["join"] = join_address(s.m1, lanes, code)
    addresses["tile"] = correlate_address(s.rh, s.nv, lanes, int(s.taps_w == 1), code)
    return addresses


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> ConvPlan:
    """Prepare the kernel for one problem and one binding."""
    codes = operand_codes(problem)
    code, size = codes.compute, problem.compute_itemsize
    lanes, channels = device.lanes(size), problem.in_channels // problem.groups
    s = choose(problem, device)[1]
    names = ("m1", "m2", "n1", "n2", "taps_h", "taps_w", "rows", "in_rows", "cols", "in_cols",
             "blocks_h", "blocks_w", "span")  # fmt: skip
    fields = epilogue_fields(binding, direct=False, clamped=False)
    fields |= {name: getattr(s, name) for name in names}
    fields |= {"tile_rows": s.rh, "tile_bytes": s.nv * lanes * size}
    fields["in_place"] = int(codes.x == code and binding.x_strides[-1] == size)
    fields |= _addresses(s, lanes, code) | _offsets(s, channels, lanes, size)
    wide = device.lanes(ITEMSIZE[F64])  # the weights' transform is in float64
    fields["transform"] = transform_address(s.m1, s.m2, wide, code)
    fields["pack_plane"] = whole_lines((channels * s.taps_h * s.taps_w + wide) * size)
    fields["pack_worker_bytes"] = s.m1 * s.m2 * fields["pack_plane"]
    workers = worth_helpers(problem.macs, device.threads)
    fold = int(s.fold)
    kernel = compile_kernel(make_kernel(lanes, codes, fold), "fast_fir", lanes, *codes, fold)
    key = (codes.weight, code, fold)
    pack = compile_kernel(make_pack_kernel(*key), "fast_fir_pack", *key)
    packed_size = problem.out_channels * s.n1 * s.n2 * channels * s.taps_h * s.taps_w
    whole = CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in FIELDS}),
        stages=(Stage(kernel, problem.batch * problem.groups * s.blocks_h * s.blocks_w),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, problem.out_channels),
        pack_bytes=fields["pack_worker_bytes"] * workers,
        packed_size=packed_size,
        packing=("fast_fir", s.fold, s.m1, s.m2, s.taps_h, s.taps_w, code),
    )
    return with_passes(whole, problem, binding, device)
