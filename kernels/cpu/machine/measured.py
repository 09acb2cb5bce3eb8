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

from fastconv.contract import first_use, private_files, processors
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
    if not isinstance(record, dict):
        raise ValueError(f"a record is {record!r}, want the figures of a machine by name")
    values = {name: float(value) for name, value in record.items()}
    known = vars(ZEN4_FIGURES[64])
    if values.keys() != known.keys():
        raise ValueError(f"{', '.join(sorted(values.keys() ^ known.keys()))} missing or unknown")
    for name, value in values.items():
        if value == 0 and name in _MAY_BE_ZERO:
            continue
        if not 1 / _PLAUSIBLE < value / known[name] < _PLAUSIBLE:
            raise ValueError(f"{name} is {value}")
    return Figures(**values)


def _threads(key: str) -> int:
    threads = processors.whole_number(key)
    if threads is None:
        raise ValueError(f"figures are of {key[:40]!r} threads, want a whole number of at least 1")
    return threads


def _records(path: Path | None) -> tuple[dict[int, Figures], str | None]:
    """Return figures by the number of threads; of a damaged file none, and what is wrong with it.

    What one process has damaged, or another version has written, can be measured again.
    """
    if path is None:
        return {}, None
    try:
        content = first_use.load("json").loads(private_files.read(path, _LARGEST))
        if not isinstance(content, dict):
            raise ValueError("it holds no figures by numbers of threads")
        return {_threads(key): _figures(record) for key, record in content.items()}, None
    except FileNotFoundError:
        return {}, None
    except Exception as error:  # noqa: BLE001 - whatever it holds, it can be measured again
        return {}, private_files.damage(path, error)


#: What was told of damaged files: costs are looked up again and again.
_told: set[str] = set()


def read(device: DeviceInfo) -> Figures | None:
    """Return what was measured of a machine, on the nearest number of threads; None if nothing.

    A damaged file holds nothing, and costs one warning in a process.
    """
    records, damage = _records(_path(device))
    if damage is not None and damage not in _told:
        _told.add(damage)  # before the warning, which may be an error
        again = "python -m fastconv calibrate measures them again"
        warnings.warn(
            f"fastconv: the machine's measured figures are lost ({again}): {damage}", stacklevel=2
        )
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
    records, _ = _records(path)
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
