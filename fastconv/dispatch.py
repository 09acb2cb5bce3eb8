"""Which kernel runs a problem, and why.

The order: a kernel forced by `use_kernel` (or ``FASTCONV_KERNEL``), else the lowest predicted cost
among the kernels that have no reason against the problem, else an error that holds every reason.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .config import config
from .device import cpu_info
from .errors import NoKernelError
from .problem import ConvProblem, parse_line
from .spec import Binding, ConvPlan, DeviceInfo, KernelSpec

__all__ = [
    "Explanation",
    "Row",
    "choose",
    "explain",
    "kernels",
    "make_plan",
    "precision",
    "use_kernel",
]

#: One module a device; each has a tuple SPECS.
_TABLES = {"cpu": "fastconv.kernels.cpu.specs"}

_forced: ContextVar[str | None] = ContextVar("fastconv_kernel", default=config.kernel)
_precision: ContextVar[str] = ContextVar("fastconv_precision", default=config.precision)
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
        for name, table in _TABLES.items()
        if device in (None, name)
        for spec in importlib.import_module(table).SPECS
    ]
    return [spec for spec in specs if op in (None, spec.op)]


def settings() -> tuple[str | None, str, int]:
    """Return what decides a choice beside the problem: forced kernel, precision, threads."""
    return _forced.get(), _precision.get(), config.num_threads


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
        At once for an unknown name; by a call whose problem the kernel can not run.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 8, 8), "f4"), np.ones((1, 1, 3, 3), "f4")
    >>> with fastconv.use_kernel("cpu.im2col_gemm"):
    ...     float(fastconv.conv2d(x, w)[0, 0, 0, 0])
    9.0
    """
    _named(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@contextlib.contextmanager
def precision(mode: str) -> Iterator[None]:
    """Allow ("fast") or leave out ("exact") kernels that transform the arithmetic.

    Parameters
    ----------
    mode : {"fast", "exact"}
        "exact" sums the products of the definition and nothing else.
    """
    if mode not in ("fast", "exact"):
        raise ValueError(f"mode: got {mode!r}, want 'fast' or 'exact'")
    token = _precision.set(mode)
    try:
        yield
    finally:
        _precision.reset(token)


def _named(name: str) -> KernelSpec:
    found = {spec.name: spec for spec in kernels()}
    if name not in found:
        raise NoKernelError(f"kernel: got {name!r}, want one of {', '.join(found)}")
    return found[name]


def _device(problem: ConvProblem) -> DeviceInfo:
    return cpu_info()


def _reasons(spec: KernelSpec, problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return every sentence against a kernel, the settings' among them."""
    if spec.op != problem.op:
        return [f"computes {spec.op}, not {problem.op}"]
    reasons = []
    if problem.dtype not in spec.tolerance:
        reasons.append(f"has no {problem.dtype} code, only {', '.join(spec.tolerance)}")
    reasons += spec.reasons(problem, device)
    if not spec.exact and _precision.get() == "exact":
        reasons.append('transforms the arithmetic, which precision("exact") rules out')
    return reasons


def choose(problem: ConvProblem) -> KernelSpec:
    """Return the kernel that a call with this problem would run.

    Raises
    ------
    NoKernelError
        With every kernel's reasons where none can run it.
    """
    key = (problem, *settings())
    spec = _chosen.get(key)
    if spec is None:
        spec = _choose(problem)
        if len(_chosen) >= _MOST_CHOSEN:
            _chosen.clear()
        _chosen[key] = spec
        if config.log:
            print(f"fastconv: {spec.name} {problem.line()}", file=sys.stderr)
    return spec


def _choose(problem: ConvProblem) -> KernelSpec:
    device, forced = _device(problem), _forced.get()
    candidates = [_named(forced)] if forced else kernels(problem.op, problem.device)
    best: tuple[float, KernelSpec] | None = None
    refusals = []
    for spec in candidates:
        reasons = _reasons(spec, problem, device)
        if reasons:
            refusals.append(f"{spec.name} {'; '.join(reasons)}")
            continue
        cost = spec.cost(problem, device)
        if best is None or cost < best[0]:
            best = cost, spec
    if best is None:
        raise NoKernelError(f"no kernel runs {problem.line()}: " + ". ".join(refusals))
    return best[1]


def make_plan(problem: ConvProblem, binding: Binding) -> tuple[KernelSpec, ConvPlan]:
    """Choose a kernel and make it ready; compiles it on first use."""
    spec = choose(problem)
    module, _, function = spec.target.partition(":")
    target = getattr(importlib.import_module(module), function)
    return spec, target(problem, binding, _device(problem))


@dataclass(frozen=True, slots=True)
class Row:
    """What `explain` says of one kernel.

    Parameters
    ----------
    kernel : str
        Its name.
    chosen : bool
        Whether a call would run it.
    milliseconds : float or None
        Predicted time; None where it can not run the problem.
    workspace : int or None
        Scratch bytes; None where it can not run the problem.
    reasons : list of str
        Why it can not run the problem, or why another one is chosen.
    """

    kernel: str
    chosen: bool
    milliseconds: float | None
    workspace: int | None
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The dispatcher's view of one problem; ``str()`` gives a table."""

    problem: ConvProblem
    rows: list[Row]

    @property
    def chosen(self) -> str:
        """Name of the kernel that a call would run, "" where there is none."""
        return next((row.kernel for row in self.rows if row.chosen), "")

    def __str__(self) -> str:
        lines = [
            f"{self.problem.line()}  {self.problem.dtype}, {self.problem.layout}, "
            f"{self.problem.flops / 1e6:,.{1 if self.problem.flops > 1e5 else 4}f} MFLOP",
            f"  {'kernel':<22} {'predicted ms':>12} {'workspace':>10}  why",
        ]
        for row in self.rows:
            time = "-" if row.milliseconds is None else f"{row.milliseconds:.3f}"
            space = "-" if row.workspace is None else f"{row.workspace / 1024:.0f} KiB"
            mark = ">" if row.chosen else " "
            why = "; ".join(row.reasons)
            lines.append(f"{mark} {row.kernel:<22} {time:>12} {space:>10}  {why}")
        return "\n".join(lines)


def explain(what: ConvProblem | str | Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Tell which kernel a problem would run, and what stands against every other.

    Parameters
    ----------
    what : ConvProblem, str or function
        A problem, a problem line (see `fastconv.problem.parse_line`), or ``conv1d``, ``conv2d``,
        ``conv3d`` with the arguments of a call, which is not made.
    *args, **kwargs
        Arguments of that call.

    Returns
    -------
    Explanation
        Printable; its rows hold the same as values.

    Examples
    --------
    >>> print(explain("ic64ih56oc64kh3ph1").rows[0].kernel)
    cpu.im2col_gemm
    """
    if isinstance(what, str):
        problem, _ = parse_line(what)
    elif isinstance(what, ConvProblem):
        problem = what
    else:
        from .functional import problem_of_call

        problem = problem_of_call(what, *args, **kwargs)
    return Explanation(problem, _explain_rows(problem))


def _explain_rows(problem: ConvProblem) -> list[Row]:
    device, forced = _device(problem), _forced.get()
    if forced:
        _named(forced)
    refused = {
        spec.name: _reasons(spec, problem, device) for spec in kernels(problem.op, problem.device)
    }
    costs = {
        spec.name: spec.cost(problem, device)
        for spec in kernels(problem.op, problem.device)
        if not refused[spec.name]
    }
    winner = forced if forced in costs else min(costs, key=lambda name: costs[name], default=None)
    if forced and forced not in costs:
        winner = None
    rows = []
    for spec in kernels(problem.op, problem.device):
        reasons = list(refused[spec.name])
        able = not reasons
        if spec.name == winner:
            reasons = [f"forced by use_kernel({forced!r})" if forced else "lowest predicted time"]
        elif able and winner and forced:
            reasons = [f"use_kernel({forced!r}) is in force"]
        elif able and winner:
            reasons = [f"{costs[spec.name] / costs[winner]:.1f} times the predicted time"]
        rows.append(
            Row(
                spec.name,
                spec.name == winner,
                costs[spec.name] * 1e3 if able else None,
                spec.workspace(problem, device) if able else None,
                reasons,
            )
        )
    return rows
