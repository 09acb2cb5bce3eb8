"""Which kernel runs a problem, and why.

The order: a kernel forced by `use_kernel` (or ``FASTCONV_KERNEL``), else the one that was measured
to be fastest (see `fastconv.tuning`), else the lowest predicted cost, always among the kernels that
have no reason against the problem; else an error that holds every reason.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from . import recall, tuning
from .contract import first_use, sources
from .contract.array_problem import ArrayBinding, ArrayProblem
from .contract.cpu import cpu_info
from .contract.errors import ArgumentError, NoKernelError
from .contract.problem import ConvProblem
from .contract.settings import config
from .contract.sparse_problem import SparseProblem
from .contract.spec import (
    ArrayPlan,
    Binding,
    ConvPlan,
    CudaInfo,
    DeviceInfo,
    KernelSpec,
    SparseBinding,
    SparsePlan,
)
from .cuda_device import current_device, device_now

if TYPE_CHECKING:
    from .contract.boundary_problem import BoundaryProblem
    from .contract.transposed_problem import TransposedProblem

__all__ = [
    "Candidate",
    "Problem",
    "calls_of_weight",
    "choose",
    "device_info",
    "keep_choice",
    "kernels",
    "list_candidates",
    "make_plan",
    "pick_winner",
    "plan_of",
    "precision",
    "predicted_seconds",
    "settings",
    "steady_choice",
    "tuned_choice",
    "unforced",
    "use_kernel",
]

#: What is dispatched.
Problem = ConvProblem | SparseProblem | ArrayProblem

#: The modules of a device; each has a tuple SPECS.
_TABLES = {
    "cpu": ("fastconv.kernels.cpu.specs", "fastconv.kernels.cpu.sparse.specs"),
    "cuda": ("fastconv.kernels.cuda.specs", "fastconv.kernels.cuda.sparse.specs"),
}

_forced: ContextVar[str | None] = ContextVar("fastconv_kernel", default=config.kernel)
_precision: ContextVar[str] = ContextVar("fastconv_precision", default=config.precision)
_steady: ContextVar[bool] = ContextVar("fastconv_steady", default=False)
_chosen: dict[tuple[Any, ...], KernelSpec] = {}
_MOST_CHOSEN = 4096


def kernels(op: str | None = None, device: str | None = None) -> list[KernelSpec]:
    """Return the registered kernels, all or those for one operator or device.

    Examples
    --------
    >>> [spec.name for spec in kernels(op="conv", device="cpu")][0]
    'cpu.im2col_gemm'
    """
    specs = [
        spec
        for name, tables in _TABLES.items()
        if device in (None, name)
        for table in tables
        for spec in first_use.load(table).SPECS
    ]
    return [spec for spec in specs if op in (None, spec.op)]


def settings() -> tuple[str | None, str, int, tuple[int, str] | None, bool]:
    """Return what decides a choice beside the problem: forced kernel, precision, threads, GPU.

    And whether it is to be the same for any number of threads.
    """
    return _forced.get(), _precision.get(), config.num_threads, device_now(), _steady.get()


@contextlib.contextmanager
def steady_choice() -> Iterator[None]:
    """Choose kernels as for one thread, so that results are the same bits for any number.

    What was measured counts for the number of threads that it was measured with, so not here.
    """
    before = _steady.get()
    try:
        _steady.set(True)
        yield
    finally:
        _steady.set(before)


@contextlib.contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Run every call inside the ``with`` block by one kernel.

    Parameters
    ----------
    name : str
        A kernel's name, as `explain` shows it.

    Raises
    ------
    NoKernelError
        At once for an unknown name; by a call whose problem the kernel cannot run.

    Notes
    -----
    It holds for the thread or asyncio task that enters the block; threads of an executor do not
    see it unless they are told, as `precision` shows.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 8, 8), "f4"), np.ones((1, 1, 3, 3), "f4")
    >>> with fastconv.use_kernel("cpu.im2col_gemm"):
    ...     float(fastconv.conv2d(x, w)[0, 0, 0, 0])
    9.0
    """
    _named(name)
    before = _forced.get()
    try:  # a signal handler may raise as soon as it is set
        _forced.set(name)
        yield
    finally:
        _forced.set(before)


@contextlib.contextmanager
def unforced() -> Iterator[None]:
    """Choose freely for a part of a call that is another operator than the call's."""
    before = _forced.get()
    try:
        _forced.set(None)
        yield
    finally:
        _forced.set(before)


@contextlib.contextmanager
def precision(mode: str) -> Iterator[None]:
    """Allow ("fast") or leave out ("exact") kernels that transform the arithmetic.

    Parameters
    ----------
    mode : {"fast", "exact"}
        "exact" sums the products of the definition and nothing else, and takes no denormal number
        for zero, which may slow calls that meet many of them.

    Notes
    -----
    It holds for the thread or asyncio task that enters the block. Tasks that are made inside, and
    `asyncio.to_thread`, see it; threads, and so those of an executor, do not, unless each call
    brings a copy of the context along.

    Examples
    --------
    >>> import contextvars, numpy as np, fastconv
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> x, w = np.ones((1, 1, 8, 8), "f4"), np.ones((1, 1, 3, 3), "f4")
    >>> with ThreadPoolExecutor() as executor, fastconv.precision("exact"):
    ...     context = contextvars.copy_context()  # one for each call: none runs in two threads
    ...     executor.submit(context.run, fastconv.conv2d, x, w).result()[0, 0, 0, 0].item()
    9.0
    """
    given: object = mode  # whatever the annotation says
    if not isinstance(given, str) or given not in ("fast", "exact"):
        raise ArgumentError(f"mode: got {mode!r}, want 'fast' or 'exact'")
    before = _precision.get()
    try:
        _precision.set(mode)
        yield
    finally:
        _precision.set(before)


def _named(name: object) -> KernelSpec:
    specs = {spec.name: spec for spec in kernels()}
    if not isinstance(name, str) or name not in specs:
        raise _unknown(str(name), specs)
    return specs[name]


def _unknown(name: str, specs: dict[str, KernelSpec]) -> NoKernelError:
    """Return the error of a name that no kernel has: which are like it, and their neighbours."""
    near = [each for each in specs if each.endswith(f".{name}")]
    near = near or difflib.get_close_matches(name, specs)
    kinds = {(specs[each].op, specs[each].device) for each in near}
    listed = [each for each, spec in specs.items() if (spec.op, spec.device) in kinds] or list(
        specs
    )
    meant = f" (do you mean {' or '.join(near)}?)" if near else ""
    return NoKernelError(f"kernel: got {name!r}{meant}, want one of {', '.join(listed)}")


def device_info(problem: Problem) -> DeviceInfo | CudaInfo:
    """Return what a problem would run on: the CPU, or the GPU in force."""
    return cpu_info() if problem.device == "cpu" else current_device()[1]


def _reasons(spec: KernelSpec, problem: Problem, device: DeviceInfo | CudaInfo) -> list[str]:
    """Return every sentence against a kernel, the settings' among them."""
    if spec.op != problem.op:
        return [f"computes {spec.op}, not {problem.op}"]
    if spec.device != problem.device:
        return [f"runs on {spec.device}, and the arrays are on {problem.device}"]
    reasons = []
    if problem.dtype not in spec.tolerance:
        reasons.append(f"has no {problem.dtype} code, only {', '.join(spec.tolerance)}")
    elif problem.result_dtype not in spec.tolerance:
        reasons.append(f"stores no {problem.result_dtype}, only {', '.join(spec.tolerance)}")
    reasons += spec.reasons(problem, device)
    if not spec.exact and _precision.get() == "exact":
        reasons.append('transforms the arithmetic, which precision("exact") rules out')
    return reasons


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel as one problem sees it.

    Parameters
    ----------
    spec : KernelSpec
        The kernel.
    reasons : list of str
        What stands against it; costs are only told where nothing does.
    seconds, pack_seconds : float
        Predicted time of a call, and the part of it that packs the weight: a tenth of packing where
        it is remembered (see `fastconv.recall`).
    """

    spec: KernelSpec
    reasons: list[str]
    seconds: float = math.inf
    pack_seconds: float = 0.0


def calls_of_weight(problem: Problem | TransposedProblem | BoundaryProblem) -> int:
    """Return in how many calls of the functional form a weight is thought to be packed once."""
    if isinstance(problem, (SparseProblem, ArrayProblem)) or problem.device != "cpu":
        return 1
    return recall.calls(math.prod(problem.weight_shape) * problem.weight_itemsize)


def list_candidates(problem: Problem, packed: bool) -> list[Candidate]:
    """Return every kernel of the problem's operator, with its reasons or its cost."""
    device, candidates, calls = device_info(problem), [], calls_of_weight(problem)
    if _steady.get() and isinstance(device, DeviceInfo):
        device = replace(device, threads=1)
    for spec in kernels(problem.op, problem.device):
        reasons = _reasons(spec, problem, device)
        if reasons:
            candidates.append(Candidate(spec, reasons))
            continue
        packing = 0.0 if packed else spec.pack_cost(problem, device) / calls
        candidates.append(Candidate(spec, [], spec.cost(problem, device) + packing, packing))
    return candidates


@functools.cache
def _code_of(op: str, device: str) -> str:
    """Return a hash over the sources of all kernels of an operator: one that changed may win."""
    modules = (spec.target.partition(":")[0] for spec in kernels(op, device))
    return first_use.run(sources.identity, *modules)[:16]  # which imports their packages


def _choice_key(problem: Problem, packed: bool) -> str:
    device = device_info(problem)
    where = device.name if isinstance(device, CudaInfo) else f"{config.num_threads} threads"
    code = _code_of(problem.op, problem.device)
    return tuning.choice_key(problem, packed, _precision.get(), where, code)


def tuned_choice(problem: Problem, packed: bool) -> tuning.Choice | None:
    """Return what was measured for a problem under the settings in force."""
    memory = tuning.memory()
    return memory.get(_choice_key(problem, packed)) if memory.all() else None


def keep_choice(problem: Problem, packed: bool, choice: tuning.Choice) -> None:
    """Remember what was measured for a problem under the settings in force."""
    tuning.memory().add(_choice_key(problem, packed), choice)
    _chosen.clear()


def pick_winner(
    problem: Problem, packed: bool, candidates: list[Candidate]
) -> tuple[Candidate | None, str]:
    """Return the kernel to run, None where there is none, and the rule that picked it.

    The rule is "forced", "tuned" or "cost".
    """
    able = {candidate.spec.name: candidate for candidate in candidates if not candidate.reasons}
    if forced := _forced.get():
        return able.get(_named(forced).name), "forced"
    tuned = None if _steady.get() else tuned_choice(problem, packed)
    if tuned is not None and tuned.kernel in able:
        return able[tuned.kernel], "tuned"
    return min(able.values(), key=lambda candidate: candidate.seconds, default=None), "cost"


def predicted_seconds(problem: Problem, packed: bool) -> float:
    """Return the time that a call is predicted to take, infinity where no kernel can run it."""
    winner, _ = pick_winner(problem, packed, list_candidates(problem, packed))
    return math.inf if winner is None else winner.seconds


def choose(problem: Problem, packed: bool = True) -> KernelSpec:
    """Return the kernel that a call with this problem would run.

    Parameters
    ----------
    problem : ConvProblem, SparseProblem or ArrayProblem
        What is computed.
    packed : bool
        Whether the weight is packed once for many calls, as objects do, or in each call.

    Raises
    ------
    NoKernelError
        With every kernel's reasons where none can run it.
    """
    key = (problem, packed, *settings())
    spec = _chosen.get(key)
    if spec is None:
        candidates = list_candidates(problem, packed)
        winner, _ = pick_winner(problem, packed, candidates)
        if winner is None:
            raise _no_kernel(problem, candidates)
        spec = winner.spec
        if len(_chosen) >= _MOST_CHOSEN:
            _chosen.clear()
        _chosen[key] = spec
        if config.log:
            print(f"fastconv: {spec.name} {problem.line()}", file=sys.stderr)
    return spec


def _no_kernel(problem: Problem, candidates: list[Candidate]) -> NoKernelError:
    refusals, who = (
        {candidate.spec.name: candidate.reasons for candidate in candidates},
        "no kernel runs",
    )
    if forced := _forced.get():
        who = "the kernel that is forced does not run"
        refusals = {forced: _reasons(_named(forced), problem, device_info(problem))}
    text = ". ".join(f"{name} {'; '.join(reasons)}" for name, reasons in refusals.items())
    text = text or f"there is none for {problem.op} on {problem.device}"
    return NoKernelError(f"{who} {problem.line()}: {text}")


def plan_of(
    spec: KernelSpec, problem: Problem, binding: Binding | SparseBinding | ArrayBinding
) -> Any:
    """Return one kernel's plan for a problem, compiled on first use."""
    module, _, function = spec.target.partition(":")
    binding = replace(binding, flush=_precision.get() != "exact")

    def plan() -> Any:
        target = getattr(first_use.load(module), function)
        return target(problem, binding, device_info(problem))

    # The first plan of a kernel loads and compiles a dozen things, at one go.
    return plan() if module in sys.modules else first_use.run(plan)


@overload
def make_plan(
    problem: ConvProblem, binding: Binding, packed: bool = True
) -> tuple[KernelSpec, ConvPlan]: ...


@overload
def make_plan(
    problem: SparseProblem, binding: SparseBinding, packed: bool = True
) -> tuple[KernelSpec, SparsePlan]: ...


@overload
def make_plan(
    problem: ArrayProblem, binding: ArrayBinding, packed: bool = True
) -> tuple[KernelSpec, ArrayPlan]: ...


def make_plan(
    problem: Problem, binding: Binding | SparseBinding | ArrayBinding, packed: bool = True
) -> tuple[KernelSpec, Any]:
    """Choose a kernel and make it ready; compiles it on first use."""
    spec = choose(problem, packed)
    return spec, plan_of(spec, problem, binding)
