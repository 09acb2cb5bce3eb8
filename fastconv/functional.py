"""Convolutions of arrays, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from .array_libraries import view_array, view_operands
from .arrays import Array, require_array
from .boundary_modes import conv_family, conv_problem
from .calls import (
    Family,
    prepare,
    run_prepared,
)
from .contract import first_use
from .contract.arguments import Activation, Padding, PaddingMode, Sizes, bind_call
from .contract.errors import ArgumentError
from .contract.problem import ConvProblem
from .dense_problem import unbatch
from .recall import recall
from .slopes import join_slopes

if TYPE_CHECKING:
    from .contract.boundary_problem import BoundaryProblem
    from .contract.transposed_problem import TransposedProblem

__all__ = ["conv1d", "conv2d", "conv3d", "convolve"]


def problem_of_call(
    function: Callable[..., Any], *args: Any, **kwargs: Any
) -> ConvProblem | TransposedProblem | BoundaryProblem:
    """Return the problem that a call of a convolution, transposed or not, would compute."""
    transposed, transposed_calls = (
        first_use.load(f"fastconv.ops.{name}") for name in ("transposed", "transposed_calls")
    )
    convolutions = (conv1d, conv2d, conv3d)
    known = (*convolutions, *(getattr(transposed, name) for name in transposed.__all__))
    number = next((i for i, each in enumerate(known) if each is function), None)
    if number is None:
        shown = reprlib.repr(function)
        raise ArgumentError(
            f"what: got {shown}, want a problem or its line, conv1d, conv2d, conv3d or one of "
            "conv_transpose1d to conv_transpose3d with its arguments, a Conv1d, Conv2d, Conv3d or "
            "one of ConvTranspose1d to ConvTranspose3d with its input, or one of fastconv.sparse's"
        )
    bound = bind_call(function, args, kwargs)
    bound.apply_defaults()
    given, ndim = bound.arguments, number % 3 + 1
    x, weight = (view_array(name, given[name]) or given[name] for name in ("input", "weight"))
    x = require_array("input", x, integers=True)
    x = x[None] if x.ndim == ndim + 1 else x
    if number < 3:
        told = () if given["out_dtype"] is None else (given["out_dtype"],)
        arguments = (given["stride"], given["padding"], given["dilation"], given["groups"], *told)
        return conv_problem(ndim, x, weight, arguments, given["padding_mode"], given["out"])
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    chosen = tuple(given[name] for name in names)
    problem: TransposedProblem = transposed_calls.make_transposed_problem(ndim, x, weight, chosen)
    return problem


def convolve(
    family: Family, ndim: int, x: Array, weight: Array, bias: Array | None,
    arguments: tuple[Any, ...], activation: Activation, residual: Array | None, out: Array | None,
    tune: bool,
) -> Array:  # fmt: skip
    """Compute a call of an operator of a family, on whichever device its arrays live."""
    bias, activation = join_slopes(bias, activation, x)
    views = None if type(x) is np.ndarray else view_operands(x, weight, bias, residual, out)
    if views is None:
        return _compute(family, ndim, x, weight, bias, arguments, activation, residual, out, tune)
    x, weight, bias, residual, target = views
    with x.on_device():
        result = _compute(
            family, ndim, x, weight, bias, arguments, activation, residual, target, tune
        )
    return result.owner if out is None else out


def _compute(
    family: Family, ndim: int, x: Array, weight: Array, bias: Array | None,
    arguments: tuple[Any, ...], activation: Activation, residual: Array | None, out: Array | None,
    tune: bool,
) -> Array:  # fmt: skip
    if getattr(x, "ndim", 0) == ndim + 1:
        x, residual_n, out_n = unbatch(ndim, x, residual, out)
        result = _compute(
            family, ndim, x, weight, bias, arguments, activation, residual_n, out_n, tune
        )
        return result[0] if out is None else out
    call = prepare(family, ndim, x, weight, bias, arguments, activation, residual, out, False, tune)
    packed = recall.find(call.packing, weight, call.pack) if call.remembers else call.pack(weight)
    return run_prepared(call, x, weight, packed, bias, residual, out)


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    out_dtype: DTypeLike | None = None,
    tune: bool = False,
) -> Array:
    """Convolve signals: `conv2d` with one spatial axis.

    Parameters
    ----------
    input : ndarray, shape (N, C, L) or (C, L)
        Signals.
    weight : ndarray, shape (K, C / groups, k)
        Filters.
    bias, stride, padding, dilation, groups, padding_mode, activation, residual, out, out_dtype,
    tune
        As for `conv2d`.

    Returns
    -------
    ndarray, shape (N, K, L_out) or (K, L_out)

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 5)
    >>> fastconv.conv1d(x, np.ones((1, 1, 3), np.float32), padding="same")
    array([[1., 3., 6., 9., 7.]], dtype=float32)

    Samples of 16 bits, which stay such:

    >>> sound = np.array([[100, 200, 300, 32767]], np.int16)
    >>> mean = np.full((1, 1, 2), 0.75, np.float32)
    >>> fastconv.conv1d(sound, mean, padding="same", out_dtype="int16")
    array([[  225,   375, 24800, 24575]], dtype=int16)
    """
    told = () if out_dtype is None else (out_dtype,)
    family, arguments = conv_family(padding_mode), (stride, padding, dilation, groups, *told)
    return convolve(family, 1, input, weight, bias, arguments, activation, residual, out, tune)


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    out_dtype: DTypeLike | None = None,
    tune: bool = False,
) -> Array:
    """Convolve images: ``out = activation(conv(input, weight) + bias + residual)``.

    As in PyTorch this is a cross-correlation: the kernel is not flipped. The output has the
    input's dtype, but for integers, and memory order (a channels-last input gives a channels-last
    output).

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        Images, of NumPy, PyTorch or CuPy, of any strides; the others are of the same kind
        and on the same device, and so is the result. float32, float64, float16 or bfloat16, and on
        the CPU uint8, uint16 and int16; halves and integers are summed in float32.
    weight : ndarray, shape (K, C / groups, kh, kw)
        Filters, of the input's dtype; for integers of float32.
    bias : ndarray, shape (K,), optional
        Added to each output channel; of the weight's dtype.
    stride : int or tuple of int
        Step between output positions, in pixels.
    padding : int, tuple, 'same' or 'valid'
        Zeros around the input: one number, one an axis, or ``((low, high), ...)``. 'same' keeps
        the size and wants a stride of 1.
    dilation : int or tuple of int
        Step between the taps of the kernel, in pixels.
    groups : int
        Independent groups of channels; ``groups=C`` is depthwise.
    padding_mode : str or ("constant", float)
        What the padding holds instead of zeros: "reflect" mirrors the input at its first and last
        pixel, "symmetric" beside them, so that they are repeated, "replicate" repeats them alone,
        "circular" goes on at the other side; or a number, which an input of integers must be able
        to hold. Pads are at most as wide as the input for "symmetric" and "circular", one less for
        "reflect". On the CPU.
    activation : str, (str, float) or ("prelu", ndarray), optional
        relu, leaky_relu, elu, silu, sigmoid, tanh, relu6, hardswish or gelu; the number is
        the parameter of leaky_relu (0.01) and elu (1). Of prelu, for arrays of NumPy, it is an
        array of K slopes: an output channel's negative sums are multiplied by its own.
    residual : ndarray, shape of the output, optional
        Added before the activation; of the output's dtype.
    out : ndarray, shape of the output, optional
        Where to write; of the output's dtype and any strides.
    out_dtype : dtype, optional
        What becomes of integers, and of float32: float32, or "uint8", "uint16" or "int16": then
        the sum, with bias, residual and activation, is rounded to the nearest integer, halves to
        even, and saturated, and NaN is 0. An `out` of integers says it, too, where the input is
        integers.
    tune : bool
        Measure which kernel is fastest the first time that a problem comes, on these arrays, and
        remember it on disk; this takes some tens of milliseconds (and what compiling the kernels
        takes). Otherwise the predicted cost decides, unless a measurement is remembered. Kernels
        differ in the last bits of their results.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        `out` where it was given.

    Raises
    ------
    ShapeError
        For sizes, strides, pads or groups that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on different devices or of different libraries, and where what a GPU needs is
        missing.

    Notes
    -----
    - A NaN or an infinity of the input or weight reaches the outputs whose sums it is in. A kernel
      that transforms the arithmetic (Winograd) may spread it over its own tile of outputs; under
      ``precision("exact")`` no such kernel runs. Padding counts as zeros that may or may not be
      multiplied: an infinite weight makes a NaN of a padded position, or is left out there.
    - On the CPU denormal numbers (of float32 below 1.2e-38, of float64 below 2.2e-308) count as
      zero, so that they do not slow a call: as inputs and weights, as products and as sums. A
      result may therefore be off by that much for each product in it, however small it is itself;
      denormals of float16 are ordinary numbers of float32 and stay. Under ``precision("exact")``
      none counts as zero but those of bfloat16, whose instructions know none. The caller's
      floating-point state is left as it was.
    - Sums of float16, bfloat16 and float32 are formed in float32, in blocks, so that their error
      hardly grows with their length: of the size of the largest output about 1e-6, and where all
      products are equal, the worst case, at most 1.5e-5 under ``precision("exact")``.
    - A float16 or bfloat16 result that its type cannot hold is infinite.
    - Integers are converted as they are read and stored; no converted copy of an image is made.
      Under ``precision("exact")`` sums of whole weights are exact up to 2**24; else a sum has the
      error above before it is rounded, so that of bytes a few may be one off.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 3, 8, 8), np.float32)
    >>> w = np.ones((16, 3, 3, 3), np.float32)
    >>> y = fastconv.conv2d(x, w, stride=2, padding=1, activation="relu")
    >>> y.shape, float(y[0, 0, 1, 1])
    ((1, 16, 4, 4), 27.0)

    A photograph, height x width x colours, smoothed colour by colour:

    >>> photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    >>> box = np.full((3, 1, 5, 5), 1 / 25, np.float32)
    >>> smooth = fastconv.conv2d(
    ...     np.moveaxis(photo, -1, 0), box, padding="same", groups=3, padding_mode="reflect",
    ...     out_dtype=photo.dtype,
    ... )
    >>> np.moveaxis(smooth, 0, -1).shape, smooth.dtype
    ((48, 64, 3), dtype('uint8'))
    """
    told = () if out_dtype is None else (out_dtype,)
    family, arguments = conv_family(padding_mode), (stride, padding, dilation, groups, *told)
    return convolve(family, 2, input, weight, bias, arguments, activation, residual, out, tune)


def conv3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    out_dtype: DTypeLike | None = None,
    tune: bool = False,
) -> Array:
    """Convolve volumes or clips: `conv2d` with three spatial axes.

    Parameters
    ----------
    input : ndarray, shape (N, C, D, H, W) or (C, D, H, W)
        Volumes.
    weight : ndarray, shape (K, C / groups, kd, kh, kw)
        Filters.
    bias, stride, padding, dilation, groups, padding_mode, activation, residual, out, out_dtype,
    tune
        As for `conv2d`.

    Returns
    -------
    ndarray, shape (N, K, D_out, H_out, W_out) or (K, D_out, H_out, W_out)

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 4, 4, 4), np.float32)
    >>> fastconv.conv3d(x, np.ones((2, 1, 3, 3, 3), np.float32), padding=1).shape
    (2, 4, 4, 4)
    """
    told = () if out_dtype is None else (out_dtype,)
    family, arguments = conv_family(padding_mode), (stride, padding, dilation, groups, *told)
    return convolve(family, 3, input, weight, bias, arguments, activation, residual, out, tune)
