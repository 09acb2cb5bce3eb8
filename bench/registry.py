"""What each kind of row is checked against, and which libraries can be columns of its table."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from . import (
    array_truth,
    boundary_truth,
    gradient_truth,
    network_truth,
    pair_truth,
    sparse_truth,
    transposed_truth,
    truth,
)
from .array_peers import ARRAY_PEERS
from .boundary_peers import BOUNDARY_PEERS
from .cuda_peers import CUDA_PEERS
from .gradient_peers import GRADIENT_PEERS
from .network_peers import NETWORK_PEERS, NETWORK_RIVALS
from .own import Fastconv
from .pair_peers import PAIR_PEERS
from .peer import Peer
from .peers import CPU_PEERS
from .sparse_peers import SPARSE_PEERS
from .transposed_peers import TRANSPOSED_PEERS

__all__ = [
    "PEERS",
    "RIVALS",
    "TRUTHS",
    "devices",
    "installed_peers",
    "missing_modules",
    "other_peers",
]

#: By kind of problem, the module that makes its ``arrays``, knows what is ``expected``, says what
#: is ``wrong`` and counts ``flops``.
TRUTHS: dict[str, ModuleType] = {
    "dense": truth,
    "transposed": transposed_truth,
    "boundary": boundary_truth,
    "pair": pair_truth,
    "array": array_truth,
    "gradient": gradient_truth,
    "sparse": sparse_truth,
    "network": network_truth,
}

#: By kind of problem, device and name, fastconv's own first.
PEERS: dict[str, dict[str, dict[str, type[Peer]]]] = {
    "dense": {"cpu": CPU_PEERS, "cuda": CUDA_PEERS},
    "transposed": {"cpu": TRANSPOSED_PEERS},
    "boundary": {"cpu": BOUNDARY_PEERS},
    "pair": {"cpu": PAIR_PEERS},
    "array": {"cpu": ARRAY_PEERS},
    "gradient": {"cpu": GRADIENT_PEERS},
    "sparse": {"cpu": SPARSE_PEERS},
    "network": {"cpu": NETWORK_PEERS},
}

#: By kind of problem and column of fastconv's, the columns that it is held against; where a kind is
#: not here, every column is held against all other libraries.
RIVALS: dict[str, dict[str, tuple[str, ...]]] = {"network": NETWORK_RIVALS}


def devices() -> list[str]:
    """Return every device that some kind of row can be timed on."""
    return list(dict.fromkeys(device for by_device in PEERS.values() for device in by_device))


def other_peers(device: str, kind: str = "dense") -> list[str]:
    """Return the names of the libraries that fastconv is compared with on a device."""
    peers = PEERS[kind][device]
    return [name for name, peer in peers.items() if not issubclass(peer, Fastconv)]


def missing_modules(name: str, device: str, kind: str = "dense") -> list[str]:
    """Return the modules that a column wants and this environment does not hold."""
    modules = PEERS[kind][device][name].modules
    return [module for module in modules if not importlib.util.find_spec(module)]


def installed_peers(device: str = "cpu", kind: str = "dense") -> list[str]:
    """Return the names of the other libraries that this environment holds."""
    return [name for name in other_peers(device, kind) if not missing_modules(name, device, kind)]
