"""How a kernel says what it can do, and how it is called.

A kernel is one `KernelSpec`: what it computes, why it may not run a problem, what it would cost,
and where its code is. The library names no kernel and knows none but by its spec in the registry;
of the library kernels import this package (`fastconv.contract`), and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .problem import ConvProblem

__all__ = [
    "ACTIVATIONS",
    "ActivationKind",
    "ArrayPlan",
    "Binding",
    "ConvPlan",
    "CudaInfo",
    "DeviceInfo",
    "KernelSpec",
    "SparseBinding",
    "SparsePlan",
    "Tolerance",
    "dense_binding",
    "dense_strides",
]


class ActivationKind(NamedTuple):
    """Whether an activation has a parameter (alpha), and what it is where none is given."""

    parameter: bool = False
    default: float = 0.0


#: Activations that a kernel's epilogue applies.
ACTIVATIONS: dict[str, ActivationKind] = {
    "relu": ActivationKind(),
    "leaky_relu": ActivationKind(parameter=True, default=0.01),
    "elu": ActivationKind(parameter=True, default=1.0),
    "silu": ActivationKind(),
    "sigmoid": ActivationKind(),
    "tanh": ActivationKind(),
    "relu6": ActivationKind(),
    "hardswish": ActivationKind(),
    "gelu": ActivationKind(),
}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a kernel may know of the CPU that it runs on.

    Parameters
    ----------
    kind : {"cpu"}
        Device type.
    name : str
        Marketing name, for people.
    model : str
        Vendor, family, model and stepping, which tell one kind of core from another.
    isa : str
        Widest usable instruction set, a key of the tile table ("avx512", "avx2", "sse2", "neon").
    vector_bytes : int
        Bytes in one vector register.
    registers : int
        Number of vector registers.
    fma : bool
        Whether a multiply-add is one instruction.
    l1, l2, l3 : int
        Data cache sizes in bytes: of one core, of one core, and of all cores together.
    threads : int
        Threads that a call may use.
    bf16_dot : bool
        Whether one instruction multiplies two pairs of bfloat16 a lane and adds both products to
        a float32 sum (AVX512-BF16).
    """

    kind: str
    name: str
    model: str
    isa: str
    vector_bytes: int
    registers: int
    fma: bool
    l1: int
    l2: int
    l3: int
    threads: int
    bf16_dot: bool = False

    def lanes(self, itemsize: int) -> int:
        """Return the number of elements of `itemsize` bytes in one vector."""
        return self.vector_bytes // itemsize


@dataclass(frozen=True, slots=True)
class CudaInfo:
    """What a kernel may know of the GPU that it runs on.

    Parameters
    ----------
    kind : {"cuda"}
        Device type.
    name : str
        Marketing name, for people.
    compute_capability : (int, int)
        Major and minor; (8, 0) is sm_80.
    multiprocessors : int
        Streaming multiprocessors (SMs).
    shared_block, shared_multiprocessor : int
        Bytes of shared memory that one block may ask for, and that the blocks of a multiprocessor
        have together.
    l2 : int
        Bytes of the L2 cache.
    clock : float
        Highest clock of the multiprocessors, in Hz.
    bandwidth : float
        Nominal bytes a second of the device's memory.
    cores : int
        Single-precision multiply-adds that a multiprocessor starts in a cycle.
    """

    kind: str
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    shared_block: int
    shared_multiprocessor: int
    l2: int
    clock: float
    bandwidth: float
    cores: int

    def flops(self, itemsize: int) -> float:
        """Return the nominal FLOP/s of sums of `itemsize` bytes: 4, or 8 for double precision."""
        data_centre = self.compute_capability in ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
        share = 1.0 if itemsize == 4 else (1 / 2 if data_centre else 1 / 64)
        return 2.0 * self.cores * self.multiprocessors * self.clock * share


class Tolerance(NamedTuple):
    """Largest accepted error against the float64 reference.

    Parameters
    ----------
    relative : float
        Bound on ``max|y - reference| / max|reference|``, the error relative to the largest
        output, as benchdnn states it for Winograd.
    """

    relative: float


@dataclass(frozen=True, slots=True)
class Binding:
    """How the arrays of one call lie in memory, and what its epilogue does.

    All strides are in bytes. Together with a problem and a device this decides a plan, so a
    second call with equal bindings computes at once.

    Parameters
    ----------
    x_strides, out_strides : tuple of int
        For ``(N, C, *spatial)``.
    weight_strides : tuple of int
        For ``(K, C / groups, *kernel)``.
    residual_strides : tuple of int or None
        As `out_strides`; None without a residual.
    activation : str or None
        A key of `ACTIVATIONS`, or "prelu", whose slopes lie behind the biases.
    alpha : float
        The activation's parameter.
    flush : bool
        Whether denormal numbers count as zero; not in exact precision.
    """

    x_strides: tuple[int, ...]
    weight_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    residual_strides: tuple[int, ...] | None = None
    activation: str | None = None
    alpha: float = 0.0
    flush: bool = True


def dense_strides(
    shape: tuple[int, ...], step: int, channels_last: bool = False
) -> tuple[int, ...]:
    """Return the strides of elements that lie `step` bytes apart, in row-major order.

    Parameters
    ----------
    shape : tuple of int
        Sizes of the axes.
    step : int
        Bytes from one element to the next.
    channels_last : bool
        Whether axis 1 is the innermost one.

    Examples
    --------
    >>> dense_strides((1, 2, 8, 8), 4), dense_strides((1, 2, 8, 8), 4, channels_last=True)
    ((512, 256, 32, 4), (512, 4, 64, 8))
    """
    axes = list(range(len(shape)))
    order = [0, *axes[2:], 1] if channels_last else axes
    strides = [0] * len(shape)
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def dense_binding(problem: ConvProblem) -> Binding:
    """Return the binding of arrays that lie in a problem's memory order without gaps.

    A "strided" input, which is any other order, has room for one more behind each element.
    """
    last, size = problem.layout == "channels_last", problem.itemsize
    spacing = 2 if problem.layout == "strided" else 1
    return Binding(
        dense_strides(problem.x_shape, spacing * size, last),
        dense_strides(problem.weight_shape, problem.weight_itemsize),
        dense_strides(problem.out_shape, problem.out_itemsize, last),
    )


class ConvPlan(Protocol):
    """A kernel made ready for one problem and one binding. Immutable, so threads share it."""

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order: plans with equal `packing` share it."""

    def pack(self, weight: Any) -> Any:
        """Return `weight` in the kernel's own order, or itself where that is its order."""

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any, /) -> None:
        """Compute into `out`; of prelu the bias is two rows, biases and slopes."""


@dataclass(frozen=True, slots=True)
class SparseBinding:
    """How the weight of a sparse operator lies in memory, and what the epilogue does.

    Parameters
    ----------
    weight_strides : tuple of int
        In bytes, for ``(K, C / groups, *kernel_size)``; empty for operators without a weight.
    activation : str or None
        A key of `ACTIVATIONS`.
    alpha : float
        The activation's parameter.
    flush : bool
        As for `Binding`.
    """

    weight_strides: tuple[int, ...] = ()
    activation: str | None = None
    alpha: float = 0.0
    flush: bool = True


class SparsePlan(Protocol):
    """A sparse kernel made ready for one problem and one binding. Immutable."""

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order: plans with equal `packing` share it."""

    def pack(self, weight: Any) -> Any:
        """Return `weight` in the kernel's own order; operators without one return it as it is."""

    def run(self, rulebook: Any, *arrays: Any) -> None:
        """Compute: `fastconv.contract.sparse_problem.OPERANDS` names the arrays.

        `rulebook` is None for pools over everything.
        """


class ArrayPlan(Protocol):
    """A kernel of an operator without a weight, ready for one problem and binding. Immutable."""

    @property
    def packing(self) -> Hashable:
        """Name of the order of the input that is packed, if one is."""

    def pack(self, weight: Any) -> Any:
        """Return that input in the kernel's own order, or itself where that is its order."""

    def run(self, *arrays: Any) -> None:
        """Compute: the arrays are the problem's inputs, packed the one that is, and its outputs."""


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """One kernel as the dispatcher sees it.

    Its functions take a problem (a `ConvProblem`, or a `SparseProblem` or an `ArrayProblem` for the
    operators of their own) and what `device` says: a `DeviceInfo` or a `CudaInfo`.

    Parameters
    ----------
    name : str
        Stable, ``device.kernel``; logs, tuning cache, tests and `use_kernel` all say it.
    op, device : str
        What it computes and where.
    reasons : callable
        Sentences that say why it cannot run a problem; empty when it can.
    cost : callable
        Predicted seconds of a call whose weight is packed already.
    target : str
        ``"module:function"``, imported when first run; the function takes (problem, binding,
        device) and returns a `ConvPlan`, a `SparsePlan` or an `ArrayPlan`.
    workspace : callable
        Scratch bytes that a call needs beside its arrays.
    tolerance : mapping of str to Tolerance
        Error bound for each supported dtype.
    pack_cost : callable
        Predicted seconds of packing the weight, which a functional call does each time.
    exact : bool
        False where the arithmetic is transformed (Winograd, FFT); ``precision("exact")`` leaves
        such kernels out.
    """

    name: str
    op: str
    device: str
    reasons: Callable[[Any, Any], list[str]]
    cost: Callable[[Any, Any], float]
    target: str
    workspace: Callable[[Any, Any], int]
    tolerance: Mapping[str, Tolerance]
    pack_cost: Callable[[Any, Any], float]
    exact: bool = True
