"""What functions, layers and gradients share: from checked arguments to a kernel's plan.

``arguments -> Geometry -> Rulebook -> SparseProblem -> plan -> features at the rulebook's sites``

Plans are kept under the problem, the binding and the settings, so that a layer that meets the same
sites again computes at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array_libraries import view_array, view_beside
from ..arrays import (
    Array,
    dtype_name,
    empty_output,
    permute,
    private_copy,
    require_array,
    row_major,
    unwrap,
)
from ..companions import check_companion, check_groups, check_weight
from ..contract.arguments import Activation, parse_activation
from ..contract.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from ..contract.geometry import is_word
from ..contract.sparse_problem import OPERANDS, SparseProblem
from ..contract.spec import SparseBinding, SparsePlan
from ..device_arrays import DeviceArray
from ..dispatch import make_plan, settings
from ..recall import recall
from .geometry import on_device, require_tensor
from .rulebook import Rulebook, require_rulebook
from .tensor import SparseTensor, derived_tensor

__all__ = [
    "Call",
    "Filters",
    "check_layout",
    "conv_call",
    "describe",
    "global_pool_call",
    "in_kcrs",
    "in_krsc",
    "pool_call",
    "run",
]

#: Orders of a weight's axes: K output channels, C input channels of a group, the kernel's R, S, ...
WEIGHT_LAYOUTS = ("KCRS", "KRSC")

_plans: dict[tuple[Any, ...], tuple[SparsePlan, tuple[tuple[int, ...], ...]]] = {}
_NO_BINDING = SparseBinding()
_MOST_PLANS = 4096


@dataclass(frozen=True, slots=True)
class Filters:
    """Weight and bias of a convolution as kernels see them, and what follows the sums.

    Parameters
    ----------
    weight : (K, C / groups, *kernel_size) array
        Of any strides.
    bias : (K,) array or None
        Added to every site.
    groups : int
        Independent groups of channels.
    activation : str, (str, float) or None
        As for `fastconv.conv2d`.
    packed : dict or None
        The weight in the orders that kernels have asked for, where it is kept for many calls.
    """

    weight: Array
    bias: Array | None
    groups: int
    activation: Activation = None
    packed: dict[Hashable, Array] | None = None

    @classmethod
    def of(
        cls, weight: Any, bias: Any, ndim: int, groups: int, weight_layout: str,
        activation: Activation = None, *, beside: Array | None = None,
        packed: dict[Hashable, Array] | None = None,
    ) -> Filters:  # fmt: skip
        """Check what a caller gave, for `ndim` spatial axes and features like `beside`."""
        check_layout(weight_layout)
        taps, shift = _beside("weight", weight, beside), _beside("bias", bias, beside)
        if taps is None:
            raise ShapeError(f"weight: got None, want {ndim + 2} axes, {weight_layout}")
        check_weight(taps, ndim, weight_layout)
        taps = _whole_steps(taps if weight_layout == "KCRS" else in_kcrs(taps))
        groups = check_groups(groups, taps)
        if shift is not None:
            check_companion("bias", shift, taps.shape[:1], taps, "weight")
        parse_activation(activation)
        shift = None if shift is None else row_major(shift)
        return cls(taps, shift, groups, activation, packed)

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps an axis."""
        return tuple(self.weight.shape[2:])

    @property
    def binding(self) -> SparseBinding:
        """What a plan must know of them.

        Nothing is reached by the stride of an axis of length 1, which NumPy lets be anything: it is
        0 here.
        """
        taps = self.weight
        axes = zip(taps.shape, taps.strides, strict=True)
        strides = tuple(step if size > 1 else 0 for size, step in axes)
        return SparseBinding(strides, *parse_activation(self.activation))


def _beside(name: str, array: Any, like: Array | None) -> Array | None:
    """Return what kernels see of an array that must live where another one does."""
    if array is None:
        return None
    if isinstance(like, DeviceArray):
        return require_array(name, view_beside(name, array, "features", like))
    view = view_array(name, array)
    if view is not None and like is not None:
        raise DeviceError(f"{name}: got an array on a GPU, want a NumPy array as the features are")
    checked = require_array(name, view or array)
    return checked if view is not None else np.asarray(checked)


def _whole_steps(weight: Array) -> Array:
    """Return a weight whose strides are whole elements, as kernels count them, if by a copy."""
    axes = zip(weight.shape, weight.strides, strict=True)
    if any(size > 1 and step % weight.itemsize for size, step in axes):
        return row_major(private_copy(weight))
    return weight


def check_layout(layout: Any) -> None:
    """Raise where an order of a weight's axes is none."""
    if not is_word(layout, WEIGHT_LAYOUTS):
        raise ArgumentError(f"weight_layout: got {layout!r}, want 'KCRS' or 'KRSC'")


def in_kcrs(weight: Array) -> Array:
    """Return a KRSC weight with its input channels on the second axis."""
    last = weight.ndim - 1
    return permute(weight, (0, last, *range(1, last)))


def in_krsc(weight: Array) -> Array:
    """Return a KCRS weight with its input channels on the last axis."""
    return permute(weight, (0, *range(2, weight.ndim), 1))


@dataclass(frozen=True, slots=True)
class Call:
    """An operator whose arguments have been checked; nothing is computed before `compute`.

    Parameters
    ----------
    x : SparseTensor
        What it reads.
    problem : SparseProblem
        Its sizes.
    rulebook : Rulebook or None
        Which rows meet; None for pools over everything.
    filters : Filters or None
        Weight and bias of a convolution.
    """

    x: SparseTensor
    problem: SparseProblem
    rulebook: Rulebook | None
    filters: Filters | None = None

    @property
    def keeps_weight(self) -> bool:
        """Whether the weight is packed once for many calls."""
        return self.filters is not None and self.filters.packed is not None

    def on_device(self) -> contextlib.AbstractContextManager[None]:
        """Compute on the features' device."""
        return on_device(self.x.feature_array)

    def note(self) -> str:
        """Return a line on the rulebook."""
        if self.rulebook is None:
            return ""
        geometry, pairs = self.rulebook.geometry, self.rulebook.pairs
        sites = max(self.rulebook.out_rows, 1)
        return (
            f"rulebook: {geometry.kind}{', reversed' if self.rulebook.is_reversed else ''}, "
            f"grid {'x'.join(map(str, self.rulebook.in_shape))} > "
            f"{'x'.join(map(str, self.rulebook.out_shape))}, {pairs / sites:.2f} of "
            f"{geometry.volume} offsets meet a site"
        )

    def features(self) -> Array:
        """Return the operator's features, row-major."""
        rows = self.x.feature_array
        operands = [rows]
        if self.rulebook is None:
            operands.append(row_major(self.x._indices[:, 0]))
        shape = (self.problem.out_rows, self.problem.out_channels)
        out = empty_output(rows, shape, "channels_first")
        run(self.problem, self.rulebook, operands, out, self.filters)
        return out

    def compute(self) -> SparseTensor:
        """Return the features at the rulebook's sites."""
        assert self.rulebook is not None
        features = self.features()
        book = self.rulebook
        return derived_tensor(self.x, features, book._out_indices, book.out_shape)

    def compute_global(self) -> Any:
        """Return the features of each grid of the batch, of the caller's kind."""
        return unwrap(self.features())


def conv_call(x: SparseTensor, rulebook: Rulebook, filters: Filters) -> Call:
    """Return the convolution of `x` by a rulebook over its sites."""
    weight, groups = filters.weight, filters.groups
    if weight.dtype != x.dtype:
        raise DTypeError(f"features: got {x.dtype} with a weight of {weight.dtype}, want one type")
    if weight.shape[1] * groups != x.channels:
        raise ShapeError(
            f"features: got {x.channels} channels with a weight of {weight.shape[1]} input "
            f"channels a group and groups={groups}, want {weight.shape[1] * groups}"
        )
    if filters.kernel_size != rulebook.geometry.kernel_size:
        raise ShapeError(
            f"weight: got a kernel of {filters.kernel_size}, want {rulebook.geometry.kernel_size} "
            "as the rulebook has"
        )
    problem = describe("sparse_conv", rulebook, x.feature_array, weight.shape[0], groups)
    return Call(x, problem, rulebook, filters)


def pool_call(op: str, x: SparseTensor, rulebook: Rulebook) -> Call:
    """Return a pool over a rulebook's windows."""
    return Call(x, describe(op, rulebook, x.feature_array, x.channels), rulebook)


def global_pool_call(op: str, x: SparseTensor) -> Call:
    """Return a pool over all sites of each grid."""
    require_tensor(x)
    rows, channels = len(x), x.channels
    dtype = dtype_name("features", x.dtype)
    device = "cuda" if isinstance(x.feature_array, DeviceArray) else "cpu"
    sizes = (rows, x.batch_size, rows, (), channels, channels)
    return Call(x, SparseProblem(op, *sizes, dtype=dtype, device=device), None)


def describe(
    op: str, rulebook: Rulebook, like: Array, out_channels: int, groups: int = 1
) -> SparseProblem:
    """Return the problem of an operator by a rulebook, on features like those given."""
    _check_place(require_rulebook(rulebook), like)
    return SparseProblem(
        op,
        rulebook.in_rows,
        rulebook.out_rows,
        rulebook.pairs,
        rulebook.geometry.kernel_size,
        int(like.shape[1]),
        out_channels,
        groups,
        dtype_name("features", like.dtype),
        "cuda" if isinstance(like, DeviceArray) else "cpu",
    )


def run(
    problem: SparseProblem, rulebook: Rulebook | None, operands: Sequence[Array], out: Array,
    filters: Filters | None = None,
) -> None:  # fmt: skip
    """Compute a problem into `out`; `OPERANDS` names the arrays, the weight's are in `filters`.

    Everything that is computed passes here, so here it is seen that every array is what the problem
    says: kernels know sizes from the problem alone, and a caller may have changed the shape of an
    array that was checked when it came.
    """
    if out.size == 0:
        return
    packed = filters is not None and filters.packed is not None
    with on_device(out):
        binding = _NO_BINDING if filters is None else filters.binding
        plan, shapes = _plan(problem, binding, packed)
        _check_operands(problem, shapes, (*operands, out))
        if filters is None:
            plan.run(rulebook, *operands, out)
            return
        if filters.weight.shape != problem.weight_shape:
            raise ShapeError(
                f"weight: got shape {filters.weight.shape}, want {problem.weight_shape}"
            )
        plan.run(rulebook, *operands, _packed(plan, filters), filters.bias, out)


def _check_place(rulebook: Rulebook, like: Array) -> None:
    """Raise where a rulebook is not where features are."""
    place = rulebook.place
    if isinstance(like, DeviceArray):
        if place != (like.library, like.device):
            raise DeviceError(
                "rulebook: got one elsewhere, want one where the features are, in "
                f"{like.library.name}'s memory of device {like.device}"
            )
    elif place is not None:
        raise DeviceError("rulebook: got one on a GPU, want NumPy's as the features are")


def _check_operands(
    problem: SparseProblem, shapes: tuple[tuple[int, ...], ...], arrays: Sequence[Array]
) -> None:
    """Raise where an array has another size than the problem, or does not lie row-major."""
    for number, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        is_row_major = isinstance(array, DeviceArray) or array.flags.c_contiguous
        if array.shape != shape or not is_row_major:
            names = [name for name in OPERANDS[problem.op] if name not in ("packed", "bias")]
            raise ShapeError(
                f"{names[number]}: got shape {array.shape} and strides {array.strides}, want "
                f"{shape} in row-major order"
            )


def _plan(
    problem: SparseProblem, binding: SparseBinding, packed: bool
) -> tuple[SparsePlan, tuple[tuple[int, ...], ...]]:
    """Return a problem's plan, and the shapes that its operands must have."""
    key = (problem, binding, packed, settings())
    planned = _plans.get(key)
    if planned is None:
        planned = make_plan(problem, binding, packed)[1], problem.operand_shapes
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = planned
    return planned


def _packed(plan: SparsePlan, filters: Filters) -> Array:
    if filters.packed is None:
        return recall.find(plan.packing, filters.weight, plan.pack)
    packed = filters.packed.get(plan.packing)
    if packed is None:
        packed = plan.pack(filters.weight)
        if isinstance(packed, DeviceArray):
            packed.synchronize()  # later calls may come on any stream
        filters.packed[plan.packing] = packed
    return packed
