"""spconv's functions on tensors of the CPU: pairs of rows, and the layers that go by them.

spconv's modules look pairs up by name, and only submanifold layers may find them; called directly,
any layer can use pairs that are known. With more than one thread of PyTorch its results on a CPU
are wrong and differ from run to run, so callers set one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["convolve", "find_pairs", "invert", "max_pool"]


def find_pairs(
    indices: Any,
    spatial_shape: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    submanifold: bool,
) -> tuple[Any, Any, Any]:
    """Return the sites after, the pairs of rows, and how many each offset has.

    Parameters
    ----------
    indices : tensor of int32, shape (rows, 4)
        Batch (0), then one index an axis.
    spatial_shape, kernel_size, stride, padding : tuple of int
        One entry an axis.
    submanifold : bool
        Whether outputs are at the inputs' sites.
    """
    from spconv.core import ConvAlgo
    from spconv.pytorch import ops

    sizes = [list(size) for size in (kernel_size, stride, padding)]
    pairs: tuple[Any, Any, Any] = ops.get_indice_pairs(
        indices, 1, list(spatial_shape), ConvAlgo.Native, *sizes, [1, 1, 1], [0, 0, 0], submanifold
    )
    return pairs


def convolve(x: Any, weight: Any, indice_pairs: tuple[Any, Any, Any], submanifold: bool) -> Any:
    """Return the features at the sites after; `weight` is ``(K, *kernel_size, C)``."""
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional

    out, pairs, counts = indice_pairs
    conv = functional.indice_subm_conv if submanifold else functional.indice_conv
    return conv(x, weight, pairs, counts, len(out), ConvAlgo.Native)


def invert(x: Any, weight: Any, indice_pairs: tuple[Any, Any, Any], rows: int) -> Any:
    """Return the features at the `rows` sites before, by the pairs that led from them."""
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional

    _, pairs, counts = indice_pairs
    return functional.indice_inverse_conv(x, weight, pairs, counts, rows, ConvAlgo.Native)


def max_pool(x: Any, indice_pairs: tuple[Any, Any, Any]) -> Any:
    """Return the largest features of each window; those below 0 count as 0."""
    from spconv.pytorch import functional

    out, pairs, counts = indice_pairs
    return functional.indice_maxpool(x, pairs, counts, len(out))
