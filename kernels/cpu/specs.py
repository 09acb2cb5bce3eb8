"""The CPU's kernels over dense arrays: one line a mechanism, whose `costs.py` has their specs.

This table imports no compiler, so that explaining and choosing are cheap; a kernel's module is
imported when it first runs. Of kernels that cost the same the first is taken.
"""

from __future__ import annotations

from .brgemm.costs import SPECS as BRGEMM
from .deform.costs import SPECS as DEFORM
from .fast_fir.costs import SPECS as FAST_FIR
from .fft.costs import SPECS as FFT
from .gemm.costs import SPECS as GEMM
from .linear.costs import SPECS as LINEAR
from .norm.costs import SPECS as NORM
from .pool.costs import SPECS as POOL
from .rearrange.costs import SPECS as REARRANGE
from .resize.costs import SPECS as RESIZE
from .softmax.costs import SPECS as SOFTMAX
from .weight_grad.costs import SPECS as WEIGHT_GRAD
from .window.costs import SPECS as WINDOW
from .winograd.costs import SPECS as WINOGRAD
from .winograd_1d.costs import SPECS as WINOGRAD_1D

__all__ = ["SPECS"]

SPECS = (
    *GEMM,
    *WINDOW,
    *BRGEMM,
    *WINOGRAD,
    *WINOGRAD_1D,
    *FAST_FIR,
    *FFT,
    *WEIGHT_GRAD,
    *POOL,
    *DEFORM,
    *REARRANGE,
    *NORM,
    *SOFTMAX,
    *RESIZE,
    *LINEAR,
)
