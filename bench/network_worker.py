"""The worker of rows that are networks: it also writes models and tells its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import memory, network_truth
from .cases import Case, parse_case
from .peer import Call, Peer
from .worker import Worker

__all__ = ["NetworkWorker"]


class NetworkWorker(Worker):
    """What the process holds of a network; it runs one row and ends with it.

    Parameters
    ----------
    peer : Peer or None
        The library; None only writes models and true outputs.
    """

    def __init__(self, peer: Peer | None) -> None:
        super().__init__(peer)
        self._before: int | None = None

    def truth(self, line: str, path: str) -> dict[str, Any]:
        """Write the model and the true output of a row."""
        run = parse_case(line).problem
        file = network_truth.model_file(Path(path).parent)
        try:
            network_truth.write_model(run, file)
        except Exception as error:  # the exporter's own, of any kind
            if run.is_onnx:
                raise
            file.unlink(missing_ok=True)
            text = (str(error).strip().splitlines() or [""])[0]
            file.with_suffix(".txt").write_text(f"{type(error).__name__}: {text[:200]}")
        np.save(path, network_truth.expected(run, *network_truth.arrays(run), file))
        return {}

    def prepared(self, case: Case, path: str) -> Call:
        """Set a row up: the library is loaded by now, and what it needs from here on counts."""
        assert self.peer is not None
        self._before = memory.resident_bytes() if memory.restart_peak() else None
        file = network_truth.model_file(Path(path).parent)
        return self.peer.prepare(case.problem, *network_truth.arrays(case.problem), file)

    def memory(self) -> dict[str, Any]:
        """Tell by how many bytes the process grew from before the row to its peak."""
        peak = memory.peak_bytes()
        return {"bytes": None if peak is None or self._before is None else peak - self._before}
