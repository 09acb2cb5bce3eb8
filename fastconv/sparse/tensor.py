"""Features at the active sites of a grid.

A `SparseTensor` is a value: its sites are checked when it is made and never change; features are
the caller's own and are looked at in each call. Rulebooks that its layers build are kept under
their `indice_key` in a dictionary that it shares with every tensor that is computed from it.
"""

from __future__ import annotations

import copy
import math
import reprlib
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..array_libraries import view_array, view_beside
from ..arrays import Array, beside, dtype_name, on_host, require_array, row_major, unwrap
from ..contract.arguments import per_axis, whole_number
from ..contract.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from ..contract.geometry import is_word
from ..device_arrays import DeviceArray
from .frozen import freeze, restored, shown, stored
from .rulebook import Rulebook, require_rulebook
from .rulebook_checks import as_integers
from .sites import DUPLICATES, check_sites, join_duplicates

__all__ = ["SparseTensor", "derived_tensor", "require_features", "trusted_tensor"]

_MOST_AXES = 4
#: Most bytes of a dense grid: what an address of 48 bits reaches.
_MOST_BYTES = 2**47


class SparseTensor:
    """Features at the active sites of a batch of grids with 1 to 4 spatial axes.

    Parameters
    ----------
    features : array, shape (rows, C)
        One row for each site, of NumPy, CuPy or PyTorch (CUDA); float32, float64, float16 or
        bfloat16, of any strides.
    indices : array, shape (rows, 1 + ndim)
        The sites: number in the batch, then one index a spatial axis. Any integer type and strides;
        kept as an int32 copy.
    spatial_shape : sequence of int
        Shape of the grid.
    batch_size : int, optional
        Number of grids; by default the lowest that holds all sites.
    duplicates : {"error", "sum", "mean", "max", "first"}
        What to do about a site that comes more than once. Where rows were joined, those of the
        tensor are sorted by site (batch first, last axis fastest).

    Raises
    ------
    ShapeError
        For sites outside the grid or the batch, or (by default) given twice; for lengths that
        differ, and for a grid whose sites cannot be counted in 64 bits.
    DTypeError
        For features that are no floats, or indices that are no integers.
    DeviceError
        For arrays on different devices or of different libraries.

    Notes
    -----
    Sites on a GPU are checked on the host, once.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.sparse import SparseTensor
    >>> x = SparseTensor(np.ones((2, 3), np.float32), [[0, 1, 1], [0, 4, 7]], (8, 8))
    >>> x
    SparseTensor(2 sites of 1 x 8x8 (3.12%), 3 channels, float32, NumPy)
    >>> x.dense().shape
    (1, 3, 8, 8)
    """

    __slots__ = ("__weakref__", "_batch_size", "_features", "_indices", "_rulebooks",
                 "_spatial_shape")  # fmt: skip

    def __init__(
        self,
        features: Array,
        indices: Array | Sequence[Sequence[int]],
        spatial_shape: Sequence[int],
        batch_size: int | None = None,
        duplicates: str = "error",
    ) -> None:
        rows = require_features("features", view_array("features", features) or features)
        if isinstance(rows, DeviceArray):
            given = view_beside("indices", indices, "features", rows).to_host()
        elif view_array("indices", indices) is not None:
            raise DeviceError("indices: got an array on a GPU, want NumPy's as the features are")
        else:
            given = as_integers("indices", indices)
        shape = _spatial_shape(spatial_shape)
        if given.size == 0 and not isinstance(indices, np.ndarray):
            given = given.reshape(0, 1 + len(shape)).astype(np.int32)  # an empty list has no type
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size)
        if not is_word(duplicates, DUPLICATES):
            raise ArgumentError(
                f"duplicates: got {duplicates!r}, want one of {', '.join(map(repr, DUPLICATES))}"
            )
        sites, count = check_sites(given, shape, batch_size)
        if len(sites) != rows.shape[0]:
            raise ShapeError(
                f"indices: got {len(sites)} rows, want {rows.shape[0]} as the features have"
            )
        joined = join_duplicates(rows, sites, shape, count, duplicates)
        if joined is not None:
            rows, sites = beside(rows, joined[0]), freeze(joined[1])
        self._set(row_major(rows), beside(rows, sites), shape, count, {})

    def _set(
        self, features: Array, indices: Array, spatial_shape: tuple[int, ...], batch_size: int,
        rulebooks: dict[str, Rulebook],
    ) -> None:  # fmt: skip
        self._features = features
        self._indices = indices
        self._spatial_shape = spatial_shape
        self._batch_size = batch_size
        self._rulebooks = rulebooks

    def __copy__(self) -> SparseTensor:
        return derived_tensor(self, self._features)

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseTensor:
        made = derived_tensor(self, self._features.copy())
        made._rulebooks = copy.deepcopy(self._rulebooks, memo)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        features = unwrap(self._features)
        return _restore, (
            features, stored(self._indices), self._spatial_shape, self._batch_size, self._rulebooks,
        )  # fmt: skip

    @classmethod
    def from_dense(cls, x: Array) -> SparseTensor:
        """Return the sites of a dense array at which any channel is not zero.

        Parameters
        ----------
        x : array, shape (N, C, *spatial)
            With 1 to 4 spatial axes.

        Examples
        --------
        >>> import numpy as np
        >>> x = np.zeros((1, 2, 4, 4), np.float32)
        >>> x[0, 1, 2, 3] = 5
        >>> SparseTensor.from_dense(x).indices
        array([[0, 2, 3]], dtype=int32)
        """
        view = require_array("x", view_array("x", x) or x)
        if not 3 <= view.ndim <= 2 + _MOST_AXES:
            raise ShapeError(
                f"x: got {view.ndim} axes {view.shape}, want 3 to {2 + _MOST_AXES} (batch, "
                "channels, spatial axes)"
            )
        dense = np.moveaxis(on_host(view), 1, -1)
        sites = np.argwhere((dense != 0).any(axis=-1))
        features = beside(view, np.ascontiguousarray(dense[tuple(sites.T)]))
        return cls(
            unwrap(features),
            unwrap(beside(view, sites)),
            dense.shape[1:-1],
            dense.shape[0],
        )

    @classmethod
    def from_points(
        cls,
        points: Array | Sequence[Array],
        voxel_size: float | Sequence[float],
        range: Sequence[float] | Sequence[Sequence[float]] | None = None,
        reduce: str = "mean",
    ) -> SparseTensor:
        """Return the voxels that points fall into; see `fastconv.sparse.voxels.voxelize`.

        Parameters
        ----------
        points : ndarray, shape (P, ndim + extra), or a list of them
            Coordinates and further values of each point; a list is a batch.
        voxel_size : sequence of float, or float beside a range
            Size of a voxel on each axis; one number serves all axes of `range`.
        range, reduce
            As for `fastconv.sparse.voxels.voxelize`.

        Examples
        --------
        >>> import numpy as np
        >>> points = np.float32([[0.1, 0.2, 7], [0.3, 0.1, 9], [1.7, 0.4, 5]])
        >>> SparseTensor.from_points(points, 0.5, ((0, 0), (2, 1))).features[:, 2]
        array([8., 5.], dtype=float32)
        """
        from .voxels import voxelize

        features, indices, spatial_shape = voxelize(points, voxel_size, range, reduce)
        batch_size = len(points) if isinstance(points, (list, tuple)) else 1
        return trusted_tensor(features, freeze(indices), spatial_shape, batch_size)

    @property
    def feature_array(self) -> Array:
        """The features as kernels see them: a NumPy array or a `DeviceArray`."""
        return self._features

    @property
    def features(self) -> Any:
        """The features, shape (rows, C), row-major and of the kind that was given."""
        return unwrap(self._features)

    @property
    def indices(self) -> Any:
        """The sites, shape (rows, 1 + ndim), int32: read-only where NumPy's, on a GPU a copy."""
        if isinstance(self._indices, DeviceArray):
            return unwrap(self._indices.copy())
        return shown(self._indices)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape of the grid."""
        return self._spatial_shape

    @property
    def batch_size(self) -> int:
        """Number of grids."""
        return self._batch_size

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self._spatial_shape)

    @property
    def channels(self) -> int:
        """Number of features of a site."""
        return int(self.feature_array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the features."""
        return self.feature_array.dtype

    @property
    def rulebooks(self) -> MappingProxyType[str, Rulebook]:
        """The rulebooks that layers have named, by `indice_key`."""
        return MappingProxyType(self._rulebooks)

    def keep(self, indice_key: str, rulebook: Rulebook) -> Rulebook:
        """Name a rulebook, and return the one of that name, which another thread may have made."""
        return self._rulebooks.setdefault(require_key(indice_key), require_rulebook(rulebook))

    def __len__(self) -> int:
        return int(self._indices.shape[0])

    def __repr__(self) -> str:
        grid = f"{self._batch_size} x {'x'.join(map(str, self._spatial_shape))}"
        total = self._batch_size * np.prod(self._spatial_shape, dtype=float)
        rows = self.feature_array
        where = rows.library.name if isinstance(rows, DeviceArray) else "NumPy"
        dtype = dtype_name("features", self.dtype)
        return (
            f"SparseTensor({len(self)} sites of {grid} ({100 * len(self) / total:.3g}%), "
            f"{self.channels} channels, {dtype}, {where})"
        )

    def replace(self, features: Array) -> SparseTensor:
        """Return a tensor with other features at the same sites, which shares the rulebooks.

        Parameters
        ----------
        features : array, shape (rows, C)
            Of the kind that this tensor's are, with any number of channels.

        Examples
        --------
        >>> import numpy as np
        >>> x = SparseTensor(np.ones((1, 3), np.float32), [[0, 4]], (8,))
        >>> x.replace(x.features[:, :2]).channels
        2
        """
        if isinstance(self._features, DeviceArray):
            rows: Array = view_beside("features", features, "tensor", self._features)
        else:
            rows = features
        require_features("features", rows)
        if rows.shape[0] != len(self):
            raise ShapeError(
                f"features: got {rows.shape[0]} rows, want {len(self)} as the tensor has sites"
            )
        return derived_tensor(self, row_major(rows))

    def dense(self) -> Any:
        """Return the grids as a dense array, shape (N, C, *spatial), 0 where no site is active."""
        shape = (self._batch_size, self.channels, *self._spatial_shape)
        size = math.prod(shape) * self.dtype.itemsize
        if size > _MOST_BYTES:
            raise ShapeError(
                f"spatial_shape: got {self._spatial_shape}, a dense array of shape {shape} and "
                f"{size} bytes, want at most {_MOST_BYTES}"
            )
        sites = tuple(on_host(self._indices).T)
        made = np.zeros(shape, self.dtype)
        made[(sites[0], slice(None), *sites[1:])] = on_host(self._features)
        return unwrap(beside(self._features, made))


def derived_tensor(
    x: SparseTensor, features: Array, indices: Array | None = None,
    spatial_shape: tuple[int, ...] | None = None,
) -> SparseTensor:  # fmt: skip
    """Return a tensor that shares another's batch and rulebooks; nothing is checked.

    Parameters
    ----------
    x : SparseTensor
        The other one.
    features : (rows, C) ndarray or DeviceArray
        Row-major.
    indices : (rows, 1 + ndim) int32 ndarray or DeviceArray, optional
        Other sites, of a rulebook.
    spatial_shape : tuple of int, optional
        Of the grid that they are in.
    """
    made = object.__new__(SparseTensor)
    made._set(
        features,
        x._indices if indices is None else indices,
        x._spatial_shape if spatial_shape is None else spatial_shape,
        x._batch_size,
        x._rulebooks,
    )
    return made


def trusted_tensor(
    features: Array, indices: Array, spatial_shape: tuple[int, ...], batch_size: int
) -> SparseTensor:
    """Return a tensor of frozen sites that the library has made; nothing is checked."""
    made = object.__new__(SparseTensor)
    made._set(features, indices, spatial_shape, batch_size, {})
    return made


def _restore(
    features: Any, indices: Any, spatial_shape: Any, batch_size: Any, rulebooks: dict[str, Rulebook]
) -> SparseTensor:
    """Return a tensor out of a pickle, checked as any other; copies share their rulebooks."""
    made = SparseTensor(features, restored(indices), spatial_shape, batch_size)
    for key, rulebook in rulebooks.items():
        require_key(key)
        require_rulebook(rulebook)
    made._rulebooks = rulebooks
    return made


def require_key(value: Any) -> str:
    """Return the name of a rulebook if it is one, else raise."""
    if not isinstance(value, str):
        raise DTypeError(f"indice_key: got {type(value).__name__}, want a str")
    return value


def require_features(name: str, value: Any) -> Array:
    """Return an array of features, else raise."""
    array = require_array(name, value)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ShapeError(f"{name}: got shape {array.shape}, want (rows, at least 1 channel)")
    return array


def _spatial_shape(value: Any) -> tuple[int, ...]:
    is_list = isinstance(value, (Sequence, np.ndarray)) and getattr(value, "ndim", 1) == 1
    shape = tuple(value) if is_list else value
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= _MOST_AXES:
        raise ShapeError(
            f"spatial_shape: got {reprlib.repr(value)}, want 1 to {_MOST_AXES} whole numbers"
        )
    return per_axis("spatial_shape", shape, len(shape))
