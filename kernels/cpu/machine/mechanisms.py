"""What a profile holds of each mechanism: the fields that its cost model reads, and their units.

The unit is cycles of one core where a field names no other; a vector is a full one.
"""

from __future__ import annotations

from .fields import Fields

__all__ = [
    "Brgemm",
    "FastFir",
    "Fft",
    "Gemm",
    "Sparse",
    "SparseGemm",
    "SparseWeightGrad",
    "Window",
    "Winograd",
    "Winograd1d",
]


class Gemm(Fields):
    """Matrix products over packed panels.

    Parameters
    ----------
    tile : float
        Of a tile beside its products: the call, the start and the stores.
    row : float
        Of a row of C that ends within the map.
    weights : float
        Bytes a cycle at which one thread reads weights from beyond L2.
    copied, copied_pairs : float
        To pack a vector of neighbouring pixels, and of every other one.
    waited : float
        That a vector of every other pixel waits for a large input; shared by the taps that meet it.
    gathered, gathered_element : float
        To pack a vector of pixels that lie farther apart, and further for each of its elements.
    placed : float
        To place a chunk for one tap.
    moved : float
        To bring a vector of finished sums to its place among neighbouring pixels.
    scattered : float
        To bring one finished sum to its place elsewhere.
    transposed_vector : float
        Of each vector of a block that is transposed, beside its shuffles.
    transposed : float
        Of products whose sums are transposed, times those counted.
    """

    tile: float
    row: float
    weights: float
    copied: float
    copied_pairs: float
    waited: float
    gathered: float
    gathered_element: float
    placed: float
    moved: float
    scattered: float
    transposed_vector: float
    transposed: float


class Brgemm(Fields):
    """Register tiles that read the input where it lies.

    Parameters
    ----------
    tile : float
        Around a tile's loop: the call, the sums' start, the jump out of the loop.
    stored : float
        To finish and store a vector of sums.
    transposed_lane, transposed_row : float
        To transpose a tile's sums through L1: by lane and by row, for each vector across it.
    copied : float
        Of a vector of the copied band.
    weights : float
        Bytes a cycle and core of weights from beyond L2, next to arithmetic that hides most of
        them.
    weights_cycle : float
        Bytes of a tile's weights for which it takes a cycle more.
    l2, l3 : float
        Bytes a cycle of a tile's operands that come from there: whole lines of L1.
    conflict : float
        Of steps whose channels share few sets of L1, times those of others.
    wait : float
        Seconds before the first operands of a call come from memory.
    """

    tile: float
    stored: float
    transposed_lane: float
    transposed_row: float
    copied: float
    weights: float
    weights_cycle: float
    l2: float
    l3: float
    conflict: float
    wait: float


class Winograd(Fields):
    """F(m, r) along every axis.

    Parameters
    ----------
    tiles_element : float
        To read and transform an element, for a vector of tiles.
    channels_element, conflict_element : float
        The same for a vector of channels, and where its samples share few sets of L1.
    sample : float
        To copy a vector of samples into that order.
    tile, tile_vector : float
        That a call of the register tile loses beside its loop: as such, and for each vector.
    output_element, output_pixel : float
        Of the way back, for a vector of channels: an element of a tile, and an output.
    large : float
        Of a problem whose tiles are large, times that of others.
    strided : float
        Of a problem with a stride, times what is counted for its phases.
    exposed : float
        Part of the time that outputs take on their way to memory, beside the arithmetic.
    start : float
        Seconds of a call beside its arithmetic.
    """

    tiles_element: float
    channels_element: float
    conflict_element: float
    sample: float
    tile: float
    tile_vector: float
    output_element: float
    output_pixel: float
    large: float
    strided: float
    exposed: float
    start: float


class Winograd1d(Fields):
    """F(4, r) along the width.

    Parameters
    ----------
    output : float
        Of an output vector beside its products: the way back and the store.
    finished : float
        Of its way through L1, where it is rounded.
    transposed, transposed_parts : float
        Of its transposition, into whole lines of memory or into parts of lines.
    l2, l3 : float
        Bytes a cycle from L2, of what does not stay in half of L1; and from L3, to each core.
    row : float
        To begin a row of a panel.
    copied, gathered : float
        Of a vector of the padded row, contiguous or not.
    element : float
        Of one element of a block of tiles, for all its lanes.
    """

    output: float
    finished: float
    transposed: float
    transposed_parts: float
    l2: float
    l3: float
    row: float
    copied: float
    gathered: float
    element: float


class Window(Fields):
    """Windows that slide over rows: depthwise and direct.

    Parameters
    ----------
    row_step, row_tap : float
        Of a step of a strip of rows, and of a tap of a tile of rows, beside their arithmetic.
    pattern : float
        Of interleaved channels, whose weights are vectors, times those of one channel.
    pixel_step, pixel_tap : float
        Of a step of a strip of pixels, and of a tap of a tile of pixels, beside their arithmetic.
    transposed : float
        To transpose a square of vectors into or out of a block.
    gathered, scattered : float
        Of an input that is gathered into a copy, and of an output that is scattered from one.
    halves : float
        Elements of two bytes that are converted in the time of one of more.
    rounded : float
        Of halves read in place: to widen and to round them, for a vector of outputs.
    few_planes : int
        Input channels of a group that share the sets of L1 without loss.
    few_outputs : int
        Output channels of a group whose blocks do not outgrow what was read for the first of them.
    reread : float
        Of a problem with more output channels, times that of one with fewer.
    start, late_start : float
        Seconds of a call beside its arithmetic: always, and at most further where the arithmetic
        takes as long.
    """

    row_step: float
    row_tap: float
    pattern: float
    pixel_step: float
    pixel_tap: float
    transposed: float
    gathered: float
    scattered: float
    halves: float
    rounded: float
    few_planes: int
    few_outputs: int
    reread: float
    start: float
    late_start: float


class FastFir(Fields):
    """Phases of large kernels.

    Parameters
    ----------
    line : tuple of float
        To transform a vector's line of an axis with 1, 2, 3 and 4 phases: out of memory and back.
    line_with_split : tuple of float
        The same with the split into phases or their join.
    gathered_element : float
        Of an element of a line that is gathered.
    reread : float
        Lines read, times those that there are: again where two chunks meet.
    folded : float
        To transpose a vector of a folded signal.
    stored : float
        To finish and store a vector.
    channel : float
        To begin a block of one channel.
    tile : float
        To call a tile.
    tap_row : float
        Of a row of sums that a plane brings in or takes out.
    products : float
        Of a tile's steps, times those counted.
    vector : float
        Vectors by which a tile's width counts as more than it is.
    outgrown : float
        Of a block whose transformed input outgrows its part of L2, times that of one that fits.
    start : float
        Seconds of a call beside its arithmetic.
    """

    line: tuple[float, ...]
    line_with_split: tuple[float, ...]
    gathered_element: float
    reread: float
    folded: float
    stored: float
    channel: float
    tile: float
    tap_row: float
    products: float
    vector: float
    outgrown: float
    start: float


class Fft(Fields):
    """SciPy's transforms.

    Parameters
    ----------
    single, double : float
        FLOP/s of one core in float32 and in float64.
    thread : float
        What a further thread brings, as a part of the first.
    point : float
        Seconds a point of a float32 transform: reading, multiplying and finishing, on one thread.
    round : float
        Seconds of the calls from Python of one round.
    """

    single: float
    double: float
    thread: float
    point: float
    round: float


class SparseGemm(Fields):
    """Products of gathered rows.

    Parameters
    ----------
    tile : float
        Of a tile beside its products.
    sum : float
        Of a vector of its sums.
    pair_list : float
        Of the pairs of an offset in a panel, beside their tiles.
    finished : float
        Of a vector of output.
    """

    tile: float
    sum: float
    pair_list: float
    finished: float


class SparseWeightGrad(Fields):
    """Products of gathered rows for the gradient of a weight.

    Parameters
    ----------
    pair : float
        Of a pair, beside its channels.
    vector : float
        To copy a vector of one of its rows.
    depthwise_vector : float
        Of a vector of a depthwise pair, products among them.
    row : float
        To look for an output row's pair of one offset.
    element : float
        To bring an element of the gradient into the weight's order.
    share : float
        Of the nominal multiply-add peak, that products reach.
    """

    pair: float
    vector: float
    depthwise_vector: float
    row: float
    element: float
    share: float


class Sparse(Fields):
    """Kernels over active sites.

    Parameters
    ----------
    pair, pair_vector : float
        Of a pair of rows, and of each of its vectors with its row in L2.
    start : float
        Seconds of a call with products, beside its arithmetic.
    gemm : SparseGemm
        The forward product.
    weight_grad : SparseWeightGrad
        The gradient of its weight.
    """

    pair: float
    pair_vector: float
    start: float
    gemm: SparseGemm
    weight_grad: SparseWeightGrad
