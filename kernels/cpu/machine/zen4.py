"""The profile of the machine that every kernel was measured on, with what was measured.

It has two cores of an AMD EPYC of that kind, and shares the rest of it with others. The kernel of a
group was timed, piece by piece or over whole layers of the suites in ``bench/problems``, whose
names the comments use. Where a comment names no measurement, none was written down.
"""

from __future__ import annotations

from fastconv.contract.spec import DeviceInfo

from .mechanisms import (
    Brgemm,
    FastFir,
    Fft,
    Gemm,
    Sparse,
    SparseGemm,
    SparseWeightGrad,
    Window,
    Winograd,
    Winograd1d,
)
from .profile import Calls, Core, Memory, Packing, Profile

__all__ = ["ZEN4"]

_DEVICE = DeviceInfo(
    kind="cpu",
    name="Zen 4",
    model="AuthenticAMD 25.17.1",
    isa="avx512",
    vector_bytes=64,
    registers=32,
    fma=True,
    l1=32 << 10,
    l2=1 << 20,
    l3=32 << 20,
    threads=2,
    bf16_dot=True,
)

_CORE = Core(
    # Round; the share of this peak that products of a sparse weight's gradient reach was fitted
    # with it.
    nominal=3.0e9,
    # 112 GFLOP/s of the packed register tile on one thread, 32 a cycle. The cycles of gemm, window
    # and sparse were fitted with it.
    sustained=3.5e9,
    # Brgemm, Winograd and fast FIR were fitted with this one. A clock that is read too high comes
    # back as cycles too many, so the three become one only together with the cycles.
    peak=3.6e9,
    # Two vector pipes, which join for a 512-bit vector.
    multiply_adds=1.0,
    loads=1.0,
    far_loads=1.05,
    latency=4,
)

_MEMORY = Memory(
    operands=20e9,
    # Tiles of a dozen channels write in as many places in turn: a tenth slower than one stretch.
    scattered_writes=18e9,
    far_rows=14e9,
    repacked=20e9,
    # Depthwise over the sites of a laser scan, 64 channels: 6.0 ms on one thread and 3.3 on two for
    # 88 MB.
    row_core=14e9,
    rows=25e9,
    # Both cores; the output is also read before it is written, and counted for that.
    window_l3=110e9,
    window_memory=45e9,
    weights_l3=130e9,
    weights_memory=45e9,
    # Two threads of a busy machine: 25 GB/s for 17, 38 and 67 MB, 20 for 226; at its worst 13.5.
    weights_written=25e9,
)

_CALLS = Calls(start=2e-6, task=1500)

_PACKING = Packing(
    copy_start=3e-6,
    # On one thread of a busy machine. 512>512, 9 taps: 5.6 ns a filter for 16 elements, 8.2 for 36,
    # 12.5 for 64, and 18 for 64 of 27 taps. What stays in L2 takes half of that or two thirds.
    # Fast FIR's 768 filters of 48 x 128 taps take 3.1 ms, counted 2.8.
    tap=0.34e-9,
    element=0.145e-9,
    transform_start=1e-6,
)

_GEMM = Gemm(
    # The stores wait for L3.
    tile=110,
    # What was fetched ahead of it is another thread's.
    row=60,
    weights=8,
    copied=6.0,
    copied_pairs=9.0,
    waited=36,
    gathered=4.0,
    gathered_element=2.0,
    # Where a chunk begins is worked out once for all channels.
    placed=30,
    moved=10.0,
    scattered=2.5,
    # A load and a store for each vector, beside log2(lanes) shuffles.
    transposed_vector=5,
    # 1x1 layers took 1.0 to 1.24 times as long as counted.
    transposed=1.08,
)

_BRGEMM = Brgemm(
    tile=60,
    stored=3.0,
    transposed_lane=6,
    transposed_row=1,
    copied=8,
    weights=24,
    # The wider the tile, the more of them a step asks of L2.
    weights_cycle=1024,
    # Of Zen 3, which reads as much from both: 4 x 3 vectors of AVX2 take 160 bytes a step in 7.9
    # cycles (1024>256@14) and 176 in 9.7 (512>2048@7); where pixels and a panel outgrow L2, in 11.5
    # (2048>512@7). Tiles of AVX-512 take 9 a cycle.
    l2=19,
    l3=14,
    # Pixels of a tile, where channels lie a multiple of 256 bytes apart and nothing but channels is
    # summed in a row.
    conflict=1.08,
    wait=2e-6,
)

_WINOGRAD = Winograd(
    # Reading and transforming, timed by itself: 16 an element of a vector of tiles, 11 of one of
    # channels, and 10 a vector of samples that are copied first.
    tiles_element=16.0,
    channels_element=11.0,
    # Samples a multiple of 16 vectors apart: 3.9 ms for 2.5 (wavenet d64).
    conflict_element=31.0,
    sample=10,
    # A call of the register tile loses 252 cycles with its 24 vectors, 76 with one row's two. These
    # and the way back are fitted to the least of eight medians of 32 layers, 7 to 128 pixels wide,
    # of 16 to 512 channels, with F(2, 3) to F(6, 3): a layer's tiles are off by a twentieth.
    tile=60,
    tile_vector=8,
    output_element=6,
    output_pixel=10,
    # F(4, 3) of stride 2 in three dimensions, of 729 elements, took 9.4 ms for 4.2.
    large=2.0,
    # 96@35 took 1.1 to 1.35 times what its phases count.
    strided=1.1,
    # Of the time that operands take from L3 or memory some half is hidden by arithmetic.
    exposed=0.6,
    start=8e-6,
)

_WINOGRAD_1D = Winograd1d(
    output=5.0,
    finished=10.0,
    transposed=3.0,
    # Lines of other channels push parts of lines out of L1 before they are whole.
    transposed_parts=13.0,
    l2=22,
    l3=16,
    row=60,
    copied=4,
    gathered=24,
    element=8,
)

_WINDOW = Window(
    row_step=6,
    row_tap=1,
    # Three loads serve four vectors.
    pattern=1.2,
    pixel_step=10,
    pixel_tap=3,
    transposed=220,
    # Elements one by one, or converted a vector at a time.
    gathered=3,
    scattered=4,
    halves=4,
    # 3x3 and 7x7 layers of mobile networks took 5 to 8 cycles more than in float32.
    rounded=6,
    few_planes=16,
    # First layers of 24 to 64 outputs took 1.15 to 1.8 times the cycles counted: their blocks read
    # the rows again and again, and write to many places in turn.
    few_outputs=16,
    reread=1.3,
    # On an 8x8 image 3 microseconds in all, and up to 5 more where the arithmetic is as long.
    start=3e-6,
    late_start=5e-6,
)

_FAST_FIR = FastFir(
    line=(3, 12, 24, 38),
    line_with_split=(4, 22, 60, 56),
    gathered_element=3,
    reread=1.1,
    folded=14,
    stored=16,
    channel=2000,
    tile=30,
    tap_row=3,
    products=1.05,
    vector=0.3,
    # Products wait for the transformed input.
    outgrown=2,
    start=3e-6,
)

_FFT = Fft(
    # pocketfft of SciPy 1.17 on blocks of 256^2 to 576^2 and on 8192 points, out of L2.
    single=16e9,
    double=8e9,
    thread=0.6,
    # On the calling thread.
    point=0.35e-9,
    round=60e-6,
)

_SPARSE = Sparse(
    pair=4,
    pair_vector=2.5,
    start=4e-6,
    gemm=SparseGemm(tile=20.0, sum=0.5, pair_list=60.0, finished=6.0),
    weight_grad=SparseWeightGrad(
        pair=10,
        vector=4,
        # Every offset asks for both rows of its pairs again, from L2 or L3.
        depthwise_vector=10,
        row=3,
        element=2,
        share=0.85,
    ),
)

ZEN4 = Profile(
    device=_DEVICE,
    core=_CORE,
    memory=_MEMORY,
    calls=_CALLS,
    packing=_PACKING,
    gemm=_GEMM,
    brgemm=_BRGEMM,
    winograd=_WINOGRAD,
    winograd_1d=_WINOGRAD_1D,
    window=_WINDOW,
    fast_fir=_FAST_FIR,
    fft=_FFT,
    sparse=_SPARSE,
)
