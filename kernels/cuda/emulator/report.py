"""What a launch showed: faults in sentences, and what its memory accesses cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import faults as kinds
from .arguments import ArrayArgument
from .checks import Site
from .coroutine import SharedArray
from .errors import (
    DivergentBarrierError,
    EmulationError,
    FailedAssertionError,
    MisalignedError,
    OutOfBoundsError,
    RaceError,
    RaisedError,
    UninitialisedSharedError,
)
from .raised import Raised

__all__ = ["AccessCount", "Fault", "Report", "Scene", "fault_of"]

_ERRORS: dict[int, type[EmulationError]] = {
    kinds.RACE_WRITE_WRITE: RaceError,
    kinds.RACE_READ_WRITE: RaceError,
    kinds.RACE_IN_FLIGHT: RaceError,
    kinds.DIVERGENT_BARRIER: DivergentBarrierError,
    kinds.DIVERGENT_WARP: DivergentBarrierError,
    kinds.INCOMPLETE_WARP: DivergentBarrierError,
    kinds.DEADLOCK: DivergentBarrierError,
    kinds.OUT_OF_BOUNDS: OutOfBoundsError,
    kinds.MISALIGNED: MisalignedError,
    kinds.UNINITIALISED: UninitialisedSharedError,
}


@dataclass(frozen=True)
class Fault:
    """One fault; the same two places are reported once."""

    error: type[EmulationError]
    message: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class AccessCount:
    """What one load, store or atomic of the kernel cost.

    Attributes
    ----------
    kind : str
        ``"load"``, ``"store"`` or ``"atomic"``.
    space : str
        ``"shared"`` or ``"global"``.
    array : str
        Name of the array.
    file, line : str, int
        Where it stands.
    size : int
        Bytes a lane.
    requests : int
        How often a warp executed it.
    cost : int
        Sectors of 32 bytes (global), or wavefronts of the banks (shared), of all requests.
    least : int
        The fewest that these lanes and bytes could have had.
    """

    kind: str
    space: str
    array: str
    file: str
    line: int
    size: int
    requests: int
    cost: int
    least: int

    @property
    def conflicts(self) -> int:
        """Wavefronts beyond the fewest."""
        return self.cost - self.least if self.space == "shared" else 0

    @property
    def per_request(self) -> float:
        """Sectors, or wavefronts, a request."""
        return self.cost / self.requests


@dataclass(frozen=True)
class Scene:
    """What is needed to put an address and a thread into words."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    sites: list[Site]
    arrays: list[ArrayArgument]
    shared: list[SharedArray]
    shared_names: dict[str, str]
    dynamic: int
    raised: dict[int, Raised]

    def thread(self, number: int) -> str:
        """Index of a thread of a block."""
        x, y, _ = self.block
        return f"thread ({number % x}, {number // x % y}, {number // (x * y)})"

    def block_index(self, number: int) -> str:
        """Index of a block."""
        x, y, _ = self.grid
        return f"block ({number % x}, {number // x % y}, {number // (x * y)})"

    def place(self, address: int, shared_base: int, shared_end: int) -> tuple[str, str]:
        """Name of the array, and the element at an address."""
        if shared_base <= address < shared_end:
            offset = address - shared_base
            below = [array for array in self.shared if array.offset <= offset]
            if not below:
                return "shared memory", f"byte {offset} of shared memory"
            array = max(below, key=lambda array: array.offset)
            name = self.shared_names[array.symbol]
            size = array.size or self.dynamic
            return name, f"byte {offset - array.offset} of the {size} of shared {name}"
        if not self.arrays:
            return "memory", f"address {address:#x}"
        nearest = min(self.arrays, key=lambda a: max(a.begin - address, address - a.end + 1, 0))
        return nearest.name, nearest.describe(address)


@dataclass
class Report:
    """What a launch showed.

    Attributes
    ----------
    kernel : str
        Name of the kernel.
    faults : list of Fault
        All that were found.
    accesses : list of AccessCount
        One a load, store and atomic; empty unless counting was asked for.
    order_dependent : list of str
        Arrays whose contents depend on the order of threads or blocks.
    uncounted : int
        Accesses for which the table of requests had no room.
    """

    kernel: str
    faults: list[Fault] = field(default_factory=list)
    accesses: list[AccessCount] = field(default_factory=list)
    order_dependent: list[str] = field(default_factory=list)
    uncounted: int = 0

    def _of(self, error: type[EmulationError]) -> list[Fault]:
        return [fault for fault in self.faults if fault.error is error]

    @property
    def races(self) -> list[Fault]:
        """Accesses that nothing orders, and results that depend on the order."""
        return self._of(RaceError)

    @property
    def divergent_barriers(self) -> list[Fault]:
        """Barriers and warp operations that not all of their threads reach."""
        return self._of(DivergentBarrierError)

    @property
    def out_of_bounds(self) -> list[Fault]:
        """Accesses outside of every array."""
        return self._of(OutOfBoundsError)

    @property
    def misaligned(self) -> list[Fault]:
        """Accesses at no multiple of their size."""
        return self._of(MisalignedError)

    @property
    def uninitialised(self) -> list[Fault]:
        """Reads of shared memory that this block has not written."""
        return self._of(UninitialisedSharedError)

    @property
    def sectors_per_request(self) -> float:
        """Mean number of 32-byte sectors that a warp's access to global memory touches."""
        used = [access for access in self.accesses if access.space == "global"]
        requests = sum(access.requests for access in used)
        return sum(access.cost for access in used) / requests if requests else 0.0

    @property
    def bank_conflicts(self) -> int:
        """Wavefronts of shared memory beyond the fewest possible."""
        return sum(access.conflicts for access in self.accesses)

    def raise_faults(self) -> None:
        """Raise the first fault, if there is one, and say how many there are."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more faults)" if len(self.faults) > 1 else ""
            raise self.faults[0].error(self.faults[0].message + more)


def fault_of(scene: Scene, row: np.ndarray, shared_base: int, shared_end: int) -> Fault:
    """Put a row of the list of faults into words."""
    kind, site, other, thread, other_thread, block, address, _ = (int(word) for word in row)
    if kind == kinds.RAISED:
        return _raised(scene, site, other, thread, block)
    here = scene.sites[site]
    lines = [here.line]
    name, element = scene.place(address, shared_base, shared_end)
    who = f"{scene.thread(thread)} of {scene.block_index(block)}"
    if kind in (kinds.RACE_WRITE_WRITE, kinds.RACE_READ_WRITE):
        before = scene.sites[other]
        lines.append(before.line)
        what = (
            f"race on {element}: {here.kind} at {here} by {who}, and {before.kind} at {before} by "
            f"{scene.thread(other_thread)}, with no barrier between them"
        )
    elif kind == kinds.RACE_IN_FLIGHT:
        before = scene.sites[other]
        lines.append(before.line)
        what = (
            f"race on {element}: {here.kind} at {here} by {who}, while the asynchronous copy at "
            f"{before} by {scene.thread(other_thread)} has not been waited for"
        )
    elif kind == kinds.OUT_OF_BOUNDS and other == -2:
        what = (
            f"{here.kind} of {here.size} bytes outside of a local or constant array, at its byte "
            f"{address}, at {here} by {who}"
        )
    elif kind == kinds.OUT_OF_BOUNDS:
        what = (
            f"{here.kind} of {here.size} bytes out of bounds of {name}: {element}, "
            f"at {here} by {who}"
        )
    elif kind == kinds.MISALIGNED:
        what = (
            f"misaligned {here.kind}: {element} is no multiple of {here.size} bytes from where "
            f"memory begins, at {here} by {who}"
        )
    elif kind == kinds.UNINITIALISED:
        what = f"read of uninitialised shared memory: {element}, at {here} by {who}"
    else:
        what = _divergence(scene, kind, site, other, who, other_thread)
        if other >= 0:
            lines.append(scene.sites[other].line)
    return Fault(_ERRORS[kind], f"{scene.kernel}: {what}", tuple(lines))


def _raised(scene: Scene, site: int, number: int, thread: int, block: int) -> Fault:
    here = scene.sites[site]
    unknown = Raised(Exception, "raised in a function of Numba's own", here.file, here.line)
    what = scene.raised.get(number, unknown)
    error = FailedAssertionError if issubclass(what.kind, AssertionError) else RaisedError
    place = Site("exception", what.file or here.file, what.line or here.line)
    who = f"{scene.thread(thread)} of {scene.block_index(block)}"
    return Fault(error, f"{scene.kernel}: {what}, at {place} by {who}", (place.line,))


def _divergence(scene: Scene, kind: int, site: int, other: int, who: str, other_thread: int) -> str:
    here = scene.sites[site]
    stem = "divergent warp operation" if here.kind.startswith("warp") else "divergent barrier"
    elsewhere = scene.thread(other_thread)
    if kind == kinds.DIVERGENT_WARP:
        return f"{stem} at {here}: {who} is not in the mask that it gives"
    if kind == kinds.INCOMPLETE_WARP:
        return (
            f"{stem} at {here}: {who} multiplies matrices, which takes all 32 lanes of its warp, "
            "and some of them have returned or were not launched"
        )
    if other < 0:
        return f"{stem} at {here}: {who} waits for lanes that give another mask than it does"
    where = scene.sites[other]
    stuck = "; none of them can go on" if kind == kinds.DEADLOCK else ""
    return f"{stem}: {who} is at {here}, {elsewhere} at {where}{stuck}"
