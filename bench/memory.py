"""How much memory a process came to need: its resident set at its largest, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["peak_bytes", "resident_bytes", "restart_peak"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK_COMMAND = "5"


def resident_bytes() -> int | None:
    """Return the bytes that this process has in memory; None where that is not told."""
    return _field("VmRSS")


def peak_bytes() -> int | None:
    """Return the most that it had since `restart_peak`; None where that is not told."""
    return _field("VmHWM")


def restart_peak() -> bool:
    """Count the peak from here on, what was needed before forgotten; tell whether that is so."""
    try:
        _CLEAR.write_text(_PEAK_COMMAND)
    except OSError:  # another system than Linux, or a container that does not let it
        return False
    return True


def _field(name: str) -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None
