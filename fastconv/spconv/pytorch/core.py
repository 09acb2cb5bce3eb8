"""The tensor of spconv: features and sites as tensors, rulebooks by `indice_key`.

Sites are checked once and then kept as fastconv's; they become a tensor when somebody asks for one.
Whoever holds that tensor may write to it, so its content is compared wherever sites are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch

from ...contract.arguments import whole_number
from ...contract.errors import DTypeError, ShapeError
from ...sparse.frozen import same_memory
from ...sparse.rulebook import Rulebook
from ...sparse.sites import check_sites, check_unique
from ...sparse.tensor import SparseTensor, trusted_tensor
from .arrays import array_of, eager
from .pair_tables import pairs_of

__all__ = ["ConvAlgo", "IndiceData", "Sites", "SparseConvTensor", "expand_nd"]


class ConvAlgo(Enum):
    """Ways to compute that spconv has on a GPU; here kernels are chosen by `fastconv`."""

    Native = 0
    MaskImplicitGemm = 1
    MaskSplitImplicitGemm = 2


def expand_nd(name: str, ndim: int, value: Any, least: int = 1) -> list[int]:
    """Return one whole number an axis, of one for all or of a sequence.

    Raises
    ------
    ShapeError
        For others, and for numbers below `least`; it names the argument.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        given = [value] * ndim
    else:
        given = list(value)
    if len(given) != ndim:
        raise ShapeError(f"{name}: got {value!r}, want {ndim} whole numbers, or one for all axes")
    numbers = [whole_number(name, each) for each in given]
    if min(numbers) < least:
        raise ShapeError(f"{name}: got {value!r}, want at least {least}")
    return numbers


class Sites:
    """Sites as a tensor, as fastconv's, or both; shared by the tensors over them.

    Parameters
    ----------
    tensor : torch.Tensor, optional
        As a caller gave them.
    known : SparseTensor, optional
        As a layer made them; its features do not matter.
    """

    __slots__ = ("_known", "_tensor")

    def __init__(
        self, tensor: torch.Tensor | None = None, known: SparseTensor | None = None
    ) -> None:
        self._tensor = tensor
        self._known = known

    @property
    def tensor(self) -> torch.Tensor:
        """The sites as a tensor, (rows, 1 + ndim) int32."""
        if self._tensor is None:
            assert self._known is not None
            self._tensor = torch.from_numpy(np.array(self._known._indices))
        return self._tensor

    def __len__(self) -> int:
        return len(self.tensor if self._known is None else self._known)

    def checked(self, shape: tuple[int, ...], batch_size: int) -> SparseTensor:
        """Return the sites as fastconv's, checked for a grid where they have not been."""
        known = self._known
        given = None if self._tensor is None else array_of("indices", self._tensor)
        if (
            known is not None
            and (known.spatial_shape, known.batch_size) == (shape, batch_size)
            and (given is None or np.array_equal(given, known._indices))
        ):
            return known
        if given is None:
            assert known is not None
            given = known._indices
        sites, count = check_sites(given, shape, batch_size)
        check_unique("indices", sites, shape, count)
        nothing = np.empty((len(sites), 0), np.float32)
        self._known = trusted_tensor(nothing, sites, shape, count)
        return self._known


class IndiceData:
    """A rulebook by the names of spconv: which rows before and after an operator meet.

    Parameters
    ----------
    rulebook : fastconv.sparse.Rulebook
        That of the operator.
    algo : ConvAlgo or None
        As the layer was given it.
    before, after : Sites
        The sites that it joins.
    """

    def __init__(
        self, rulebook: Rulebook, algo: ConvAlgo | None, before: Sites, after: Sites
    ) -> None:
        self.rulebook = rulebook
        self.algo = algo
        self.before = before
        self.after = after

    @property
    def indices(self) -> torch.Tensor:
        """Sites before."""
        return self.before.tensor

    @property
    def out_indices(self) -> torch.Tensor:
        """Sites after."""
        return self.after.tensor

    @property
    def spatial_shape(self) -> list[int]:
        """Shape of the grid before."""
        return list(self.rulebook.in_shape)

    @property
    def out_spatial_shape(self) -> list[int]:
        """Shape of the grid after."""
        return list(self.rulebook.out_shape)

    @property
    def is_subm(self) -> bool:
        """Whether sites stay."""
        return self.rulebook.geometry.kind == "submanifold"

    @property
    def ksize(self) -> list[int]:
        """Kernel size."""
        return list(self.rulebook.geometry.kernel_size)

    @property
    def stride(self) -> list[int]:
        """Step between output positions."""
        return list(self.rulebook.geometry.stride)

    @property
    def dilation(self) -> list[int]:
        """Step between the taps of the kernel."""
        return list(self.rulebook.geometry.dilation)

    @property
    def padding(self) -> list[int]:
        """Positions around the grid, at its low side."""
        return [low for low, _ in self.rulebook.geometry.padding]

    @property
    def indice_pair_num(self) -> torch.Tensor:
        """Pairs of each offset, (volume,) int32."""
        return torch.from_numpy(np.array(self.rulebook.counts, np.int32))

    @property
    def indice_pairs(self) -> torch.Tensor:
        """Rows before and after that meet, (2, volume, rows before) int32, -1 behind the last."""
        return pairs_of(self.rulebook)


class SparseConvTensor:
    """Features at the active sites of a batch of grids.

    Parameters
    ----------
    features : torch.Tensor, shape (rows, C)
        On the CPU; float32, float64, float16 or bfloat16.
    indices : torch.Tensor, shape (rows, 1 + ndim)
        The sites: number in the batch, then one index a spatial axis; each once.
    spatial_shape : sequence of int
        Shape of the grid.
    batch_size : int
        Number of grids.
    grid, voxel_num, benchmark, permanent_thrust_allocator, enable_timer, force_algo
        As spconv has them for a GPU: kept, without an effect.
    indice_dict : dict, optional
        Rulebooks by `indice_key`.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        For tensors that do not fit; sites are looked at by the first layer that needs them.

    Examples
    --------
    >>> features, sites = torch.ones(2, 3), torch.tensor([[0, 1, 1], [0, 4, 7]], dtype=torch.int32)
    >>> x = SparseConvTensor(features, sites, [8, 8], 1)
    >>> x.replace_feature(2 * x.features).dense().shape
    torch.Size([1, 3, 8, 8])
    """

    @eager
    def __init__(
        self,
        features: torch.Tensor,
        indices: torch.Tensor,
        spatial_shape: Sequence[int] | np.ndarray[Any, Any],
        batch_size: int,
        grid: torch.Tensor | None = None,
        voxel_num: torch.Tensor | None = None,
        indice_dict: dict[str, IndiceData] | None = None,
        benchmark: bool = False,
        permanent_thrust_allocator: bool = False,
        enable_timer: bool = False,
        force_algo: ConvAlgo | None = None,
    ) -> None:
        if array_of("features", features).ndim != 2:
            raise ShapeError(f"features: got shape {tuple(features.shape)}, want (rows, channels)")
        self._features = features
        self.indices = indices
        self.spatial_shape = [whole_number("spatial_shape", size) for size in spatial_shape]
        if len(self.spatial_shape) != self.indices.shape[1] - 1:
            raise ShapeError(
                f"spatial_shape: got {self.spatial_shape}, want {indices.shape[1] - 1} axes as "
                "indices has columns behind the batch's"
            )
        self.batch_size = whole_number("batch_size", batch_size)
        self.grid = grid
        self.voxel_num = voxel_num
        self.indice_dict: dict[str, IndiceData] = {} if indice_dict is None else indice_dict
        self.benchmark = benchmark
        self.benchmark_record: dict[str, Any] = {}
        self.force_algo = force_algo

    def _over(
        self, features: torch.Tensor, sites: Sites, shape: Sequence[int],
        indice_dict: dict[str, IndiceData],
    ) -> SparseConvTensor:  # fmt: skip
        """Return a tensor that differs from this one in what is given; nothing is checked."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._features, made._sites = features, sites
        made.spatial_shape, made.indice_dict = list(shape), indice_dict
        return made

    def __repr__(self) -> str:
        return f"SparseConvTensor[shape={self._features.shape}]"

    @property
    def features(self) -> torch.Tensor:
        """The features, (rows, C)."""
        return self._features

    @features.setter
    def features(self, value: torch.Tensor) -> None:
        raise ValueError("features: they cannot be set, want x = x.replace_feature(features)")

    @property
    def indices(self) -> torch.Tensor:
        """The sites, (rows, 1 + ndim) int32."""
        return self._sites.tensor

    @indices.setter
    def indices(self, value: torch.Tensor) -> None:
        given = array_of("indices", value)
        if given.dtype != np.int32:
            raise DTypeError(f"indices: got {value.dtype}, want torch.int32")
        if given.ndim != 2:
            raise ShapeError(f"indices: got shape {tuple(value.shape)}, want (rows, 1 + axes)")
        self._sites = Sites(value)

    @property
    def checked_sites(self) -> SparseTensor:
        """The sites as fastconv's; features are not in it."""
        sites = self._sites.checked(tuple(self.spatial_shape), self.batch_size)
        if len(sites) != self._features.shape[0]:
            raise ShapeError(
                f"features: got {self._features.shape[0]} rows, want {len(sites)} as there are "
                "sites"
            )
        return sites

    @property
    def spatial_size(self) -> int:
        """Number of sites of a grid, active or not."""
        return int(np.prod(self.spatial_shape, dtype=np.int64))

    @property
    def is_quantized(self) -> bool:
        """Whether features are quantized, which they never are here."""
        return False

    def find_indice_pair(self, key: str | None) -> IndiceData | None:
        """Return the rulebook of a name, None where there is none."""
        return None if key is None else self.indice_dict.get(key)

    @eager
    def replace_feature(self, feature: torch.Tensor) -> SparseConvTensor:
        """Return a tensor with other features at the same sites."""
        array_of("feature", feature)
        return self._over(feature, self._sites, self.spatial_shape, self.indice_dict)

    def shadow_copy(self) -> SparseConvTensor:
        """Return a tensor over the same features and sites."""
        return self._over(self._features, self._sites, self.spatial_shape, self.indice_dict)

    def select_by_index(self, valid_indices: torch.Tensor) -> SparseConvTensor:
        """Return the rows that an index or a mask names; rulebooks are left behind."""
        sites = Sites(self.indices[valid_indices])
        return self._over(self._features[valid_indices], sites, self.spatial_shape, {})

    @classmethod
    def from_dense(cls, x: torch.Tensor) -> SparseConvTensor:
        """Return the sites of an (N, *spatial, C) tensor at which any channel is not zero.

        Examples
        --------
        >>> x = torch.zeros(1, 4, 4, 2)
        >>> x[0, 2, 3, 1] = 5
        >>> SparseConvTensor.from_dense(x).indices
        tensor([[0, 2, 3]], dtype=torch.int32)
        """
        sites = torch.nonzero((x.detach() != 0).any(dim=-1))
        features = x[tuple(sites.T)]
        return cls(features, sites.int(), list(x.shape[1:-1]), x.shape[0])

    @eager
    def dense(self, channels_first: bool = True) -> torch.Tensor:
        """Return the grids as a tensor, 0 where no site is active.

        Parameters
        ----------
        channels_first : bool
            (N, C, *spatial), or else (N, *spatial, C).
        """
        sites = torch.from_numpy(np.array(self.checked_sites._indices.T, np.int64))
        channels = self._features.shape[1]
        if channels_first:
            made = self._features.new_zeros((self.batch_size, channels, *self.spatial_shape))
            made[(sites[0], slice(None), *sites[1:])] = self._features
            return made
        made = self._features.new_zeros((self.batch_size, *self.spatial_shape, channels))
        made[tuple(sites)] = self._features
        return made

    def minus(self) -> SparseConvTensor:
        """Return the tensor with the opposite features."""
        return self.replace_feature(-self._features)

    @eager
    def _same_sites(self, other: SparseConvTensor) -> bool:
        mine, theirs = self.checked_sites, other.checked_sites
        if mine.spatial_shape != theirs.spatial_shape or mine.batch_size != theirs.batch_size:
            return False
        return same_memory(mine._indices, theirs._indices) or np.array_equal(
            mine._indices, theirs._indices
        )

    def __neg__(self) -> SparseConvTensor:
        return self.minus()

    def __add__(self, other: Any) -> SparseConvTensor:
        if not isinstance(other, SparseConvTensor):
            return self.replace_feature(self._features + other)
        if self._same_sites(other):
            return self.replace_feature(self._features + other._features)
        from .functional import sparse_add

        return sparse_add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> SparseConvTensor:
        return self + (-other)

    def __mul__(self, other: Any) -> SparseConvTensor:
        if not isinstance(other, SparseConvTensor):
            return self.replace_feature(self._features * other)
        if self._same_sites(other):
            return self.replace_feature(self._features * other._features)
        from .functional import sparse_multiply

        return sparse_multiply(self, other)

    __rmul__ = __mul__
