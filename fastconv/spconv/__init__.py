"""spconv's names on fastconv's sparse kernels, for networks that run on a CPU.

``import fastconv.spconv.pytorch as spconv`` is the whole change to a file that says
``import spconv.pytorch as spconv``. PyTorch is imported with `fastconv.spconv.pytorch` alone, and
spconv itself never.
"""

from __future__ import annotations

__all__: list[str] = []
