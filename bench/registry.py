"""Which libraries can be columns of the table on a device, and which of them are here."""

from __future__ import annotations

import importlib.util

from .cuda_peers import CUDA_PEERS
from .own import Fastconv
from .peer import Peer
from .peers import CPU_PEERS

__all__ = ["PEERS", "installed_peers", "missing_modules", "other_peers"]

#: By device and by name, fastconv's own first.
PEERS: dict[str, dict[str, type[Peer]]] = {"cpu": CPU_PEERS, "cuda": CUDA_PEERS}


def other_peers(device: str) -> list[str]:
    """Return the names of the libraries that fastconv is compared with on a device."""
    return [name for name, peer in PEERS[device].items() if not issubclass(peer, Fastconv)]


def missing_modules(name: str, device: str) -> list[str]:
    """Return the modules that a column wants and this environment does not hold."""
    return [each for each in PEERS[device][name].modules if not importlib.util.find_spec(each)]


def installed_peers(device: str = "cpu") -> list[str]:
    """Return the names of the other libraries that this environment holds."""
    return [name for name in other_peers(device) if not missing_modules(name, device)]
