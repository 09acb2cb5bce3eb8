"""Figures that were measured here, kept beside the compiled kernels: one small file a machine.

A machine is its model, instruction set and caches; the file holds a record for each number of
threads that "all" meant when it was measured: the best that was seen of each figure, as a busy
moment makes a machine look slower than it is.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

from fastconv.contract import first_use, private_files
from fastconv.contract.cache import cache_dir
from fastconv.contract.spec import DeviceInfo

from .figures import Figures, better
from .shipped import ZEN4_FIGURES

__all__ = ["keep", "read"]

#: Bytes that the file may have; a record takes some six hundred.
_LARGEST = 1 << 20
#: By how much a figure may differ from Zen 4's, up or down.
_PLAUSIBLE = 1e4
#: What a machine of one thread does not have.
_MAY_BE_ZERO = {"handover", "wake"}


def _path(device: DeviceInfo) -> Path | None:
    """Return the machine's file, None where nothing is kept on disk."""
    folder = first_use.run(cache_dir)
    facts = f"{device.model} {device.isa} {device.l1} {device.l2} {device.l3}"
    machine = hashlib.sha256(facts.encode()).hexdigest()[:8]
    return None if folder is None else folder / f"machine-{machine}.json"


def _figures(record: Any) -> Figures:
    values = {str(name): float(value) for name, value in record.items()}
    figures, known = Figures(**values), vars(ZEN4_FIGURES[64])
    for name, value in values.items():
        if value == 0 and name in _MAY_BE_ZERO:
            continue
        if not 1 / _PLAUSIBLE < value / known[name] < _PLAUSIBLE:
            raise ValueError(f"{name} is {value}")
    return figures


def _records(path: Path | None) -> dict[int, Figures]:
    """Return the figures by the number of threads; a damaged file counts as empty."""
    if path is None:
        return {}
    try:
        text = private_files.read(path, _LARGEST)
        content = first_use.load("json").loads(text)
        return {int(threads): _figures(record) for threads, record in content.items()}
    except FileNotFoundError:
        return {}
    except Exception as error:  # noqa: BLE001 - whatever it holds, it can be measured again
        told = f"{path}: {error}"[:500]
        warnings.warn(f"fastconv: the machine's measured figures are lost: {told}", stacklevel=2)
        return {}


def read(device: DeviceInfo) -> Figures | None:
    """Return what was measured of a machine, on the nearest number of threads; None if nothing."""
    records = _records(_path(device))
    if not records:
        return None
    return records[min(records, key=lambda threads: (abs(threads - device.threads), threads))]


def keep(device: DeviceInfo, figures: Figures) -> tuple[Figures, Path | None]:
    """Write down what was measured of a machine, joined with what was kept before.

    A disk that cannot be written to costs a warning.

    Returns
    -------
    (Figures, Path or None)
        What is kept, and the file; None where there is none.
    """
    path = _path(device)
    records = _records(path)
    if device.threads in records:
        figures = better(records[device.threads], figures)
    if path is None:
        return figures, None
    records[device.threads] = figures
    content = {str(threads): vars(records[threads]) for threads in sorted(records)}
    try:
        private_files.write(path, first_use.load("json").dumps(content, indent=1).encode())
    except OSError as error:
        told = f"{path}: {error.strerror}"
        warnings.warn(f"fastconv: could not keep the machine's figures: {told}", stacklevel=2)
        return figures, None
    return figures, path
