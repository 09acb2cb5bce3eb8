"""Run Numba-CUDA kernels as compiled code on the host, and prove what they do.

See ``kernel.py`` for the launch, ``README.md`` for how it works and what it does not do.
"""

from .errors import (
    DivergentBarrierError,
    EmulationError,
    FailedAssertionError,
    MisalignedError,
    OutOfBoundsError,
    RaceError,
    RaisedError,
    UninitialisedSharedError,
    UnsupportedInstructionError,
)
from .kernel import ALL, FAST, Checks, EmulatedKernel
from .report import AccessCount, Fault, Report

__all__ = [
    "ALL",
    "FAST",
    "AccessCount",
    "Checks",
    "DivergentBarrierError",
    "EmulatedKernel",
    "EmulationError",
    "FailedAssertionError",
    "Fault",
    "MisalignedError",
    "OutOfBoundsError",
    "RaceError",
    "RaisedError",
    "Report",
    "UninitialisedSharedError",
    "UnsupportedInstructionError",
]
