"""Frozen records of measured numbers, cheap to define.

A dataclass of a dozen fields takes a millisecond to make, and a process would make fourteen before
its first call. These check their fields when one is made, which is once, and are compared by
identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """Tell a type checker how records are made, and nothing at run time."""
        return lambda made: made


__all__ = ["Fields"]


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False)
class Fields:
    """A record whose fields are the annotations of its class; each is given by its name.

    Examples
    --------
    >>> class Core(Fields):
    ...     clock: float
    >>> Core(clock=3.6e9).clock
    3600000000.0
    """

    def __init__(self, **values: Any) -> None:
        wanted, given = set(type(self).__annotations__), set(values)
        if wanted != given:
            raise TypeError(f"{type(self).__name__}: {sorted(wanted ^ given)} missing or unknown")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: a profile is frozen")
