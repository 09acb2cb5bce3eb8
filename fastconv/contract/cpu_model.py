"""Which CPU this is: vendor, family, model and stepping, as the system tells them.

A marketing name is for people: "AMD EPYC" names cores whose multiply-adds differ by two.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

__all__ = ["cpu_model", "cpu_name"]

#: Lines of /proc/cpuinfo that tell one kind of core from another, on x86 and on ARM.
_X86 = ("vendor_id", "cpu family", "model", "stepping")
_ARM = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")


@functools.cache
def _facts() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    return _read(text)


def _read(text: str) -> dict[str, str]:
    """Return what /proc/cpuinfo says of the first processor."""
    first, _, _ = text.strip().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _model(facts: dict[str, str]) -> str:
    for keys in (_X86, _ARM):
        if all(key in facts for key in keys):
            vendor, *numbers = (facts[key] for key in keys)
            return f"{vendor} {'.'.join(numbers)}"
    return platform.processor() or platform.machine()


def cpu_model() -> str:
    """Return vendor and family, model and stepping, or what else the system has.

    Examples
    --------
    >>> from fastconv.contract.cpu_model import cpu_model
    >>> len(cpu_model()) > 0
    True
    """
    return _model(_facts())


def cpu_name() -> str:
    """Return the processor's name for people."""
    return _facts().get("model name") or platform.processor() or platform.machine()
