"""The error that a kernel which sums products as they are may make, on the CPU and on CUDA."""

from __future__ import annotations

from fastconv.contract.problem import INTEGERS
from fastconv.contract.spec import Tolerance

__all__ = ["INTEGER_TOLERANCE", "TOLERANCE"]

# Sums in compute precision lose a few units in the last place (of the largest output: 1e-6 for any
# number of products, since no single sum is long; see cpu/gemm/split.py, also for sums of equal
# products, which lose ten times as much); the halves are rounded once at the end, by at most half a
# unit: 2**-12 and 2**-9 of the largest output. Pairs of bfloat16 are summed in float32 too: over
# layers of up to 1161 products at most 0.82 of the bound below, as with widened operands.
TOLERANCE = {
    "float32": Tolerance(2e-6),
    "float64": Tolerance(4e-15),
    "float16": Tolerance(2.0**-11),
    "bfloat16": Tolerance(2.0**-8),
}
# Of kernels that read and store integers: of the sums, before those are rounded and saturated. A
# result is the true one, or its neighbour where the true sum lies within that of the middle.
INTEGER_TOLERANCE = TOLERANCE | dict.fromkeys(INTEGERS, TOLERANCE["float32"])
