"""What the emulator raises: one class for each kind of fault that it can prove."""

from __future__ import annotations

__all__ = [
    "DivergentBarrierError",
    "EmulationError",
    "FailedAssertionError",
    "MisalignedError",
    "OutOfBoundsError",
    "RaceError",
    "RaisedError",
    "UninitialisedSharedError",
    "UnsupportedInstructionError",
]


class EmulationError(RuntimeError):
    """A kernel did, or asks for, something that the emulator cannot let pass."""


class RaisedError(EmulationError):
    """A kernel that is compiled with ``debug=True`` raised an exception."""


class FailedAssertionError(RaisedError, AssertionError):
    """An assertion of a kernel that is compiled with ``debug=True`` does not hold."""


class RaceError(EmulationError):
    """Two threads touch one place, one of them writes, and nothing orders them."""


class DivergentBarrierError(EmulationError):
    """Threads that must meet at one barrier or warp operation do not."""


class OutOfBoundsError(EmulationError):
    """An access lies outside of every array of the kernel."""


class MisalignedError(EmulationError):
    """An address is no multiple of the size of the access."""


class UninitialisedSharedError(EmulationError):
    """Shared memory is read before anything was written there in this block."""


class UnsupportedInstructionError(EmulationError):
    """The kernel uses an instruction or function for which there is no twin on the host."""
