"""Layers of a model as objects of fastconv's, which keep their weights packed.

A `Pack` belongs to one layer of PyTorch's, alone or with the norm, the sum and the activation that
follow it. Each call reads the tensors that it was made from: what is written into them, by whatever
way, or put in their place, is packed anew. `fastconv.fingerprint` says why, and what that costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

import fastconv

from ..contract.errors import ArgumentError, DTypeError, ShapeError
from ..fingerprint import Fingerprint
from ..folding import fold_batch_norm
from ..tensors import array_of
from .operands import check_tensors, in_lower_type
from .registry import untraced

__all__ = ["NORMS", "PRODUCTS", "Activation", "Pack", "activation_of"]

Tensor = torch.Tensor


class _Product(NamedTuple):
    """An object of fastconv's that stands for a layer of PyTorch's.

    Parameters
    ----------
    make : type
        The object's class.
    arguments : tuple of str
        Names, in both libraries, of what stands behind weight and bias.
    transposed : bool
        Whether the weight's first axis is that of the inputs.
    """

    make: Any
    arguments: tuple[str, ...]
    transposed: bool = False


_CONV = ("stride", "padding", "dilation", "groups", "padding_mode")
_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")
PRODUCTS: dict[type[nn.Module], _Product] = {
    nn.Conv1d: _Product(fastconv.Conv1d, _CONV),
    nn.Conv2d: _Product(fastconv.Conv2d, _CONV),
    nn.Conv3d: _Product(fastconv.Conv3d, _CONV),
    nn.ConvTranspose1d: _Product(fastconv.ConvTranspose1d, _TRANSPOSED, True),
    nn.ConvTranspose2d: _Product(fastconv.ConvTranspose2d, _TRANSPOSED, True),
    nn.ConvTranspose3d: _Product(fastconv.ConvTranspose3d, _TRANSPOSED, True),
    nn.Linear: _Product(fastconv.Linear, ()),
}
#: Norms whose statistics are folded into the weights of a layer of as many axes.
NORMS: dict[type[nn.Module], int] = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}


class Activation(NamedTuple):
    """An activation that a kernel's epilogue applies.

    Parameters
    ----------
    name : str
        As fastconv calls it.
    number : float or None
        Its parameter; None where it has none.
    slopes : module or None
        The module that holds the slopes of "prelu".
    """

    name: str
    number: float | None = None
    slopes: Any = None


def _module_activation(module: nn.Module) -> Activation | None:
    kind: Any = type(module)
    given: Any = module
    if kind is nn.LeakyReLU:
        return Activation("leaky_relu", float(given.negative_slope))
    if kind is nn.ELU:
        return Activation("elu", float(given.alpha))
    if kind is nn.GELU:
        return Activation("gelu") if given.approximate == "none" else None
    if kind is nn.PReLU:
        return Activation("prelu", slopes=module)
    name = _PLAIN.get(kind)
    return None if name is None else Activation(name)


_PLAIN: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Hardswish: "hardswish",
}
_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu6: "relu6",
    F.silu: "silu",
    F.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
    F.tanh: "tanh",
    torch.tanh: "tanh",
    F.hardswish: "hardswish",
    "relu": "relu",
    "relu_": "relu",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
    "tanh": "tanh",
    "tanh_": "tanh",
}
#: What PyTorch computes where a sum cannot be fused after all.
_THEIRS: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
}


def activation_of(what: Any) -> Activation | None:
    """Return the activation that a module, a function or the name of a method is; None for others.

    Those of a function's arguments beside ``inplace`` are not looked at.
    """
    if isinstance(what, nn.Module):
        return _module_activation(what)
    name = _FUNCTIONS.get(what)
    return None if name is None else Activation(name)


class Pack:
    """A layer, and what follows it, as one call of an object of fastconv's.

    Parameters
    ----------
    layer : Module
        One of `PRODUCTS`.
    norm : Module, optional
        One of `NORMS`, folded into the weight.
    activation : Activation, optional
        What is applied last.
    """

    def __init__(
        self, layer: nn.Module, norm: nn.Module | None = None, activation: Activation | None = None
    ) -> None:
        self.layer, self.norm, self.activation = layer, norm, activation
        kind = next(kind for kind in type(layer).__mro__ if kind in PRODUCTS)
        self._product = PRODUCTS[kind]
        of: Any = layer
        self._axes = of.weight.dim()
        #: Objects by element type and by whether they have the activation, with what these are of.
        self._made: dict[tuple[torch.dtype, bool], tuple[Fingerprint, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: nothing that was packed."""
        return self.__dict__ | {"_made": {}}

    @property
    def last(self) -> nn.Module | str:
        """What the layer's output has gone through last, or a word for it."""
        if self.activation is not None:
            return self.activation.name
        return self.layer if self.norm is None else self.norm

    def __call__(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute the layer, plus `residual` where there is one, and the activation.

        Dense layers take no residual.

        Raises
        ------
        ArgumentError
            Where the layer or its norm has been set to training.
        DTypeError
            For an input or a residual that requires gradients while these are recorded.
        """
        return untraced(self._compute, input, residual)

    def _compute(self, input: Tensor, residual: Tensor | None) -> Tensor:
        self._check(input, residual)
        layer: Any = self.layer
        (x, weight) = in_lower_type(input, layer.weight)
        check_tensors(input=x, weight=weight)
        with torch.no_grad():
            if residual is None:
                made: Tensor = self._object(x.dtype, self._activates(x))(x)
                return made if self._activates(x) else self._activated(made)
            if x.dim() != self._axes:
                return self._apart(x, residual)
            try:
                made = self._object(x.dtype, True)(x, residual=residual)
            except (ShapeError, DTypeError):  # a sum of other shapes or types, raised before it
                made = self._apart(x, residual)
            return made

    def _check(self, input: Tensor, residual: Tensor | None) -> None:
        layer: Any = self.layer
        if self.layer.training or (self.norm is not None and self.norm.training):
            raise ArgumentError(
                f"model: got a {type(self.layer).__name__} in training mode, want model.eval(): "
                "what optimize() returned is for evaluation"
            )
        if not torch.is_grad_enabled():
            return
        given = {"input": input, "weight": layer.weight, "bias": layer.bias, "residual": residual}
        for name, tensor in given.items():
            if tensor is not None and tensor.requires_grad:
                raise DTypeError(
                    f"{name}: got a tensor that requires gradients, which an optimized model does "
                    "not record, want torch.no_grad() around the call, or the model as it was "
                    "under fastconv.torch.patch()"
                )

    def _apart(self, x: Tensor, residual: Tensor) -> Tensor:
        """Compute the sum and the activation in PyTorch, whose sums broadcast."""
        return self._activated(self._object(x.dtype, False)(x) + residual)

    def _activates(self, x: Tensor) -> bool:
        """Tell whether the object's activation is the model's, whose slopes lie along axis 1."""
        slopes = None if self.activation is None else self.activation.slopes
        return slopes is None or slopes.weight.numel() == 1 or x.dim() == self._axes

    def _activated(self, made: Tensor) -> Tensor:
        if self.activation is None:
            return made
        name, number, slopes = self.activation
        if slopes is not None:
            return F.prelu(made, slopes.weight)
        return _THEIRS[name](made) if number is None else _THEIRS[name](made, number)

    def _tensors(self) -> list[Tensor | None]:
        layer, norm = self.layer, self.norm
        given: Any = [layer.weight, layer.bias]
        if norm is not None:
            given += [norm.running_mean, norm.running_var, norm.weight, norm.bias]
        if self.activation is not None and self.activation.slopes is not None:
            given.append(self.activation.slopes.weight)
        return given

    def _object(self, dtype: torch.dtype, activated: bool) -> Any:
        """Return the object for inputs of a type, made anew where the model's tensors changed."""
        tensors, values = self._tensors(), self._values()
        known = self._made.get((dtype, activated))
        if known is not None and known[0].holds(tensors, values):
            return known[1]
        seen = Fingerprint(tensors, values)  # before: what changes meanwhile is seen by the next
        made = self._make(dtype, activated)
        self._made[dtype, activated] = (seen, made)
        return made

    def _values(self) -> tuple[Any, ...]:
        """Return the numbers that the layer and the norm are computed with."""
        given: Any = self.norm
        told = tuple(_plain(getattr(self.layer, name)) for name in self._product.arguments)
        return told if given is None else (*told, given.eps)

    def _make(self, dtype: torch.dtype, activated: bool) -> Any:
        layer: Any = self.layer
        weight, bias = self._parameters(dtype)
        arguments = {name: _plain(getattr(layer, name)) for name in self._product.arguments}
        return self._product.make(
            weight, bias, **arguments, activation=self._epilogue(dtype, bias, weight, activated)
        )

    def _epilogue(self, dtype: torch.dtype, bias: Any, weight: Any, activated: bool) -> Any:
        if not activated or self.activation is None:
            return None
        name, number, slopes = self.activation
        if slopes is None:
            return name if number is None else (name, number)
        layer: Any = self.layer
        channels = layer.weight.shape[0]
        if self._product.transposed:
            channels = layer.weight.shape[1] * layer.groups
        values = slopes.weight.detach().to(dtype).expand(channels).contiguous()
        return "prelu", array_of("activation", values)

    def _parameters(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """Return weight and bias as arrays, the norm folded into them."""
        layer: Any = self.layer
        weight, bias = layer.weight.detach(), layer.bias
        if self.norm is not None:
            weight, bias = self._folded(weight, bias)
        offset = None if bias is None else array_of("bias", bias.detach().to(dtype))
        return array_of("weight", weight.detach().to(dtype)), offset

    def _folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the layer and its norm, in float64."""
        given: Any = self.norm
        layer: Any = self.layer
        filters, groups = weight.double(), 1
        if self._product.transposed:  # channels of outputs first, as folding wants them
            groups = int(layer.groups)
            filters = _regrouped(filters, groups)
        folded, offset = map(
            torch.from_numpy,
            fold_batch_norm(
                filters, bias, given.running_mean, given.running_var, given.weight, given.bias,
                given.eps,
            ),
        )  # fmt: skip
        if self._product.transposed:
            folded = _regrouped(folded, groups)
        return folded, offset


def _regrouped(weight: Tensor, groups: int) -> Tensor:
    """Return a weight whose first axis is that of the other end, group by group."""
    rest = weight.shape[1:]
    return (
        weight.reshape(groups, -1, *rest).transpose(1, 2).reshape(groups * rest[0], -1, *rest[1:])
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
