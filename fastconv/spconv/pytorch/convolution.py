"""Sparse convolutions as modules of PyTorch: what all of them share.

Weights are (K, *kernel_size, C / groups), as spconv 2 stores them. Rulebooks go from layer to layer
under `indice_key`; a weight that comes again is remembered in the order that its kernel reads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ...contract.arguments import whole_number
from ...contract.errors import ArgumentError, DTypeError, ShapeError
from .activations import Activation, activate, activation_of
from .arrays import eager
from .autograd import convolve, multiply_matrix
from .core import ConvAlgo, SparseConvTensor, expand_nd
from .modules import SparseModule
from .rulebooks import Step, Window, step_back, step_to

__all__ = ["MAX_VOXELS", "SparseConvolution", "record_voxels"]

#: Buffer with the most sites that a layer with `record_voxel_count` has made.
MAX_VOXELS = "max_num_voxels_during_training"


def record_voxels(module: nn.Module, count: int) -> None:
    """Raise the recorded number of sites of a module that records it."""
    most = getattr(module, MAX_VOXELS, None)
    if most is not None:
        most.clamp_(min=count)


class SparseConvolution(SparseModule):
    """A sparse convolution of any kind; layers name the kind and the number of axes.

    Parameters
    ----------
    ndim : int
        Number of spatial axes, 1 to 4.
    in_channels, out_channels : int
        Channels before and after.
    kernel_size, stride, padding, dilation : int or sequence of int
        Of the window. A submanifold convolution reads kernel size and dilation alone, and a kernel
        of one tap with a stride of 1 is a product with a matrix, whose weight spconv reads as
        (C, K) whatever its shape says; so it is here.
        The grid after a transposed convolution counts the dilation, which spconv's leaves out.
    groups : int
        Independent groups of channels.
    bias : bool
        Whether a bias is added.
    subm, transposed, inverse : bool
        The kind; none of them is a convolution wherever the kernel reaches.
    output_padding : int or sequence of int
        Positions that a transposed convolution's grid has more at its high side.
    indice_key : str, optional
        Name of the rulebook.
    algo, fp32_accum, large_kernel_fast_algo, act_beta
        As spconv has them for a GPU: without an effect.
    record_voxel_count : bool
        Whether a buffer keeps the most sites that were made.
    act_type : Activation, optional
        What is applied last, in training too.
    act_alpha : float
        The slope of LeakyReLU below 0.
    name : str, optional
        Of the module.
    device, dtype
        Of the parameters.
    """

    def __init__(
        self, ndim: int, in_channels: int, out_channels: int, kernel_size: Any = 3,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        subm: bool = False, output_padding: Any = 0, transposed: bool = False,
        inverse: bool = False, indice_key: str | None = None, algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None, record_voxel_count: bool = False, act_type: Any = None,
        act_alpha: float = 0, act_beta: float = 0, large_kernel_fast_algo: bool = False,
        name: str | None = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(name=name)
        self.ndim = ndim
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = expand_nd("kernel_size", ndim, kernel_size)
        self.stride = expand_nd("stride", ndim, stride)
        self.padding = expand_nd("padding", ndim, padding, least=0)
        self.dilation = expand_nd("dilation", ndim, dilation)
        self.output_padding = expand_nd("output_padding", ndim, output_padding, least=0)
        self.groups = whole_number("groups", groups)
        self.subm, self.transposed, self.inverse = subm, transposed, inverse
        self.indice_key, self.algo, self.fp32_accum = indice_key, algo, fp32_accum
        self.record_voxel_count = record_voxel_count
        self.act_type, self.act_alpha = activation_of(act_type), float(act_alpha)
        self._check()
        is_point = math.prod(self.kernel_size) == 1
        self.conv1x1 = is_point and (subm or math.prod(self.stride) == 1) and self.groups == 1
        if self.conv1x1 and not subm and max(self.padding) > 0:
            raise ShapeError(f"padding: got {self.padding}, want 0 for a kernel of one tap")
        if record_voxel_count and not subm and not inverse:
            self.register_buffer(MAX_VOXELS, torch.zeros(1, dtype=torch.int32, device=device))
        shape = (out_channels, *self.kernel_size, in_channels // self.groups)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = (
            nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def _check(self) -> None:
        if min(self.in_channels, self.out_channels) < 1:
            raise ShapeError(
                f"in_channels, out_channels: got {self.in_channels} and {self.out_channels}, want "
                "at least 1"
            )
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(
                f"groups: got {self.groups}, want a divisor of in_channels={self.in_channels} and "
                f"of out_channels={self.out_channels}"
            )
        if self.inverse and self.indice_key is None:
            raise ArgumentError(
                "indice_key: got None, want the name that an earlier layer gave its rulebook"
            )

    def reset_parameters(self) -> None:
        """Draw weight and bias evenly from one over the root of the sums' length, as PyTorch's."""
        bound = 1 / math.sqrt(self.in_channels // self.groups * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Return the arguments that are not as they are by default."""
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        words.append(f"stride={self.stride}")
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            words += [f"{name}={value}"] if value != [usual] * self.ndim else []
        words += [f"groups={self.groups}"] if self.groups > 1 else []
        words += ["bias=False"] if self.bias is None else []
        words += [f"act={self.act_type.name}"] if self.act_type is not Activation.None_ else []
        words += [f"indice_key={self.indice_key!r}"] if self.indice_key else []
        return ", ".join(words)

    def is_inverseable(self) -> bool:
        """Whether a `SparseInverseConv` can lead back from behind the layer."""
        return self.indice_key is not None and not self.subm

    def get_max_num_voxels(self) -> torch.Tensor | None:
        """Return the most sites that were made, where that is recorded."""
        return getattr(self, MAX_VOXELS, None)

    @eager
    def forward(
        self, input: SparseConvTensor, add_input: SparseConvTensor | None = None
    ) -> SparseConvTensor:
        """Convolve, add the features of another tensor at the same sites, and activate."""
        self.check_input(input)
        if self.conv1x1:
            matrix = self.weight.view(self.in_channels, self.out_channels).t()
            made = input.replace_feature(multiply_matrix(input.features, matrix, self.bias))
        else:
            step = self.step(input)
            made = step.lead(
                convolve(input.features, self.weight, self.bias, step.rulebook, self.groups)
            )
            record_voxels(self, step.rulebook.out_rows)
        if add_input is not None:
            made = made.replace_feature(made.features + add_input.features)
        if self.act_type is Activation.None_:
            return made
        return made.replace_feature(activate(made.features, self.act_type, self.act_alpha))

    def check_input(self, x: Any) -> None:
        """Raise where a tensor is none for this layer."""
        if not isinstance(x, SparseConvTensor):
            raise DTypeError(f"input: got {type(x).__name__}, want a SparseConvTensor")
        if len(x.spatial_shape) != self.ndim:
            raise ShapeError(
                f"input: got {len(x.spatial_shape)} spatial axes, want {self.ndim} as the layer has"
            )
        if x.features.shape[1] != self.in_channels:
            raise ShapeError(
                f"input: got {x.features.shape[1]} channels, want in_channels={self.in_channels}"
            )

    def step(self, x: SparseConvTensor) -> Step:
        """Return the step from a tensor's sites to those after, by the layer's rulebook."""
        if self.inverse:
            return step_back(x, self.kernel_size, self.indice_key)
        kind = "submanifold" if self.subm else "transposed" if self.transposed else "regular"
        window = Window(
            self.kernel_size, self.stride, self.padding, self.dilation, self.output_padding
        )
        return step_to(x, kind, window, self.indice_key, self.algo)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Load a state dict, also one that was saved before sites were counted."""
        count = prefix + MAX_VOXELS
        if self.get_max_num_voxels() is not None and count not in state_dict:
            state_dict[count] = torch.zeros(1, dtype=torch.int32)
        super()._load_from_state_dict(state_dict, prefix, *others)
