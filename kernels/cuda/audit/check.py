"""The compile audit: what the machine code of every kernel is made of, for every architecture.

What is counted here is all that can be known of speed without a GPU: registers and shared memory
(how many blocks share a multiprocessor), spills, the part of the main loop's instructions that
multiply and add, the widths of loads, and anything in float64 or local memory that should not be
there.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..common.launch import Kernel
from ..common.plan import pack_kernel
from ..gemm.dilated import dilated_kernel
from ..gemm.plan import gemm_kernel, reduce_kernel
from ..gemm.source import Config
from ..gemm.tile import tiles_for
from ..rulebook import scan as rulebook_scan
from ..rulebook import sites as rulebook_sites
from ..rulebook import sort as rulebook_sort
from ..rulebook import tables as rulebook_tables
from ..sparse import gemm_costs, gemm_source, row_costs
from ..sparse.depthwise import depthwise_kernel as sparse_depthwise_kernel
from ..sparse.depthwise_grad import depthwise_grad_kernel
from ..sparse.gemm import gemm_kernel as sparse_gemm_kernel
from ..sparse.gemm import offsets_kernel
from ..sparse.global_pool import global_kernels
from ..sparse.parts import sum_kernel
from ..sparse.plan import pack_offsets_kernel
from ..sparse.pool import pool_kernels
from ..sparse.weight_grad import grad_kernel
from ..window.plan import depthwise_kernel, direct_kernel
from ..winograd.plan import transform_kernels
from .compile import Cubin, assemble, compile_ptx, disassemble
from .sass import Listing, parse, share

__all__ = [
    "Audited",
    "Bars",
    "audit_everywhere",
    "audit_kernel",
    "kernels_to_audit",
    "multiply_add_of",
    "resident_blocks",
]

#: Registers, shared memory and threads of a multiprocessor (CUDA C++ Programming Guide, table of
#: technical specifications per compute capability).
_REGISTERS = 65536
_SHARED = {"sm_75": 64, "sm_80": 164, "sm_86": 100, "sm_89": 100, "sm_90": 228, "sm_100": 228,
           "sm_120": 100}  # fmt: skip
_THREADS = {"sm_75": 1024, "sm_80": 2048, "sm_90": 2048, "sm_100": 2048}
_MOST_THREADS = 1536
_MOST_BLOCKS = {"sm_75": 16, "sm_86": 16, "sm_89": 24, "sm_120": 24}


#: Least part of the main loop that multiplies and adds, by tile.
_SHARES = {"128x128x8": 0.85, "128x64x8": 0.8, "64x64x8": 0.78, "32x32x16": 0.55}


@dataclass(frozen=True, slots=True)
class Bars:
    """What a kernel must keep to.

    Parameters
    ----------
    share : float
        Least part of the main loop that multiplies and adds.
    global_128 : bool
        Whether all its samples and weights come in loads of 128 bits.
    words : int
        Loads of 32 bits in the main loop that read no samples or weights.
    """

    share: float = 0.0
    global_128: bool = False
    words: int = 0


@dataclass(frozen=True, slots=True)
class Audited:
    """One kernel's machine code for one architecture.

    Parameters
    ----------
    kernel : str
        Its name.
    arch : str
        Architecture.
    cubin : Cubin
        Registers, spills and shared memory.
    blocks : int
        Blocks that fit a multiprocessor.
    share : float
        Part of the main loop that multiplies and adds; 0 without such a loop.
    loads : dict of str to int
        The main loop's loads by name.
    doubles, local : int
        Instructions in float64, and those that touch local memory.
    faults : tuple of str
        Sentences on what misses a bar.
    """

    kernel: str
    arch: str
    cubin: Cubin
    blocks: int
    share: float
    loads: dict[str, int]
    doubles: int
    local: int
    faults: tuple[str, ...]


def _configs() -> Iterator[tuple[Config, Bars]]:
    """Return the products to audit: each tile with each loader, then the other element types."""
    loaders = (("single", "pixels"), ("pixels", "pixels"), ("channels", "channels"))
    for tile, (loader, store) in itertools.product(tiles_for("float32"), loaders):
        bars = Bars(_SHARES[tile.name], loader != "single")
        yield Config(tile, "float32", loader, 1, store), bars
    large, *_, small = tiles_for("float32")
    for tile in (large, small):
        yield Config(tile, "float32", "single", 3, "pixels"), Bars()
    yield Config(small, "float32", "single", 7, "pixels"), Bars()
    for storage in ("float16", "bfloat16"):
        yield Config(large, storage, "single", 1, "pixels"), Bars()
    for tile in tiles_for("float64"):
        yield Config(tile, "float64", "single", 1, "pixels"), Bars()


def _sparse_kernels() -> Iterator[tuple[Kernel, Bars]]:
    """Return the sparse kernels to audit: each tile with both loads, then the other types."""
    shares = {"128x64x8": 0.79, "64x64x8": 0.77, "32x32x16": 0.62}
    config = gemm_source.Config
    for tile, width in itertools.product(gemm_costs.TILES, (4, 1)):
        share = shares[gemm_source.tile_name(tile)] if width == 4 else 0.0
        yield sparse_gemm_kernel(config(tile, "float32", width)), Bars(share)
    for storage in ("float16", "bfloat16", "float64"):
        for tile in gemm_costs.tiles_for(storage):
            yield sparse_gemm_kernel(config(tile, storage, 4)), Bars()
    for storage, width in itertools.product(("float32", "float16", "float64"), (4, 1)):
        yield sparse_depthwise_kernel(storage, width), Bars()
    for storage in ("float32", "float16", "float64"):
        yield pack_offsets_kernel(storage), Bars()
    for rows in sorted({tile.bn for tile in gemm_costs.TILES}):
        yield offsets_kernel(rows), Bars()


def _rulebook_kernels() -> Iterator[Kernel]:
    """Return the kernels that build rulebooks."""
    yield from rulebook_scan.KERNELS
    yield from rulebook_sort.KERNELS
    yield from rulebook_tables.KERNELS.values()
    for ndim in (1, 3, 4):
        yield from (rulebook_sites.site_kernel(ending, ndim) for ending in rulebook_sites.ENDINGS)
        yield rulebook_sites.decode_kernel(ndim)


def _row_kernels() -> Iterator[tuple[Kernel, Bars]]:
    """Return the kernels of sparse pools and of gradients for the weight."""
    shares = {"64x64x16": 0.82, "32x32x16": 0.66}
    for storage in ("float32", "float16", "float64"):
        yield from ((kernel, Bars()) for kernel in pool_kernels(storage).values())
        for largest in (True, False):
            yield from ((kernel, Bars()) for kernel in global_kernels(storage, largest))
        yield depthwise_grad_kernel(storage), Bars()
        yield sum_kernel(storage), Bars()
        for tile, width in itertools.product(row_costs.tiles_for(storage), (4, 1)):
            share = shares[tile.name] if (storage, width) == ("float32", 4) else 0.0
            yield grad_kernel(storage, tile, width), Bars(share)


def kernels_to_audit() -> list[tuple[Kernel, Bars]]:
    """Return every kernel with every configuration that is audited, and its bars."""
    products = [(gemm_kernel(config), bars) for config, bars in _configs()]
    for tile, loader in itertools.product(tiles_for("float32"), ("single", "channels")):
        # The number of the next panel costs more instructions than the next address.
        bars = Bars(_SHARES[tile.name] - 0.02, loader != "single", words=1)
        store = "channels" if loader == "channels" else "pixels"
        products.append((dilated_kernel(Config(tile, "float32", loader, 1, store)), bars))
    others = [
        kernel
        for storage in ("float32", "float16", "float64")
        for kernel in (
            *(direct_kernel(storage, width, 1) for width in (1, 4, 16)),
            depthwise_kernel(storage, 1),
            reduce_kernel(storage),
            pack_kernel(storage),
            *transform_kernels(storage, 2).values(),
            *transform_kernels(storage, 4).values(),
        )
    ]
    others += _rulebook_kernels()
    sparse = [*_sparse_kernels(), *_row_kernels()]
    return products + [(kernel, Bars()) for kernel in others] + sparse


def resident_blocks(cubin: Cubin, threads: int, arch: str) -> int:
    """Return how many blocks share a multiprocessor.

    Registers are handed out to a warp in units of 256; a block also takes 1 KiB of shared memory.
    """
    warps = -(-threads // 32)
    registers = -(-cubin.registers * 32 // 256) * 256 * warps
    shared = (cubin.shared // 1024 + 2) * 1024
    return min(
        _REGISTERS // registers,
        _SHARED[arch] * 1024 // shared,
        _THREADS.get(arch, _MOST_THREADS) // threads,
        _MOST_BLOCKS.get(arch, 32),
    )


def multiply_add_of(kernel: Kernel) -> str:
    """Return the instruction that a kernel multiplies and adds by."""
    return "DFMA" if "float64" in kernel.name else "FFMA"


def audit_kernel(kernel: Kernel, bars: Bars, arch: str) -> Audited:
    """Compile one kernel for one architecture and count its instructions."""
    cubin = assemble(compile_ptx(kernel, arch), arch)
    listing = parse(disassemble(cubin))
    multiply_add = multiply_add_of(kernel)
    loop = listing.main_loop(multiply_add)
    part = share(loop, multiply_add)
    return Audited(
        kernel.name,
        arch,
        cubin,
        resident_blocks(cubin, kernel.threads, arch),
        part,
        {name: count for name, count in loop.items() if name.startswith(("LDG", "LDS"))},
        0 if multiply_add == "DFMA" else listing.doubles,
        listing.count("LDL") + listing.count("STL"),
        tuple(_faults(kernel, bars, cubin, listing, loop, part)),
    )


def audit_everywhere(kernel: Kernel, bars: Bars, archs: Sequence[str]) -> list[Audited]:
    """Audit one kernel for several architectures, two at a time: their time is that of tools."""
    for arch in archs:
        compile_ptx(kernel, arch)  # by one thread: Numba's compiler is not for several
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda arch: audit_kernel(kernel, bars, arch), archs))


def _faults(
    kernel: Kernel, bars: Bars, cubin: Cubin, listing: Listing, loop: Counter[str], part: float
) -> Iterator[str]:
    if cubin.spill_stores or cubin.spill_loads:
        yield f"spills {cubin.spill_stores} bytes and loads {cubin.spill_loads}"
    if listing.count("LDL") or listing.count("STL"):
        yield "touches local memory"
    if listing.doubles and "float64" not in kernel.name:
        yield f"has {listing.doubles} instructions in float64"
    if part < bars.share:
        yield f"multiplies in {part:.1%} of its main loop, less than {bars.share:.0%}"
    if bars.global_128:
        narrow = [name for name in loop if name.startswith("LDG") and ".128" not in name]
        tables = loop_table_loads(loop) + bars.words
        if sum(loop[name] for name in narrow) > tables:
            yield f"loads by {', '.join(narrow)}, not 128 bits at a time"


def loop_table_loads(loop: Counter[str]) -> int:
    """Return the main loop's reads of the table of steps, 64 bits each."""
    return sum(count for name, count in loop.items() if name.startswith("LDG.E.64"))
