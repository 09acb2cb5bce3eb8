"""Convolution by the fast Fourier transform: overlap-save, through SciPy's pocketfft.

Wins for the largest kernels of few channels, from about 40x40 taps: a point costs ``2.5 log2(n)``
operations in each direction, whatever the kernel. The output is cut into blocks, each of which
needs a block of the input that is longer by the kernel's reach; the products of the transforms make
a circular correlation, of which the first outputs are right::

    for round of blocks                       some blocks at once, within the last cache
      read: every channel, zeros outside                     machine code
      forward transforms of all input channels               scipy.fft, on all threads
      sum over input channels of X * conj(W)                 machine code
      inverse transforms of all output channels              scipy.fft, on all threads
      the first outputs of each block: bias, residual, activation, store

Block sizes are chosen by counted operations (costs.py) among lengths of factors 2, 3 and 5. The
kernel's transforms are the packed weight. float32 stays float32: over random filters of 13x13 to
63x63 taps the largest error was 3.3e-7 of the largest output. A NaN or an infinity spreads over its
block, and an output far smaller than its block's largest loses digits; ``precision("exact")``
leaves this kernel out.

SciPy has threads of its own, so the machine code between its calls runs on the calling thread: a
helper that spins for its next job would take a core from them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract import first_use
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, ConvPlan, DeviceInfo

from ..common.epilogue import epilogue_fields
from ..runtime import pool
from ..runtime.plan import as_bias, compile_kernel, compute_dtype
from ..runtime.record import make_record
from ..runtime.scratch import borrow_arrays, give_back
from ..simd.ir import operand_codes
from ..window.separable import with_passes
from .costs import Blocks, choose, dilated_extent
from .tasks import FIELDS, make_epilogue, make_multiply, make_read

__all__ = ["FftPlan", "plan", "workspace"]


@dataclass(frozen=True, slots=True, eq=False)
class FftPlan:
    """The kernel made ready for one problem and one binding.

    Parameters
    ----------
    problem : ConvProblem
        What is computed.
    blocks : Blocks
        How the output is cut.
    record : ndarray
        Geometry, see `runtime.record`.
    kernels : tuple of int
        Addresses of the tasks: reading, products and epilogue.
    compute : type
        NumPy type of the transforms' real side.
    threads : int
        Threads of a transform.
    forward, forward_complex, inverse : callable
        ``scipy.fft.rfftn``, ``fftn`` and ``irfftn``.
    """

    problem: ConvProblem
    blocks: Blocks
    record: NDArray[Any]
    kernels: tuple[int, int, int]
    compute: type[np.floating[Any]]
    threads: int
    forward: Callable[..., NDArray[Any]]
    forward_complex: Callable[..., NDArray[Any]]
    inverse: Callable[..., NDArray[Any]]

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order."""
        return ("fft", self.blocks.lengths, self.problem.dilation, self.compute)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.problem.ndim, 0))

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return the conjugate transforms of the dilated kernels, denormal numbers as zero."""
        taps = weight.astype(self.compute)
        taps[np.abs(taps) < np.finfo(self.compute).tiny] = 0
        dense = np.zeros((*weight.shape[:2], *dilated_extent(self.problem)), self.compute)
        spread = (slice(None, None, d) for d in self.problem.dilation)
        dense[(slice(None), slice(None), *spread)] = taps
        # Axis by axis, each padded when its turn comes: rows of zeros are not transformed.
        *others, last = zip(self.blocks.lengths, self._axes, strict=True)
        transformed = self.forward(dense, last[:1], last[1:], workers=self.threads)
        for length, axis in reversed(others):
            transformed = self.forward_complex(
                transformed, (length,), (axis,), workers=self.threads
            )
        return np.conj(transformed, out=transformed)

    def run(
        self,
        x: NDArray[Any],
        packed: NDArray[Any],
        bias: NDArray[Any] | None,
        residual: NDArray[Any] | None,
        out: NDArray[Any],
    ) -> None:
        """Compute into `out`."""
        bias = as_bias(bias, np.zeros(self.problem.out_channels, self.compute))
        lengths, total = self.blocks.lengths, self.blocks.per_image * self.problem.batch
        half = (*lengths[:-1], lengths[-1] // 2 + 1)
        complex_type = np.result_type(self.compute, np.complex64)
        for first in range(0, total, self.blocks.per_round):
            count = min(self.blocks.per_round, total - first)
            inputs, outputs = count * self.problem.in_channels, count * self.problem.out_channels
            memory, (sums, blocks) = borrow_arrays(
                ((outputs, *half), complex_type), ((inputs, *lengths), self.compute)
            )
            try:
                self._round(x, packed, bias, residual, out, first, sums, blocks)
            finally:
                give_back(memory)

    def _round(
        self, x: NDArray[Any], packed: NDArray[Any], bias: NDArray[Any],
        residual: NDArray[Any] | None, out: NDArray[Any], first: int, sums: NDArray[Any],
        blocks: NDArray[Any],
    ) -> None:  # fmt: skip
        """Compute some blocks: their samples go to `blocks`, sums of products to `sums`."""
        read, multiply, epilogue = self.kernels
        lengths = self.blocks.lengths
        inputs, outputs = blocks.shape[0], sums.shape[0]
        scratch = np.zeros(64, np.int64)  # first block, then room for a vector
        scratch[0] = first
        self._run_tasks(read, inputs, (x, packed, None, None, blocks, scratch))
        # Divided by their length here and not in the end, spectra of an image do not outgrow it.
        settings = {"axes": self._axes, "workers": self.threads, "norm": "forward"}
        spectra = self.forward(blocks, **settings)
        # Most of a spectrum is far below its largest, and counts: nothing is taken for zero.
        self._run_tasks(multiply, outputs, (spectra, packed, None, None, sums, scratch), flush=0)
        blocks = self.inverse(sums, s=lengths, overwrite_x=True, **settings)
        self._run_tasks(epilogue, outputs, (blocks, packed, bias, residual, out, scratch))

    def _run_tasks(self, kernel: int, tasks: int, operands: pool.Operands, flush: int = 1) -> None:
        """Run machine code in the calling thread, beside whose memory SciPy's threads work."""
        job = pool.make_job(kernel, self.record.ctypes.data, tasks, 1, flush)
        pool.run(job.ctypes.data, 1, operands)


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: blocks and their transforms on both sides."""
    size = problem.compute_itemsize
    blocks = choose(problem, device)[1]
    channels = problem.in_channels + problem.out_channels
    return 2 * blocks.per_round * channels * blocks.points * size


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> ConvPlan:
    """Prepare the kernel for one problem and one binding."""
    fft = first_use.load("scipy.fft")
    codes = operand_codes(problem)
    code, lanes = codes.compute, device.lanes(problem.compute_itemsize)
    blocks = choose(problem, device)[1]
    fields = epilogue_fields(binding, direct=False, clamped=False)
    for name, values in (("f", blocks.lengths), ("step", blocks.steps), ("blocks", blocks.counts)):
        padded = (1, 1, *values)[-3:]
        fields |= {f"{name}_{axis}": value for axis, value in zip("dhw", padded, strict=True)}
    read, end = (lanes, codes.x, code), (lanes, codes.out, code)
    whole = FftPlan(
        problem=problem,
        blocks=blocks,
        record=make_record(problem, binding, {name: fields[name] for name in FIELDS}),
        kernels=(
            compile_kernel(make_read(*read), "fft_read", *read),
            compile_kernel(make_multiply(lanes, code), "fft_multiply", lanes, code),
            compile_kernel(make_epilogue(*end), "fft_epilogue", *end),
        ),
        compute=compute_dtype(problem.dtype),
        threads=device.threads,
        forward=fft.rfftn,
        forward_complex=fft.fftn,
        inverse=fft.irfftn,
    )
    return with_passes(whole, problem, binding, device)
