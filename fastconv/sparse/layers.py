"""What the layers of `fastconv.sparse.nn` share: arguments, weights, and how they are called."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..array_libraries import view_array
from ..arrays import Array, private_copy, shown, unwrap
from ..contract.arguments import (
    Activation,
    Padding,
    Sizes,
    parse_activation,
    per_axis,
    whole_number,
)
from ..contract.errors import ShapeError
from ..contract.padding import canonical_padding
from ..device_arrays import DeviceArray
from ..folding import fold_batch_norm, host_values
from .calls import Call, Filters, conv_call, in_krsc, pool_call
from .geometry import find_rulebook, make_geometry, named_rulebook, require_tensor
from .rulebook import Rulebook
from .tensor import SparseTensor

__all__ = [
    "Convolution",
    "Inverse",
    "Layer",
    "MaxOrAvgPool",
    "Regular",
    "Sequential",
    "Submanifold",
    "Transposed",
]


class Layer:
    """A callable from one `SparseTensor` to the next."""

    _ndim: int
    indice_key: str | None

    def call(self, x: SparseTensor) -> Call:
        """Return what a call with `x` would compute, without computing it."""
        raise NotImplementedError

    def __call__(self, x: SparseTensor) -> SparseTensor:
        """Compute on `x`."""
        return self.call(x).compute()

    def _check(self, x: Any) -> SparseTensor:
        if require_tensor(x).ndim != self._ndim:
            raise ShapeError(
                f"x: got {x.ndim} spatial axes, want {self._ndim} as {type(self).__name__} has"
            )
        return x


def _positive(name: str, value: Any) -> int:
    number = whole_number(name, value)
    if number < 1:
        raise ShapeError(f"{name}: got {number}, want at least 1")
    return number


class Convolution(Layer):
    """A layer with a weight, which is packed once for each order that kernels ask for.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    kernel_size, stride, dilation : int or tuple of int
        As for the operators of `fastconv.sparse`.
    padding : int or tuple
        The same.
    groups : int
        Independent groups of channels.
    bias : bool
        Whether a bias is added.
    indice_key : str, optional
        Name of the rulebook.
    activation : str or (str, float), optional
        As for `fastconv.conv2d`; computed as the sums are stored.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        *,
        activation: Activation = None,
    ) -> None:
        self.in_channels = _positive("in_channels", in_channels)
        self.out_channels = _positive("out_channels", out_channels)
        self.kernel_size = per_axis("kernel_size", kernel_size, self._ndim)
        self.stride = per_axis("stride", stride, self._ndim)
        self.padding = canonical_padding(padding, self._ndim)
        self.dilation = per_axis("dilation", dilation, self._ndim)
        self.groups = whole_number("groups", groups)
        if self.groups < 1 or self.in_channels % self.groups:
            raise ShapeError(
                f"groups: got {groups}, want a divisor of in_channels={self.in_channels}"
            )
        parse_activation(activation)
        self.has_bias = bool(bias)
        self.indice_key = indice_key
        self.activation = activation
        self._filters: Filters | None = None

    def __repr__(self) -> str:
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        words += [f"stride={self.stride}"] if max(self.stride) > 1 else []
        words += [f"groups={self.groups}"] if self.groups > 1 else []
        words += [f"indice_key={self.indice_key!r}"] if self.indice_key else []
        words += [] if self._filters else ["no weight yet"]
        return f"{type(self).__name__}({', '.join(words)})"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a copy keeps: weight and bias, not what kernels made of them."""
        state = dict(self.__dict__)
        if (filters := self._filters) is not None:
            shift = None if filters.bias is None else shown(filters.bias)
            state["_filters"] = shown(filters.weight), shift
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        filters = state.pop("_filters")
        self.__dict__.update(state, _filters=None)
        if filters is not None:
            self.load(*filters, weight_layout="KCRS")

    @property
    def weight(self) -> Any:
        """The filters, shape (K, *kernel_size, C / groups)."""
        weight = self._loaded().weight
        return unwrap(in_krsc(weight if isinstance(weight, DeviceArray) else shown(weight)))

    @property
    def bias(self) -> Any:
        """The bias, shape (K,), or None."""
        shift = self._loaded().bias
        return None if shift is None else shown(shift)

    def load(
        self, weight: Array, bias: Array | None = None, *, weight_layout: str = "KRSC"
    ) -> Convolution:
        """Set weight and bias, which are copied, and return the layer.

        Parameters
        ----------
        weight : array, shape (K, *kernel_size, C / groups)
            As spconv 2 stores it; of NumPy, or of the library and on the device of the inputs.
        bias : array, shape (K,), optional
            Wanted where the layer was made with ``bias=True``.
        weight_layout : {"KRSC", "KCRS"}
            Order of the weight's axes; KCRS is ``(K, C / groups, *kernel_size)``.

        Raises
        ------
        ShapeError, DTypeError
            For arrays that do not fit the layer.
        """
        if (bias is not None) != self.has_bias:
            got = "none" if bias is None else "one"
            raise ShapeError(f"bias: got {got}, want what the layer has, bias={self.has_bias}")
        like = view_array("weight", weight)
        given = Filters.of(
            weight, bias, self._ndim, self.groups, weight_layout, self.activation, beside=like
        )
        wanted = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        if given.weight.shape != wanted:
            raise ShapeError(
                f"weight: got {given.weight.shape} for output channels, input channels of a group "
                f"and kernel, want {wanted}"
            )
        packed: dict[Hashable, Array] = {}
        shift = None if given.bias is None else private_copy(given.bias)
        self._filters = Filters(
            private_copy(given.weight), shift, self.groups, self.activation, packed
        )
        return self

    def load_state_dict(
        self, state: Mapping[str, Any], prefix: str = "", *, batch_norm: str | None = None,
        eps: float = 1e-5, weight_layout: str = "KRSC",
    ) -> Convolution:  # fmt: skip
        """Load ``weight`` and ``bias`` from a mapping of names to arrays, and return the layer.

        Parameters
        ----------
        state : mapping
            As ``state_dict()`` of a PyTorch module; tensors on the CPU, or arrays.
        prefix : str
            What stands before the names, say ``"conv1.0."``.
        batch_norm : str, optional
            The same for a batch normalisation behind the layer, which is folded into it.
        eps : float
            That normalisation's.
        weight_layout : {"KRSC", "KCRS"}
            As for `load`.

        Raises
        ------
        ShapeError
            Where a name is missing, or an array does not fit.

        Notes
        -----
        A kernel of one tap and stride 1 is read by spconv 2.3 as if ``(K, 1, 1, 1, C)`` were
        ``(C, K)``: the weight of such a layer is ``weight.reshape(C, K).T``, for `load`.
        """

        def entry(name: str) -> Any:
            if name not in state:
                raise ShapeError(f"state: got no {name!r}, want it for {self!r}")
            value = state[name]
            return value if view_array(name, value) is not None else host_values(name, value)

        bias = entry(f"{prefix}bias") if self.has_bias else None
        self.load(entry(f"{prefix}weight"), bias, weight_layout=weight_layout)
        if batch_norm is not None:
            names = ("running_mean", "running_var", "weight", "bias")
            mean, var, gamma, beta = (entry(f"{batch_norm}{name}") for name in names)
            self.fold_batch_norm(mean, var, gamma, beta, eps)
        return self

    def fold_batch_norm(
        self, mean: Array, var: Array, gamma: Array | None = None, beta: Array | None = None,
        eps: float = 1e-5,
    ) -> Convolution:  # fmt: skip
        """Fold a batch normalisation behind the layer into its weight and bias.

        Arguments are those of `fastconv.fold_batch_norm`, NumPy arrays of shape (K,); the layer has
        a bias from then on.
        """
        filters = self._loaded()
        if isinstance(filters.weight, DeviceArray):
            raise ShapeError("weight: got one on a GPU, want NumPy's: fold before it is moved")
        weight, bias = fold_batch_norm(filters.weight, filters.bias, mean, var, gamma, beta, eps)
        self.has_bias = True
        self.load(weight, bias, weight_layout="KCRS")
        return self

    def _loaded(self) -> Filters:
        if self._filters is None:
            raise ShapeError(f"weight: got none yet, want load(weight, bias) before: {self!r}")
        return self._filters

    def call(self, x: SparseTensor) -> Call:
        """Return what a call with `x` would compute, without computing it."""
        filters = self._loaded()
        rows = self._check(x).feature_array
        if isinstance(rows, DeviceArray) != isinstance(filters.weight, DeviceArray):
            Filters.of(self.weight, None, self._ndim, self.groups, "KRSC", beside=rows)
        return conv_call(x, self._rulebook(x), filters)

    def _rulebook(self, x: SparseTensor) -> Rulebook:
        raise NotImplementedError

    def _find(self, x: SparseTensor, kind: str, *geometry: Any) -> Rulebook:
        return find_rulebook(
            x, make_geometry(kind, x, self.kernel_size, *geometry), self.indice_key, None
        )


class Submanifold(Convolution):
    """Sites stay; `stride` is 1, and `padding` has no effect, as in spconv."""

    def _rulebook(self, x: SparseTensor) -> Rulebook:
        if max(self.stride) > 1:
            raise ShapeError(f"stride: got {self.stride}, want 1: the sites stay as they are")
        return self._find(x, "submanifold", 1, "same", self.dilation)


class Regular(Convolution):
    """Sites wherever the kernel reaches an active one."""

    def _rulebook(self, x: SparseTensor) -> Rulebook:
        return self._find(x, "regular", self.stride, self.padding, self.dilation)


class Transposed(Convolution):
    """Sites wherever an active one's spread by the kernel reaches."""

    def _rulebook(self, x: SparseTensor) -> Rulebook:
        return self._find(x, "transposed", self.stride, self.padding, self.dilation)


class Inverse(Convolution):
    """Back to the sites before the layer that named `indice_key`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, indice_key: str,
        bias: bool = True, *, groups: int = 1, activation: Activation = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, groups=groups, bias=bias,
            indice_key=indice_key, activation=activation,
        )  # fmt: skip

    def _rulebook(self, x: SparseTensor) -> Rulebook:
        return named_rulebook(x, self.kernel_size, self.indice_key, None).reverse()


class MaxOrAvgPool(Layer):
    """A pool over windows.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, indice_key
        As for `fastconv.sparse.sparse_max_pool`.
    """

    _op: str

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Padding = 0,
        dilation: Sizes = 1, indice_key: str | None = None,
    ) -> None:  # fmt: skip
        self.kernel_size = per_axis("kernel_size", kernel_size, self._ndim)
        self.stride = self.kernel_size if stride is None else per_axis("stride", stride, self._ndim)
        self.padding = canonical_padding(padding, self._ndim)
        self.dilation = per_axis("dilation", dilation, self._ndim)
        self.indice_key = indice_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}(kernel_size={self.kernel_size}, stride={self.stride})"

    def call(self, x: SparseTensor) -> Call:
        """Return what a call with `x` would compute, without computing it."""
        geometry = make_geometry(
            "regular", self._check(x), self.kernel_size, self.stride, self.padding, self.dilation
        )
        return pool_call(self._op, x, find_rulebook(x, geometry, self.indice_key, None))


class Sequential:
    """Layers one after another.

    Parameters
    ----------
    *layers : layer or callable
        Layers of `fastconv.sparse.nn` take the tensor; any other callable takes its features and
        returns new ones for the same sites.
    """

    def __init__(self, *layers: Layer | Sequential | Callable[[Any], Any]) -> None:
        self.layers = layers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    def __getitem__(self, index: int) -> Any:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    def __call__(self, x: SparseTensor) -> SparseTensor:
        """Compute layer after layer."""
        require_tensor(x)
        for layer in self.layers:
            is_sparse = isinstance(layer, (Layer, Sequential))
            x = layer(x) if is_sparse else x.replace(layer(x.features))
        return x
