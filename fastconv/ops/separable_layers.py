"""Pairs of convolutions made from their weight arrays: packed once, then called."""

from __future__ import annotations

from typing import Any

from ..arrays import Array, private_copy, require_array, shown
from ..companions import check_memory
from ..contract.arguments import Activation, Padding, Sizes, canonical_activation, flag
from ..contract.pair_problem import PairProblem
from ..dense_problem import unbatch
from ..packing import PackedWeights
from ..tensors import compute_tensors, holds_tensors
from .pair_calls import compute_pair, prepare_pair
from .pair_checks import PAIR, SEPARABLE, Arguments, PairForm, canonical_pair, check_parameters
from .pair_plan import PairOperands
from .separable import POINTWISE, pointwise_filters
from .telling import told

__all__ = ["Conv2dPair", "SeparableConv2d"]


class _Pair:
    """Weights and arguments of two convolutions, and the weights packed for kernels that asked."""

    _form: PairForm

    def _set(
        self, weights: tuple[Any, Any], biases: tuple[Any, Any], arguments: Arguments,
        activations: tuple[Activation, Activation], tune: bool,
    ) -> None:  # fmt: skip
        """Check what is given and keep private copies of it."""
        if holds_tensors(*weights):
            compute_tensors(self._set, (weights, biases, arguments, activations, tune), {})
            return
        arguments = canonical_pair(self._form, arguments)
        checked = check_parameters(self._form, weights, biases, arguments, activations)
        first, second = (None if bias is None else private_copy(bias) for bias in biases)
        self._given = PairOperands(
            (private_copy(checked[0]), private_copy(checked[1])), (first, second), arguments,
            (canonical_activation(activations[0]), canonical_activation(activations[1])),
            flag("tune", tune),
        )  # fmt: skip
        self._packed = PackedWeights()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: what was given, and nothing that was packed."""
        given = self._given
        return {"given": tuple(given._replace(weights=self.weights, biases=self.biases))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(*state["given"])

    @property
    def weights(self) -> tuple[Array, Array]:
        """The filters of the first and the second convolution, with all four axes."""
        first, second = self._given.weights
        return shown(first), shown(second)

    @property
    def biases(self) -> tuple[Array | None, Array | None]:
        """The biases of the first and the second convolution."""
        first, second = (None if bias is None else shown(bias) for bias in self._given.biases)
        return first, second

    def __repr__(self) -> str:
        first, second = self._given.weights
        stride, padding, dilation, _ = self._given.arguments[0]
        return (
            f"{type(self).__name__}({first.shape} {second.shape} {first.dtype}, stride={stride}, "
            f"padding={padding}, dilation={dilation})"
        )

    def problem(self, input: Array) -> PairProblem:
        """Return the problem that a call with this input computes."""
        problem: PairProblem = told(self, input)
        return problem

    def _batched(self, input: Any, *others: Any) -> tuple[Array, Array | None, Array | None]:
        """Return arrays of NumPy's own type, with a batch axis where the input has none."""
        made: list[Array | None] = []
        for name, array in zip(("input", "residual", "out"), (input, *others), strict=True):
            if array is not None or name == "input":
                array = require_array(name, array)
                check_memory(name, array, self._form.name)
            made.append(array)
        x, residual, out = made
        return unbatch(2, x, residual, out) if x is not None and x.ndim == 3 else (x, residual, out)

    def prepare(self, input: Array, residual: Array | None = None, out: Array | None = None) -> str:
        """Choose and compile the kernels for an input and pack the weights.

        Returns
        -------
        str
            Names of the kernels that a call will run.
        """
        if holds_tensors(input):
            names: str = compute_tensors(self.prepare, (input, residual, out), {})
            return names
        x, residual, out = self._batched(input, residual, out)
        call = prepare_pair(self._form, x, self._given, residual, out, True)
        self._packed.find(call.packing, lambda: call.pack(self._given.weights))
        return call.kernel

    def __call__(
        self, input: Array, residual: Array | None = None, out: Array | None = None
    ) -> Array:
        """Convolve `input`; arguments and result are those of the function of the same name."""
        if holds_tensors(input):
            return compute_tensors(self.__call__, (input, residual, out), {})
        return compute_pair(self._form, input, self._given, residual, out, self._packed)


class SeparableConv2d(_Pair):
    """A depthwise separable convolution with packed weights.

    Parameters
    ----------
    depthwise_weight : ndarray, shape (C * m, 1, kh, kw)
        Filters of each channel; copied.
    pointwise_weight : ndarray, shape (K, C * m) or (K, C * m, 1, 1)
        How the channels that these make are mixed; copied.
    bias : ndarray, shape (K,), optional
        Added to each output channel; copied.
    stride, padding, dilation, depthwise_bias, depthwise_activation, activation, tune
        As for `fastconv.separable_conv2d`.

    Notes
    -----
    Calls take ``(input, residual=None, out=None)``, and may come from many threads at once. Batch
    normalisation after either convolution is folded into its weight and bias by
    `fastconv.fold_batch_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.SeparableConv2d(
    ...     np.ones((8, 1, 3, 3), np.float32), np.ones((16, 8), np.float32), stride=2, padding=1
    ... )
    >>> layer(np.ones((1, 8, 14, 14), np.float32)).shape
    (1, 16, 7, 7)
    """

    _form = SEPARABLE

    def __init__(
        self,
        depthwise_weight: Array,
        pointwise_weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        *,
        depthwise_bias: Array | None = None,
        depthwise_activation: Activation = None,
        activation: Activation = None,
        tune: bool = False,
    ) -> None:
        self._set(
            (depthwise_weight, pointwise_filters(pointwise_weight)), (depthwise_bias, bias),
            ((stride, padding, dilation, 1), POINTWISE), (depthwise_activation, activation), tune,
        )  # fmt: skip


class Conv2dPair(_Pair):
    """Two convolutions in a row with packed weights.

    Parameters
    ----------
    first_weight, second_weight : ndarray, shape (K, C / groups, kh, kw)
        Filters of each convolution; copied.
    first_bias, second_bias : ndarray, shape (K,), optional
        Added to each convolution's channels; copied.
    first_stride, first_padding, first_dilation, first_groups, first_activation
        As for `fastconv.conv2d_pair`.
    second_stride, second_padding, second_dilation, second_groups, second_activation
        As for `fastconv.conv2d_pair`.
    tune : bool
        As for `fastconv.Conv2d`.

    Notes
    -----
    Calls take ``(input, residual=None, out=None)``, and may come from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> row, column = np.ones((8, 4, 1, 7), np.float32), np.ones((8, 8, 7, 1), np.float32)
    >>> layer = fastconv.Conv2dPair(row, column, first_padding=(0, 3), second_padding=(3, 0))
    >>> layer(np.ones((1, 4, 17, 17), np.float32)).shape
    (1, 8, 17, 17)
    """

    _form = PAIR

    def __init__(
        self,
        first_weight: Array,
        second_weight: Array,
        first_bias: Array | None = None,
        second_bias: Array | None = None,
        *,
        first_stride: Sizes = 1,
        first_padding: Padding = 0,
        first_dilation: Sizes = 1,
        first_groups: int = 1,
        first_activation: Activation = None,
        second_stride: Sizes = 1,
        second_padding: Padding = 0,
        second_dilation: Sizes = 1,
        second_groups: int = 1,
        second_activation: Activation = None,
        tune: bool = False,
    ) -> None:
        self._set(
            (first_weight, second_weight), (first_bias, second_bias),
            (
                (first_stride, first_padding, first_dilation, first_groups),
                (second_stride, second_padding, second_dilation, second_groups),
            ),
            (first_activation, second_activation), tune,
        )  # fmt: skip
