"""From a kernel to machine code without a GPU or a driver: PTX by NVVM, a cubin by ptxas, SASS.

    Kernel -> compile_ptx(kernel, arch) -> assemble(ptx, arch) -> Cubin -> disassemble(cubin)

NVVM makes the same PTX for architectures of one generation (of LLVM in it), so it is made once for
the oldest of them, in which ptxas reads it for each.

ptxas, nvdisasm and NVVM come with the packages of the extra ``cuda-audit``; ptxas and nvdisasm are
also taken from PATH.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from fastconv.contract.errors import DeviceError

from ..common.launch import Kernel

__all__ = [
    "ARCHITECTURES",
    "Cubin",
    "assemble",
    "compile_ptx",
    "compile_ptx_for",
    "disassemble",
    "find_tool",
]

#: What kernels are audited for: Turing, Ampere (2), Ada, Hopper, Blackwell (2).
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

#: The oldest architecture for which NVVM makes the same PTX.
_PTX_OF = {arch: "sm_75" if len(arch) == 5 else "sm_100" for arch in ARCHITECTURES}

_RESOURCES = {
    "registers": r"Used (\d+) registers",
    "stack": r"(\d+) bytes stack frame",
    "spill_stores": r"(\d+) bytes spill stores",
    "spill_loads": r"(\d+) bytes spill loads",
    "shared": r"(\d+) bytes smem",
}


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code for one architecture, and what ptxas says of it.

    Parameters
    ----------
    code : bytes
        The cubin.
    registers : int
        Registers of a thread.
    stack, spill_stores, spill_loads : int
        Bytes of local memory, and those written and read because registers ran out.
    shared : int
        Bytes of static shared memory.
    """

    code: bytes
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


def find_tool(name: str) -> str:
    """Return the path of ptxas or nvdisasm, from NVIDIA's packages or from PATH.

    Raises
    ------
    DeviceError
        Where neither has it.
    """
    package = importlib.util.find_spec("nvidia")
    for folder in () if package is None else package.submodule_search_locations or ():
        for path in sorted(Path(folder).glob(f"*/bin/{name}")):
            return str(path)
    on_path = shutil.which(name)
    if on_path is None:
        raise DeviceError(
            f"{name}: in none of NVIDIA's packages nor on PATH; pip install 'fastconv[cuda-audit]'"
        )
    return on_path


@contextlib.contextmanager
def _without_driver(capability: tuple[int, int]) -> Iterator[None]:
    """Let a kernel call device functions although there is no device.

    Numba asks the current device for its compute capability, and for nothing else, when it types
    the call of a device function.
    """
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def compile_ptx(kernel: Kernel, arch: str) -> str:
    """Return a kernel's PTX for an architecture such as ``"sm_80"`` and others like it."""
    return compile_ptx_for(kernel, _PTX_OF[arch])


@functools.lru_cache(8)
def compile_ptx_for(kernel: Kernel, arch: str) -> str:
    """Return what NVVM makes of a kernel for exactly this architecture."""
    try:
        from numba import cuda
    except ImportError:
        raise DeviceError("numba-cuda: not installed; pip install 'fastconv[cuda-audit]'") from None
    digits = arch.removeprefix("sm_")
    capability = int(digits[:-1]), int(digits[-1])
    with _without_driver(capability):
        text, _ = cuda.compile(
            kernel.function,
            kernel.arguments,
            device=False,
            abi="numba",
            cc=capability,
            launch_bounds=kernel.launch_bounds,
        )
    return str(text)


def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [find_tool(tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"{tool}: {(done.stderr or done.stdout).strip()}")
    return done


def assemble(ptx: str, arch: str) -> Cubin:
    """Return the machine code that ptxas makes of PTX.

    Raises
    ------
    DeviceError
        With the message of ptxas; one that speaks of an unsupported version says that NVVM is newer
        than ptxas.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        report = _run("ptxas", f"-arch={arch}", "-v", str(source), "-o", str(target)).stderr
        resources = {name: re.search(pattern, report) for name, pattern in _RESOURCES.items()}
        return Cubin(
            target.read_bytes(),
            **{name: int(match[1]) if match else 0 for name, match in resources.items()},
        )


def disassemble(cubin: Cubin) -> str:
    """Return the SASS of a cubin, as nvdisasm prints it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin.code)
        return _run("nvdisasm", "-c", "-ndf", str(path)).stdout
