"""Sparse convolution: features at the active sites of a grid, and nothing anywhere else.

Names are loaded when they are first used, the modules `grad`, `nn` and `voxels` too.

Examples
--------
>>> import numpy as np, fastconv
>>> x = fastconv.sparse.SparseTensor(np.ones((2, 4), "f4"), [[0, 1, 2], [0, 1, 3]], (8, 8))
>>> fastconv.sparse.subm_conv(x, np.ones((16, 4, 3, 3), "f4"), indice_key="block1")
SparseTensor(2 sites of 1 x 8x8 (3.12%), 16 channels, float32, NumPy)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..contract import first_use

if TYPE_CHECKING:
    from ..contract.geometry import Geometry
    from ..contract.sparse_problem import SparseProblem
    from . import grad, nn, voxels
    from .functional import (
        global_avg_pool,
        global_max_pool,
        make_rulebook,
        sparse_avg_pool,
        sparse_conv,
        sparse_conv_transpose,
        sparse_inverse_conv,
        sparse_max_pool,
        subm_conv,
    )
    from .parts import crop, join_batch, prune, split_batch
    from .rulebook import Rulebook
    from .sets import add, concat, multiply, subtract, union
    from .tensor import SparseTensor

_MODULES = ("grad", "nn", "voxels")
_HOME = {
    "Geometry": "contract.geometry",
    "Rulebook": "sparse.rulebook",
    "SparseProblem": "contract.sparse_problem",
    "SparseTensor": "sparse.tensor",
    "add": "sparse.sets",
    "concat": "sparse.sets",
    "crop": "sparse.parts",
    "global_avg_pool": "sparse.functional",
    "global_max_pool": "sparse.functional",
    "join_batch": "sparse.parts",
    "make_rulebook": "sparse.functional",
    "multiply": "sparse.sets",
    "prune": "sparse.parts",
    "sparse_avg_pool": "sparse.functional",
    "sparse_conv": "sparse.functional",
    "sparse_conv_transpose": "sparse.functional",
    "sparse_inverse_conv": "sparse.functional",
    "sparse_max_pool": "sparse.functional",
    "split_batch": "sparse.parts",
    "subm_conv": "sparse.functional",
    "subtract": "sparse.sets",
    "union": "sparse.sets",
}

__all__ = [
    "Geometry",
    "Rulebook",
    "SparseProblem",
    "SparseTensor",
    "add",
    "concat",
    "crop",
    "global_avg_pool",
    "global_max_pool",
    "grad",
    "join_batch",
    "make_rulebook",
    "multiply",
    "nn",
    "prune",
    "sparse_avg_pool",
    "sparse_conv",
    "sparse_conv_transpose",
    "sparse_inverse_conv",
    "sparse_max_pool",
    "split_batch",
    "subm_conv",
    "subtract",
    "union",
    "voxels",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return first_use.load(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'fastconv.sparse' has no attribute {name!r}")
    value = getattr(first_use.load(f"fastconv.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME) | set(_MODULES))
