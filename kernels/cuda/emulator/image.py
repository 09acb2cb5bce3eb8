"""A kernel as machine code, and the workers that run it.

The object code is made once. Each worker loads it anew, which gives it shared memory of its own,
and has the records of a block's threads. A launch takes as many workers as it wants threads and
gives them back; launches of several Python threads take different ones.
"""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import numpy as np

from . import places
from .checks import Site, instrument, number_meetings
from .context import STRIDE
from .coroutine import host_module
from .counters import counter_words
from .faults import new_log
from .flight import flight_words
from .ir import Module, lock, optimise, target_machine
from .lower import Suspend, lower

__all__ = ["Image", "Worker"]

#: Between two shared arrays while accesses are checked.
_GAP = 512
#: The largest access that may be sent to the scratch area.
_SCRATCH = 1 << 16


class Image:
    """Object code of a kernel, and the workers that have loaded it.

    Parameters
    ----------
    module : Module
        The kernel's IR.
    checked : bool
        Whether every access is checked.
    """

    def __init__(self, module: Module, *, checked: bool) -> None:
        self.sites: list[Site] = []
        self.raised = module.raised
        self.checked = checked
        known = {
            line.split("@")[1].split("(")[0].strip('"') for line in module.head if _is_host(line)
        }
        body = lower(module, known)
        number_meetings(module, body, self.sites)
        self.float_atomics = any(isinstance(line, str) and " atomicrmw f" in line for line in body)
        if checked:
            body = instrument(module, body, self.sites)
        self.granule = _granule(self.sites)
        extra = _declarations(module, body)
        text, self.shared = host_module(module, body, extra, _GAP if checked else 0)
        with lock:
            machine = target_machine()
            host = llvm.parse_assembly(text)
            host.verify()
            optimise(host, machine, vectorise=True)
            self.object = machine.emit_object(host)
        self._free: list[Worker] = []

    def take(self, number: int) -> list[Worker]:
        """Return `number` workers that nobody else uses, nor a launch in the midst of this one."""
        taken: list[Worker] = []
        while len(taken) < number:
            try:
                taken.append(self._free.pop())
            except IndexError:
                taken.append(Worker(self))
        return taken

    def give_back(self, workers: list[Worker]) -> None:
        """Let others use these workers."""
        self._free += workers


def _is_host(line: str) -> bool:
    """Whether a line declares a function that exists on the host."""
    return line.startswith("declare ") and not any(
        name in line
        for name in ("@fc.nvvm.", "@__nv_", "@___numba", "@cudaCG", "@vprintf", "_nbst", "@_Z")
    )


def _granule(sites: list[Site]) -> int:
    """Binary logarithm of the bytes that share a shadow: the smallest access, at most 4."""
    smallest = min((site.size & -site.size for site in sites if site.size), default=4)
    return min(smallest, 4).bit_length() - 1


def _declarations(module: Module, body: list[str | Suspend]) -> str:
    """Declare the functions of one number that lowering has brought in."""
    declared = "\n".join(module.head)
    text = "\n".join(line for line in body if isinstance(line, str))
    called = set(re.findall(r"call (float|double) @(llvm\.[\w.]+|tanhf)\(\1 [^,()]*\)", text))
    return "\n".join(
        f"declare {type_} @{name}({type_})"
        for type_, name in sorted(called)
        if f"@{name}(" not in declared
    )


class Worker:
    """Loaded code with shared memory of its own, and the state of one block."""

    def __init__(self, image: Image) -> None:
        with lock:
            machine = target_machine()
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(image.object))
            self._engine.finalize_object()
        address = self._engine.get_function_address
        self.make, self.step, self.destroy = (
            address("fc_make"),
            address("fc_step"),
            address("fc_destroy"),
        )
        self.shared = self.shared_end = self._engine.get_global_value_address("fc_shared")
        self.log = new_log()
        self.image = image
        self._threads = 0
        self.table = np.zeros(places.TABLE_WORDS, np.int64)
        self._scratch = np.full(_SCRATCH, 0xFF, np.uint8)
        self.counters = np.zeros(1, np.int64)

    def prepare(self, threads: int) -> None:
        """Have the records of so many threads."""
        if threads == self._threads:
            return
        self.words = np.zeros((threads, STRIDE // 4), np.int32)
        self.longs, self.reals = self.words.view(np.int64), self.words.view(np.float32)
        self.states = np.zeros(threads, np.int8)
        self.handles = np.zeros(threads, np.int64)
        self._threads = threads

    def watch(self, flags: int, regions: np.ndarray, dynamic: int) -> int:
        """Fill in the table of the checks and return its address.

        Parameters
        ----------
        flags : int
            Which checks.
        regions : int64 array
            First byte and end of every array of the launch.
        dynamic : int
            Bytes of dynamic shared memory.
        """
        image = self.image
        pairs = [
            (self.shared + array.offset, self.shared + array.offset + (array.size or dynamic))
            for array in image.shared
        ]
        end = max((stop for _, stop in pairs), default=self.shared)
        self._shared_table = np.array(pairs or [(0, 0)], np.int64)
        self._regions = regions
        granules = (end - self.shared >> image.granule) + 16
        self._shadow = np.zeros((granules, 8), np.int64)
        self._shadow[:, 3:5] = -1
        self.counters = np.zeros(counter_words(len(image.sites)), np.int64)
        self.counters[:2] = len(image.sites), -1
        copies = any(site.kind == "copy" for site in image.sites)
        self._flight = np.zeros(flight_words(self._threads if copies else 0), np.int64)
        self.shared_end = end + _GAP
        values = {
            places.LOG: self.log.ctypes.data,
            places.FLAGS: flags,
            places.SHARED_BEGIN: self.shared,
            places.SHARED_END: self.shared_end if pairs else self.shared,
            places.SHARED_COUNT: len(pairs),
            places.SHARED_TABLE: self._shared_table.ctypes.data,
            places.GLOBAL_COUNT: len(regions),
            places.GLOBAL_TABLE: regions.ctypes.data,
            places.SHADOW: self._shadow.ctypes.data,
            places.GRANULE: image.granule,
            places.PHASE: 1,
            places.BLOCK_PHASE: 1,
            places.SCRATCH: self._scratch.ctypes.data,
            places.COUNTERS: self.counters.ctypes.data,
            places.FLIGHT: self._flight.ctypes.data,
        }
        for place, value in values.items():
            self.table[place // 8] = value
        return self.table.ctypes.data
