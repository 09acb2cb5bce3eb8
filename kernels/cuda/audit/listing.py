"""What the kernels of a plan look like: their generated text, and the SASS of their main loops.

A plan tells its kernels by launching them. Here launches are listed and do not run, on arrays that
are a place and no memory, so that any problem can be looked at, on any machine.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, ConvPlan, dense_strides

from ..common.launch import Kernel, recorded_launches
from .check import multiply_add_of, resident_blocks
from .compile import assemble, compile_ptx, disassemble
from .sass import parse, share

__all__ = ["assembly_listing", "code_listing", "launched_kernels"]


@dataclass(frozen=True, slots=True)
class _Place:
    """An array without memory: all that a plan asks of one before it launches."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    #: As well aligned as what a device hands out.
    pointer: ClassVar[int] = 1 << 20
    is_emulated: ClassVar[bool] = False

    def new(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Place:
        """Return a row-major array beside this one."""
        return _Place(shape, dense_strides(shape, dtype.itemsize), dtype)

    def from_host(self, values: Any) -> _Place:
        """Return the place of a copy."""
        return self.new(values.shape, values.dtype)


def launched_kernels(plan: ConvPlan, problem: ConvProblem, binding: Binding) -> list[Kernel]:
    """Return the kernels of a call whose weight is not packed yet, in order, each once.

    Parameters
    ----------
    plan, problem, binding
        What is called; the plan was made for the other two.
    """
    dtype = np.dtype(np.uint16 if problem.itemsize == 2 else problem.dtype)
    x, weight, out = (
        _Place(shape, strides, dtype)
        for shape, strides in (
            (problem.x_shape, binding.x_strides),
            (problem.weight_shape, binding.weight_strides),
            (problem.out_shape, binding.out_strides),
        )
    )
    with recorded_launches() as kernels:
        plan.run(x, plan.pack(weight), None, None, out)
    return list(dict.fromkeys(kernels))


def code_listing(kernels: Iterable[Kernel]) -> str:
    """Return the text of each kernel, and the numbers that stand for names in it."""
    return "\n\n".join("\n".join(_code_of(kernel)) for kernel in kernels)


def _code_of(kernel: Kernel) -> Iterator[str]:
    function = kernel.function
    yield (
        f"# {kernel.name}: {kernel.threads} threads, {kernel.shared} bytes of shared memory a block"
    )
    names = function.__code__.co_names
    given = {name: function.__globals__.get(name) for name in names}
    numbers = [
        f"{name} = {value}" for name, value in given.items() if isinstance(value, (int, np.integer))
    ]
    if numbers:
        yield f"# compiled for {', '.join(numbers)}"
    yield textwrap.dedent(inspect.getsource(function)).strip()


def assembly_listing(kernels: Iterable[Kernel], arch: str) -> str:
    """Return the main loop of each kernel that multiplies and adds, most multiply-adds first.

    Parameters
    ----------
    kernels : iterable of Kernel
        What is compiled.
    arch : str
        Architecture, say ``"sm_80"``.

    Raises
    ------
    DeviceError
        Where a tool of NVIDIA's that compiles or prints the code is missing.
    """
    listings = [_assembly_of(kernel, arch) for kernel in kernels]
    listings.sort(key=lambda ranked_listing: -ranked_listing[0])
    return "\n\n".join(text for _, text in listings)


def _assembly_of(kernel: Kernel, arch: str) -> tuple[float, str]:
    """Return the multiply-adds of a kernel's main loop, and what is told of the kernel."""
    cubin = assemble(compile_ptx(kernel, arch), arch)
    listing, multiply_add = parse(disassemble(cubin)), multiply_add_of(kernel)
    loop = listing.main_loop(multiply_add)
    part = share(loop, multiply_add)
    told = (
        f"# {kernel.name}, {arch}: {cubin.registers} registers, "
        f"{cubin.spill_stores + cubin.spill_loads} bytes spilled, {cubin.shared} bytes of shared "
        f"memory, {resident_blocks(cubin, kernel.threads, arch)} blocks a multiprocessor"
    )
    if not part:
        return 0.0, f"{told}; no loop multiplies and adds"
    accesses = ", ".join(
        f"{count} {name}"
        for name, count in sorted(loop.items())
        if name.startswith(("LD", "ST")) and not name.startswith("LDSM")
    )
    head = f"# main loop: {loop.total()} instructions, {part:.1%} {multiply_add}; {accesses}"
    return part * loop.total(), "\n".join((told, head, *listing.main_text(multiply_add)))
