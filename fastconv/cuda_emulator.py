"""Run any ``@cuda.jit`` function on a machine that has no GPU, at the speed of compiled code.

The public door to ``fastconv.kernels.cuda.emulator``; it needs ``numba-cuda`` and NVVM, but no GPU
and no driver.

Examples
--------
>>> import numpy as np
>>> from numba import cuda
>>> from fastconv import cuda_emulator
>>> @cuda.jit
... def add(x, y, out):
...     i = cuda.grid(1)
...     if i < out.size:
...         out[i] = x[i] + y[i]
>>> x, out = np.arange(100.0), np.empty(100)
>>> cuda_emulator.EmulatedKernel(add)[4, 32](x, x, out)
>>> bool((out == 2 * x).all())
True
"""

from __future__ import annotations

from .kernels.cuda.emulator import *  # noqa: F403 - the same names under a shorter path
from .kernels.cuda.emulator import __all__ as __all__
