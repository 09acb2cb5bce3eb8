"""The same cases by fastconv, SciPy and PyTorch, each timed by itself.

PyTorch gets a process of its own: thread pools that share a process spin against each other and
spoil both timings.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .cases import Array, Case, Layer

__all__ = [
    "SCIPY_SECONDS",
    "Measured",
    "PeerMeasured",
    "in_own_process",
    "run_fastconv",
    "run_reference",
    "run_scipy",
    "run_torch",
]

#: Seconds that SciPy may take for one case before it is given up.
SCIPY_SECONDS = 3.0
_REPEAT_SECONDS = 0.5
_REPEATS = 9

Made = TypeVar("Made")
Convolve = Callable[[Array, Layer, "Array | None"], Array]


@dataclass(frozen=True, slots=True)
class Measured:
    """A case as fastconv ran it.

    Parameters
    ----------
    case : Case
        What was computed.
    y : ndarray of float32, shape (K, H', W')
        Output of the last layer.
    milliseconds : float
        Median of several calls, all layers together.
    kernels : tuple of str
        The chosen kernel of each layer.
    """

    case: Case
    y: Array
    milliseconds: float
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerMeasured:
    """A case as another library ran it; without a result, `reason` says why."""

    y: Array | None = None
    milliseconds: float | None = None
    reason: str = ""


def run_fastconv(case: Case) -> Measured:
    """Run and time one case with `fastconv.conv2d`."""
    from .. import conv2d, explain

    kernels = []

    def convolve(x: Array, layer: Layer, residual: Array | None) -> Array:
        y: Array = conv2d(
            x,
            layer.weight,
            residual=residual,
            activation="relu" if layer.relu else None,
            **_arguments(layer),
        )
        return y

    def convolve_and_explain(x: Array, layer: Layer, residual: Array | None) -> Array:
        kernels.append(explain(conv2d, x, layer.weight, **_arguments(layer)).chosen)
        return convolve(x, layer, residual)

    _forward(case, convolve_and_explain)  # compiles, too
    y, milliseconds = _timed(case, convolve)
    return Measured(case, y, milliseconds, tuple(kernels))


def _arguments(layer: Layer) -> dict[str, Any]:
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }


def _forward(case: Case, convolve: Convolve) -> Array:
    y = case.x
    for layer in case.layers:
        y = convolve(y, layer, case.x if layer.residual else None)
    return y


def _timed(case: Case, convolve: Convolve) -> tuple[Array, float]:
    """Return the output and the median milliseconds of up to nine calls after a warm-up.

    Where the first call takes too long to be a mere warm-up, it is the result.
    """
    times: list[float] = []
    while not times or (sum(times) < _REPEAT_SECONDS and len(times) <= _REPEATS):
        start = time.perf_counter()
        y = _forward(case, convolve)
        times.append(time.perf_counter() - start)
    return y, statistics.median(times[1:] or times) * 1e3


def run_reference(case: Case) -> npt.NDArray[np.float64]:
    """Return the true output, from the float64 reference."""
    from ..kernels import reference

    def convolve(x: Array, layer: Layer, residual: Array | None) -> Array:
        y: Array = reference.conv(
            x[None],
            layer.weight,
            stride=(layer.stride,) * 2,
            padding=((layer.padding,) * 2,) * 2,
            dilation=(layer.dilation,) * 2,
            groups=layer.groups,
            residual=None if residual is None else residual[None],
            activation="relu" if layer.relu else None,
        )[0]
        return y

    return _forward(case, convolve).astype(np.float64)


class _TooSlowError(Exception):
    """SciPy has used up its time."""


def run_scipy(cases: list[Case]) -> list[PeerMeasured]:
    """Run and time the cases with SciPy, which works on one plane and one thread at a time."""
    if find_spec("scipy") is None:
        return [PeerMeasured(reason="not installed")] * len(cases)
    import scipy.ndimage
    import scipy.signal  # noqa: F401  both now, so that no call's time holds an import

    return [_run_scipy_case(case) for case in cases]


def _run_scipy_case(case: Case) -> PeerMeasured:
    deadline = time.perf_counter() + SCIPY_SECONDS

    def convolve(x: Array, layer: Layer, residual: Array | None) -> Array:
        return _scipy_layer(x, layer, residual, deadline)

    try:
        return PeerMeasured(*_timed(case, convolve))
    except _TooSlowError:
        return PeerMeasured(reason=f"needs more than {SCIPY_SECONDS:g} s")


def _scipy_layer(x: Array, layer: Layer, residual: Array | None, deadline: float) -> Array:
    """Correlate plane by plane, add the planes up, then take every `stride`-th pixel."""
    weight, step = layer.weight, layer.stride
    if weight.shape[2:] == (1, 1) and layer.groups == 1:
        y = np.tensordot(weight[:, :, 0, 0], x, 1)[:, ::step, ::step]
    else:
        outputs = []
        multiplier = len(weight) // layer.groups
        for channel, planes in enumerate(_spread(weight, layer.dilation)):
            if time.perf_counter() > deadline:
                raise _TooSlowError
            inputs = x[channel // multiplier * len(planes) :][: len(planes)]
            total = functools.reduce(np.add, map(_scipy_plane, inputs, planes))
            outputs.append(total[::step, ::step])
        y = np.stack(outputs)
    if residual is not None:
        y += residual
    return np.maximum(y, 0) if layer.relu else y


def _spread(weight: Array, dilation: int) -> Array:
    """Return the weight with ``dilation - 1`` zeros between its taps (SciPy has no dilation)."""
    size = dilation * (weight.shape[-1] - 1) + 1
    spread = np.zeros((*weight.shape[:2], size, size), weight.dtype)
    spread[..., ::dilation, ::dilation] = weight
    return spread


def _scipy_plane(x: Array, plane: Array) -> Array:
    """Correlate one plane in the way that SciPy is fastest at: FFT from about 6x6 taps."""
    from scipy import ndimage, signal

    if np.count_nonzero(plane) <= 36:
        y: Array = ndimage.correlate(x, plane, mode="constant")
    else:
        y = signal.correlate(x, plane, mode="same", method="fft")
    return y


def run_torch(cases: list[Case]) -> list[PeerMeasured]:
    """Run and time the cases with PyTorch, on as many threads as fastconv, in a new process."""
    if find_spec("torch") is None:
        return [PeerMeasured(reason="not installed")] * len(cases)
    from .. import get_num_threads

    made = in_own_process(_run_torch_here, cases, get_num_threads())
    return [PeerMeasured(reason=made)] * len(cases) if isinstance(made, str) else made


def in_own_process(work: Callable[..., Made], *given: Any) -> Made | str:
    """Return what a function returns in a new process, or the reason why it returned nothing."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(work, *given).result()
        except (ImportError, OSError, RuntimeError, BrokenExecutor) as error:  # a broken install
            return f"failed ({error})"


def _run_torch_here(cases: list[Case], threads: int) -> list[PeerMeasured]:
    import torch

    torch.set_num_threads(threads)

    def convolve(x: Array, layer: Layer, residual: Array | None) -> Array:
        y = torch.nn.functional.conv2d(
            torch.from_numpy(x),
            torch.from_numpy(layer.weight),
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        if residual is not None:
            y += torch.from_numpy(residual)
        y = y.relu_() if layer.relu else y
        result: Array = y.numpy()
        return result

    with torch.inference_mode():
        return [PeerMeasured(*_timed(case, convolve)) for case in cases]
