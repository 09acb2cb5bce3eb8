"""Run Numba-CUDA kernels as compiled code on the host, and prove what they do.

See ``kernel.py`` for the launch, ``README.md`` for how it works and what it does not do.
"""

from .errors import (
    DivergentBarrierError,
    EmulationError,
    MisalignedError,
    OutOfBoundsError,
    RaceError,
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
    "Fault",
    "MisalignedError",
    "OutOfBoundsError",
    "RaceError",
    "Report",
    "UninitialisedSharedError",
    "UnsupportedInstructionError",
]
