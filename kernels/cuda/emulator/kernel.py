"""The public object: a kernel that is launched on the host."""

from __future__ import annotations

import enum
import importlib.util
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from . import places
from .arguments import Arguments
from .coroutine import MAXIMUM_SHARED
from .counters import HEAD, TOTALS
from .errors import DivergentBarrierError, RaceError
from .faults import ROW
from .image import Image, Worker
from .ir import Module, kernel_module, lock
from .names import shared_names
from .printing import Lines, collect
from .report import AccessCount, Fault, Report, Scene, fault_of
from .scheduler import compiled_run

__all__ = ["ALL", "FAST", "Checks", "EmulatedKernel"]


class Checks(enum.IntFlag):
    """What a launch looks for."""

    FAST = 0  #: nothing but threads that cannot go on
    RACES = places.RACES  #: accesses to shared memory that no barrier orders
    UNINITIALISED = places.UNINIT  #: shared memory read before it is written
    BOUNDS = places.BOUNDS  #: accesses outside of arrays and misaligned ones, also with those above
    COUNTS = places.COUNTS  #: sectors and bank conflicts; bounds as well
    ORDERS = 16  #: results in other orders of threads and blocks
    ALL = 31


FAST, ALL = Checks.FAST, Checks.ALL
_WATCHED = Checks.RACES | Checks.UNINITIALISED | Checks.BOUNDS | Checks.COUNTS
_MAXIMUM_GRID = (2**31 - 1, 65535, 65535)
_MAXIMUM_BLOCK = (1024, 1024, 64)


class EmulatedKernel:
    """A CUDA kernel that runs on the host.

    Parameters
    ----------
    kernel : function or Numba-CUDA dispatcher
        What ``@cuda.jit`` decorates, or its result. Launch bounds and limits of registers are for
        a GPU and mean nothing here.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import cuda
    >>> from fastconv import cuda_emulator
    >>> def double(x):
    ...     i = cuda.grid(1)
    ...     if i < x.size:
    ...         x[i] *= 2
    >>> x = np.arange(5.0)
    >>> report = cuda_emulator.EmulatedKernel(double).launch(1, 32, (x,))
    >>> x, report.faults
    (array([0., 2., 4., 6., 8.]), [])
    """

    def __init__(self, kernel: Callable[..., Any] | Any) -> None:
        if importlib.util.find_spec("numba_cuda") is None:
            raise ImportError(
                "the emulator starts from the code that Numba-CUDA makes, and numba-cuda is not "
                "installed: pip install 'numba-cuda[cu13]' (no GPU is needed)"
            )
        self.function = getattr(kernel, "py_func", kernel)
        self.options = dict(getattr(kernel, "targetoptions", {}))
        self.__name__ = self.function.__name__
        self._names = list(inspect.signature(self.function).parameters)
        self._modules: dict[tuple[Any, ...], Module] = {}
        self._images: dict[tuple[Any, ...], Image] = {}

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., None]:
        """Return a function that launches with ``[grid, block, stream, shared]`` and raises."""
        grid, block, *rest = configuration
        shared = rest[1] if len(rest) > 1 else 0

        def launch(*args: Any) -> None:
            self.launch(grid, block, args, shared=shared, checks=ALL).raise_faults()

        return launch

    def launch(
        self,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        args: tuple[Any, ...],
        shared: int = 0,
        order: str | int = "forward",
        checks: Checks | int = FAST,
        threads: int = 2,
    ) -> Report:
        """Run the kernel and return what it showed.

        Parameters
        ----------
        grid, block : int or tuple of int
            Blocks and threads, up to three axes.
        args : tuple
            NumPy arrays and scalars; arrays are written in place.
        shared : int
            Bytes of dynamic shared memory.
        order : {"forward", "reverse"} or int
            Of threads and blocks; a number is the seed of a random one.
        checks : Checks
            What to look for. `FAST` runs at full speed and trusts the kernel: an index out of
            bounds may end the process, as in C.
        threads : int
            Host threads, which take whole blocks; one where `checks` look at orders, as blocks
            that run at the same time are in no order.

        Returns
        -------
        Report
            With every fault that was found; nothing is raised for them.

        Raises
        ------
        DivergentBarrierError
            In any case where threads wait for others that never come.
        UnsupportedInstructionError
            Where the kernel uses what has no twin on the host.
        """
        grid, block = _size(grid, _MAXIMUM_GRID, "grid"), _size(block, _MAXIMUM_BLOCK, "block")
        if math.prod(block) > 1024:
            raise ValueError(f"a block has at most 1024 threads, not {math.prod(block)}: {block}")
        checks = Checks(checks)
        image = self._image(args, checked=bool(checks & _WATCHED))
        static = max((array.offset + array.size for array in image.shared), default=0)
        if not 0 <= shared <= MAXIMUM_SHARED - static:
            raise ValueError(
                f"{shared} bytes of dynamic shared memory beside {static} static ones: "
                f"no GPU gives a block more than {MAXIMUM_SHARED}"
            )
        arguments = Arguments(self._names, args, self._types(args), guarded=checks != FAST)
        names = shared_names(self.function, image.shared)
        scene = Scene(
            self.__name__, grid, block, image.sites, arguments.arrays, image.shared, names, shared,
            image.raised,
        )  # fmt: skip
        run = _Run(scene, image, arguments, checks, 1 if checks & Checks.ORDERS else threads)
        report = run.all_orders(order) if checks & Checks.ORDERS else run.once(order)
        arguments.copy_back()
        for _, text in sorted(run.lines, key=lambda line: line[0]):
            print(text, end="")
        if run.stuck:
            raise DivergentBarrierError(report.divergent_barriers[-1].message)
        return report

    def _types(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(args) != len(self._names):
            raise TypeError(f"{self.__name__} takes {len(self._names)} arguments, not {len(args)}")
        with lock:  # Numba imports what it asks a value for when it is first asked
            from numba.cuda.typing.typeof import Purpose, typeof

            return tuple(typeof(value, Purpose.argument) for value in args)

    def _image(self, args: tuple[Any, ...], *, checked: bool) -> Image:
        """Compile for these types, or find what was compiled."""
        types = self._types(args)
        with lock:
            if types not in self._modules:
                self._modules[types] = kernel_module(self.function, types, self.options)
            key = (types, checked)
            if key not in self._images:
                self._images[key] = Image(self._modules[types], checked=checked)
            return self._images[key]


def _size(value: int | tuple[int, ...], limits: tuple[int, ...], what: str) -> tuple[int, int, int]:
    sizes = tuple(int(n) for n in value) if isinstance(value, (tuple, list)) else (int(value),)
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"a {what} has one to three axes, not {len(sizes)}")
    sizes += (1,) * (3 - len(sizes))
    for size, limit in zip(sizes, limits, strict=True):
        if not 1 <= size <= limit:
            raise ValueError(f"{what} {sizes}: every axis from 1 to {limits}")
    return sizes[0], sizes[1], sizes[2]


class _Run:
    """One launch."""

    def __init__(
        self, scene: Scene, image: Image, arguments: Arguments, checks: Checks, threads: int
    ) -> None:
        self.scene, self.image, self.arguments, self.checks = scene, image, arguments, checks
        self.blocks, self.block_size = math.prod(scene.grid), math.prod(scene.block)
        self.threads = max(1, min(threads, self.blocks))
        self.run = compiled_run()
        self.stuck = False
        self.lines = Lines()

    def all_orders(self, order: str | int) -> Report:
        """Run in several orders from the same arrays and compare what they leave."""
        before = self.arguments.save()
        report = self.once(order)
        first, lines = self.arguments.save(), self.lines
        differing: dict[str, str] = {}
        for other in ("forward", "reverse", 1):
            if other == order or self.stuck:
                continue
            self.arguments.restore(before)
            known = {(fault.error, frozenset(fault.lines)) for fault in report.faults}
            report.faults += [
                fault
                for fault in self.once(other).faults
                if (fault.error, frozenset(fault.lines)) not in known
            ]
            now = self.arguments.save()
            for array in self.arguments.arrays:
                old, new = (self.arguments.view(array, memory) for memory in (first, now))
                if not _same(old, new, exact=not self.image.float_atomics):
                    differing.setdefault(array.name, f"{order!r} and {other!r}")
        self.arguments.restore(first)
        self.lines = lines
        report.order_dependent = list(differing)
        for name, orders in differing.items():
            what = f"{name} depends on the order of threads and blocks: {orders} differ"
            report.faults.append(Fault(RaceError, f"{report.kernel}: {what}", ()))
        return report

    def once(self, order: str | int) -> Report:
        """Run in one order; `lines` become what it prints."""
        self.lines = Lines()
        workers = self.image.take(self.threads)
        errors: list[BaseException] = []
        jobs = []
        for number, worker in enumerate(workers[1:], 1):
            job = threading.Thread(target=self._work, args=(worker, number, order, errors))
            try:
                job.start()
                jobs.append(job)
            except RuntimeError:  # the system lets no more threads start
                self._work(worker, number, order, errors)
        self._work(workers[0], 0, order, errors)
        for job in jobs:
            job.join()
        try:
            if errors:
                raise errors[0]
            return self._report(workers)
        finally:
            # Not where the launch is interrupted before this: threads may still be at work.
            self.image.give_back(workers)

    def _work(
        self, worker: Worker, number: int, order: str | int, errors: list[BaseException]
    ) -> None:
        scene = self.scene
        try:
            blocks, orders = _orders(order, self.blocks, self.block_size)
            worker.prepare(orders.shape[1])
            worker.log[0] = 0
            monitor = 0
            if self.image.checked:
                regions = [(a.begin, a.end) for a in self.arguments.arrays] or [(0, 0)]
                flags = int(self.checks & _WATCHED)
                monitor = worker.watch(flags, np.array(regions, np.int64), scene.dynamic)
            geometry = np.array(
                [*scene.grid, *scene.block, scene.dynamic, worker.shared, monitor, number,
                 self.threads, worker.make, worker.step, worker.destroy,
                 self.arguments.buffer.ctypes.data],
                np.int64,
            )  # fmt: skip
            lines = collect()
            finished = self.run(
                geometry, blocks, orders, worker.words, worker.longs, worker.reals, worker.states,
                worker.handles, worker.log,
            )  # fmt: skip
            self.lines += lines
            if finished < len(range(number, blocks.size, self.threads)):
                self.stuck = True
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that launched
            errors.append(error)

    def _report(self, workers: list[Worker]) -> Report:
        report = Report(self.scene.kernel)
        faults: dict[tuple[Any, ...], Fault] = {}
        totals = np.zeros((len(self.image.sites), TOTALS), np.int64)
        for worker in workers:
            for row in worker.log[1 : 1 + ROW * worker.log[0]].reshape(-1, ROW):
                fault = fault_of(self.scene, row, worker.shared, worker.shared_end)
                faults.setdefault((int(row[0]), self.image.sites[row[1]].kind, *fault.lines), fault)
            if self.checks & Checks.COUNTS:
                begin = HEAD + len(self.image.sites)
                part = worker.counters[begin : begin + totals.size].reshape(totals.shape)
                totals[:, :4] += part[:, :4]
                used = part[:, 0] > 0
                totals[used, 4:] = part[used, 4:]
                report.uncounted += int(worker.counters[3])
        # By kind: a race explains the uninitialised memory that is read because of it.
        report.faults = [faults[key] for key in sorted(faults)]
        report.accesses = self._accesses(totals)
        return report

    def _accesses(self, totals: np.ndarray) -> list[AccessCount]:
        accesses = []
        for site, row in zip(self.image.sites, totals, strict=True):
            requests, cost, least, _, shared, address = (int(word) for word in row)
            if requests:
                name, _ = self.scene.place(address, 0, address + 1 if shared else 0)
                space = "shared" if shared else "global"
                place = (site.file, site.line, site.size)
                accesses.append(AccessCount(site.kind, space, name, *place, requests, cost, least))
        return accesses


def _orders(order: str | int, blocks: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks, and permutations of threads that are taken in turn."""
    forward = np.arange(threads, dtype=np.int64)[None]
    if order == "forward":
        return np.arange(blocks, dtype=np.int64), forward
    if order == "reverse":
        return np.arange(blocks, dtype=np.int64)[::-1].copy(), forward[:, ::-1].copy()
    if isinstance(order, str):
        raise ValueError(f"order {order!r}: 'forward', 'reverse' or a number")
    generator = np.random.default_rng(order)
    several = np.array([generator.permutation(threads) for _ in range(8)], np.int64)
    return generator.permutation(blocks).astype(np.int64), several


def _same(old: np.ndarray, new: np.ndarray, *, exact: bool) -> bool:
    """Whether two results agree; sums by atomics on floats are rounded in any order."""
    if exact or old.dtype.kind not in "fc":
        return old.tobytes() == new.tobytes()
    scale = float(np.abs(np.nan_to_num(old)).max(initial=0.0))
    tolerance = 1e-12 if old.dtype.itemsize >= 8 else 1e-4
    return bool(np.allclose(old, new, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
