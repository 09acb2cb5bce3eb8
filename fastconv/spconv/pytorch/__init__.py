"""spconv's modules for PyTorch, computed by fastconv on the CPU.

Networks written for spconv run with another import. Sums are taken in the same order for any number
of threads, so results and gradients are the same bits.

Examples
--------
>>> import torch, fastconv.spconv.pytorch as spconv
>>> net = spconv.SparseSequential(
...     spconv.SubMConv3d(4, 16, 3, indice_key="subm1"),
...     torch.nn.ReLU(),
...     spconv.SparseConv3d(16, 32, 3, stride=2, padding=1),
...     spconv.ToDense(),
... )
>>> sites = torch.tensor([[0, 1, 2, 3], [0, 5, 4, 4]], dtype=torch.int32)
>>> net(spconv.SparseConvTensor(torch.ones(2, 4), sites, [8, 8, 8], 1)).shape
torch.Size([1, 32, 4, 4, 4])
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - the modules below need it; here its absence is told of
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "fastconv.spconv.pytorch needs torch, which is not installed: "
        "pip install 'fastconv[torch]'",
        name="torch",
    ) from None

from . import functional, hash, ops, utils
from .activations import Activation
from .conv import (
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseConv4d,
    SparseConvTranspose1d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseConvTranspose4d,
    SparseInverseConv1d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SparseInverseConv4d,
    SubMConv1d,
    SubMConv2d,
    SubMConv3d,
    SubMConv4d,
)
from .core import ConvAlgo, SparseConvTensor
from .modules import (
    Identity,
    RemoveGrid,
    SparseBatchNorm,
    SparseIdentity,
    SparseModule,
    SparseReLU,
    SparseSequential,
    ToDense,
    assign_name_for_sparse_modules,
)
from .pool import (
    SparseAvgPool1d,
    SparseAvgPool2d,
    SparseAvgPool3d,
    SparseAvgPool4d,
    SparseGlobalAvgPool,
    SparseGlobalMaxPool,
    SparseMaxPool1d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseMaxPool4d,
)
from .tables import AddTable, ConcatTable, JoinTable
from .weights import load_state_dict

__all__ = [
    "Activation",
    "AddTable",
    "ConcatTable",
    "ConvAlgo",
    "Identity",
    "JoinTable",
    "RemoveGrid",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseAvgPool4d",
    "SparseBatchNorm",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTensor",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseIdentity",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
    "ToDense",
    "assign_name_for_sparse_modules",
    "functional",
    "hash",
    "load_state_dict",
    "ops",
    "utils",
]
