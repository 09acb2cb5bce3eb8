"""A table from whole numbers to numbers, by spconv's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...contract.errors import DeviceError, DTypeError, ShapeError
from .arrays import array_of, eager, tensor_of

__all__ = ["HashTable"]

Tensor = torch.Tensor
_KEYS = torch.int32, torch.int64
_VALUES = torch.int32, torch.int64, torch.float32, torch.float64


class HashTable:
    """Values by key, kept sorted by key, which spconv leaves open.

    Parameters
    ----------
    device : torch.device
        The CPU.
    key_dtype : torch.dtype
        int32 or int64.
    value_dtype : torch.dtype
        int32, int64, float32 or float64.
    max_size : int
        Without an effect: the table grows.

    Raises
    ------
    DeviceError, DTypeError
        For another device or other types.

    Examples
    --------
    >>> table = HashTable(torch.device("cpu"), torch.int32, torch.int64)
    >>> table.insert(torch.tensor([5, 3], dtype=torch.int32), torch.tensor([50, 30]))
    >>> values, is_missing = table.query(torch.tensor([3, 4], dtype=torch.int32))
    >>> values[0].item(), is_missing.tolist()
    (30, [False, True])
    """

    def __init__(
        self, device: torch.device | str, key_dtype: torch.dtype, value_dtype: torch.dtype,
        max_size: int = -1,
    ) -> None:  # fmt: skip
        if torch.device(device).type != "cpu":
            raise DeviceError(f"device: got {device}, want the CPU, where fastconv.spconv computes")
        if key_dtype not in _KEYS:
            raise DTypeError(f"key_dtype: got {key_dtype}, want torch.int32 or torch.int64")
        if value_dtype not in _VALUES:
            names = ", ".join(map(str, _VALUES))
            raise DTypeError(f"value_dtype: got {value_dtype}, want one of {names}")
        self.key_dtype, self.value_dtype = key_dtype, value_dtype
        self._keys: Any = torch.empty(0, dtype=key_dtype).numpy()
        self._held: Any = torch.empty(0, dtype=value_dtype).numpy()

    @eager
    def insert(self, keys: Tensor, values: Tensor | None = None) -> None:
        """Put values at keys, 0 where there are none; of equal keys the last one's stays."""
        new = self._checked("keys", keys, self.key_dtype)
        held = np.zeros(len(new), self._held.dtype)
        if values is not None:
            held = self._checked("values", values, self.value_dtype, len(new))
        both = np.concatenate([self._keys, new])[::-1]
        self._keys, last = np.unique(both, return_index=True)
        self._held = np.concatenate([self._held, held])[::-1][last]

    @eager
    def query(self, keys: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the values of keys, and which keys are missing, whose values mean nothing.

        Parameters
        ----------
        keys : torch.Tensor, shape (count,)
            Of the table's type.
        values : torch.Tensor, shape (count,), optional
            Where the values are written.
        """
        places, is_missing = self._places(keys)
        if values is None:
            values = torch.zeros(len(places), dtype=self.value_dtype)
        made = self._checked("values", values, self.value_dtype, len(places))
        made[~is_missing] = self._held[places[~is_missing]]
        return values, torch.from_numpy(is_missing)

    @eager
    def insert_exist_keys(self, keys: Tensor, values: Tensor) -> Tensor:
        """Put values at those keys that are there; return 1 for each that is not, as uint8."""
        places, is_missing = self._places(keys)
        held = self._checked("values", values, self.value_dtype, len(places))
        self._held[places[~is_missing]] = held[~is_missing]
        return torch.from_numpy(is_missing.astype(np.uint8))

    def assign_arange_(self) -> Tensor:
        """Give the keys, in the order of `items`, the values 0, 1, ...; return how many there are.

        Raises
        ------
        DTypeError
            Where values are no whole numbers.
        """
        if self.value_dtype not in _KEYS:
            raise DTypeError(f"value_dtype: got {self.value_dtype}, want whole numbers to count")
        self._held = np.arange(len(self._keys), dtype=self._held.dtype)
        return torch.tensor([len(self._keys)])

    def items(self, max_size: int = -1) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, values, and how many there are, shape (1,) int64; `max_size` is a GPU's."""
        made = tensor_of(self._keys.copy()), tensor_of(self._held.copy())
        return *made, torch.tensor([len(self._keys)])

    def _places(self, keys: Tensor) -> tuple[Any, Any]:
        """Return where keys stand, and which are missing."""
        wanted = self._checked("keys", keys, self.key_dtype)
        places = np.searchsorted(self._keys, wanted)
        inside = np.minimum(places, max(0, len(self._keys) - 1))
        if len(self._keys) == 0:
            return places, np.ones(len(wanted), bool)
        return inside, self._keys[inside] != wanted

    @staticmethod
    def _checked(name: str, tensor: Tensor, dtype: torch.dtype, count: int | None = None) -> Any:
        array = array_of(name, tensor)
        if tensor.dtype != dtype:
            raise DTypeError(f"{name}: got {tensor.dtype}, want {dtype} as the table has")
        if array.ndim != 1 or (count is not None and len(array) != count):
            wanted = "one axis" if count is None else f"shape ({count},) as keys has"
            raise ShapeError(f"{name}: got shape {array.shape}, want {wanted}")
        return array
