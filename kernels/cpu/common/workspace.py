"""Scratch memory of one worker, laid out by named parts.

No compiler is imported here, so that the table of kernels can ask for sizes.
"""

from __future__ import annotations

from ..machine.lines import whole_lines

__all__ = ["Workspace"]


class Workspace:
    """Parts of a worker's memory, one behind the other in the order in which they are added.

    Every part begins at a cache line: no two parts share one, nor do two workers.

    Examples
    --------
    >>> parts = Workspace()
    >>> parts.add("panels", 100)
    >>> parts.add("sums", 64)
    >>> parts.fields
    {'panels_at': 0, 'sums_at': 128, 'worker_bytes': 192}
    """

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}
        self._end = 0

    def add(self, name: str, size: int) -> None:
        """Add a part of so many bytes."""
        self._starts[f"{name}_at"] = self._end
        self._end += whole_lines(size)

    @property
    def fields(self) -> dict[str, int]:
        """Where each part begins, by its name and ``_at``; ``worker_bytes`` is all of them."""
        return {**self._starts, "worker_bytes": self._end}
