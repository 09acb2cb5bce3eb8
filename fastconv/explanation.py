"""What the dispatcher thinks of a problem, for people to read.

Costs are those of a call as it is made: an object packs its weight once, as a problem or a line
without arrays is thought to; a call of ``conv2d`` packs a small weight each time, and of a large
one, which is remembered, a tenth of the packing counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, cast

from .array_libraries import view_array
from .composition import parts_of
from .contract import first_use
from .contract.arguments import bind_call
from .contract.array_problem import ArrayProblem
from .contract.boundary_problem import BoundaryProblem
from .contract.errors import DeviceError
from .contract.pair_problem import PairProblem
from .contract.problem import ConvProblem
from .contract.problem_line import AnyProblem, parse_any_line
from .contract.settings import config
from .contract.sparse_problem import SparseProblem
from .contract.spec import CudaInfo
from .contract.transposed_problem import TransposedProblem, input_gradient
from .cuda_device import EMULATED, named_model, use_device
from .dispatch import (
    Candidate,
    Problem,
    calls_of_weight,
    device_info,
    list_candidates,
    pick_winner,
    settings,
    steady_choice,
    tuned_choice,
    unforced,
)
from .trim import trim

__all__ = ["Explanation", "Row", "explain"]


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
        Predicted time; None where it cannot run the problem.
    pack_milliseconds : float or None
        The part of it that packs the weight, 0 where that is done once.
    workspace : int or None
        Scratch bytes; None where it cannot run the problem.
    reasons : list of str
        Why it cannot run the problem, or why another one is chosen.
    """

    kernel: str
    chosen: bool
    milliseconds: float | None
    pack_milliseconds: float | None
    workspace: int | None
    reasons: list[str]


#: What can be explained: what is dispatched, and what is made of such.
_Explained = Problem | AnyProblem
_KNOWN = (
    ConvProblem, SparseProblem, TransposedProblem, BoundaryProblem, PairProblem, ArrayProblem,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """The dispatcher's view of one problem; ``str()`` gives a table.

    Parameters
    ----------
    problem : ConvProblem, SparseProblem or any that a line describes
        What is computed.
    packed : bool
        Whether a weight is packed once for many calls, or in each call.
    rows : list of Row
        One a kernel; of a transposed convolution one for each kind of phase, of a pair one for each
        kind of a band's two calls, with its kernel, and of one with a boundary mode one for each
        kind of part and of copy.
    note : str
        What else is known of a call: of a sparse one, the rulebook.
    gpu : str or None
        The GPU that a CUDA problem is explained for.
    costs : str
        Where the costs of a CPU problem are from: measured on this machine, or shipped.
    """

    problem: _Explained
    packed: bool
    rows: list[Row]
    note: str = ""
    gpu: str | None = None
    costs: str = ""

    @property
    def chosen(self) -> str:
        """Name of the kernel that a call would run, "" where there is none."""
        return next((row.kernel for row in self.rows if row.chosen), "")

    def __str__(self) -> str:
        width = max([22, *(len(row.kernel) for row in self.rows)])
        lines = [
            f"{self.problem.line()}  {', '.join(_facts(self.problem, self.packed))}"
            + (f", forecast for {self.gpu}" if self.gpu else f", costs {self.costs}"),
            *filter(None, [self.note]),
            f"  {'kernel':<{width}} {'predicted ms':>12} {'packing':>8} {'workspace':>10}  why",
        ]
        for row in self.rows:
            time = "-" if row.milliseconds is None else f"{row.milliseconds:.3f}"
            packing = f"{row.pack_milliseconds:.3f}" if row.pack_milliseconds else "-"
            space = "-" if row.workspace is None else f"{row.workspace / 1024:.0f} KiB"
            mark = ">" if row.chosen else " "
            why = "; ".join(row.reasons)
            lines.append(f"{mark} {row.kernel:<{width}} {time:>12} {packing:>8} {space:>10}  {why}")
        return "\n".join(lines)


def _facts(problem: _Explained, packed: bool) -> list[str]:
    """Return what stands beside a problem's line."""
    facts = [problem.dtype]
    if (
        isinstance(problem, (ConvProblem, BoundaryProblem))
        and not problem.dtype == problem.weight_dtype == problem.result_dtype
    ):
        facts = [f"{problem.dtype} to {problem.result_dtype}"]
    if isinstance(problem, ArrayProblem):
        return [*facts, problem.layout]
    if isinstance(problem, (ConvProblem, TransposedProblem, BoundaryProblem, PairProblem)):
        facts.append(problem.layout)
    elif problem.op != "sparse_conv":
        return facts
    facts.append(f"{problem.flops / 1e6:,.{1 if problem.flops > 1e5 else 4}f} MFLOP")
    if isinstance(problem, PairProblem):
        return [*facts, f"weights packed {'once' if packed else 'in each call, or remembered'}"]
    if not packed and calls_of_weight(problem) > 1:
        return [*facts, "weight remembered"]
    return [*facts, f"weight packed {'once' if packed else 'in each call'}"]


def explain(
    what: _Explained | str | Callable[..., Any],
    *args: Any,
    gpu: str | None = None,
    **kwargs: Any,
) -> Explanation:
    """Tell which kernel a problem would run, and what stands against every other.

    Parameters
    ----------
    what : a problem, str, function or object
        A problem, a problem line (see `fastconv.contract.problem_line.parse_any_line`), or
        ``conv1d``, ``conv2d``, ``conv3d``, one of ``conv_transpose1d`` to ``3d`` or an operator of
        `fastconv.sparse` with the arguments of a call, which is not made, or an object of `Conv1d`
        to `Conv3d`, `ConvTranspose1d` to `ConvTranspose3d` or `fastconv.sparse.nn` with
        its input. The rulebook of a sparse call is built.
    *args, **kwargs
        Arguments of that call.
    gpu : str, optional
        A name of `fastconv.cuda_device.MODELS`: what would run on such a GPU, which need not be
        there.

    Returns
    -------
    Explanation
        Printable; its rows hold the same as values.

    Raises
    ------
    DeviceError
        For a CUDA problem where there is no GPU and `gpu` names none.

    Examples
    --------
    >>> told = explain("ic64ih56oc64kh3ph1")
    >>> next(row.reasons for row in told.rows if row.kernel == told.chosen)
    ['lowest predicted time']
    >>> explain("g64ic64ih56oc64kh3ph1", gpu="A100").chosen
    'cuda.depthwise'
    """
    with contextlib.ExitStack() as stack:
        problem, packed, note = _problem_of(stack, what, args, kwargs)
        if gpu is not None:
            model = named_model(gpu)
            stack.enter_context(use_device(EMULATED, model))
            if isinstance(problem, (BoundaryProblem, PairProblem)):
                problem = problem.with_(device="cuda")
            else:
                problem = replace(cast(Any, problem), device="cuda")
        try:
            return _explain(problem, packed, note)
        except DeviceError as error:
            hint = "" if gpu else "; explain(..., gpu='A100') needs no GPU"
            raise DeviceError(f"{error}{hint}") from error


def _problem_of(
    stack: contextlib.ExitStack, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[_Explained, bool, str]:
    """Return the problem, whether its weight is packed once, and what else is known of the call.

    The stack enters the device that the call's arrays live on.
    """
    what = getattr(what, "__wrapped__", what)  # a function that the package opened to tensors
    if isinstance(what, str):
        return parse_any_line(what)[0], True, ""
    if isinstance(what, _KNOWN):
        return what, True, ""
    if getattr(what, "__module__", "").startswith("fastconv.sparse."):
        return _sparse_problem_of(stack, what, *args, **kwargs)
    functional, layer, array_calls = (
        first_use.load(f"fastconv.{name}")
        for name in ("functional", "packed_layer", "ops.array_calls")
    )
    if getattr(what, "__module__", "") in array_calls.MODULES:
        bound = bind_call(what, args, kwargs)
        telling = first_use.load("fastconv.ops.telling")
        told = telling.told_call(what, *bound.args, **bound.kwargs)
        problem: Any = None if told is None else told.problem
        function = isinstance(what, FunctionType)
        note = "" if told is None or told.copy is None else _copy_note(told.copy)
        return problem, not function or isinstance(problem, ArrayProblem), note
    given = kwargs.get("input", args[0] if args else None)
    view = None if given is None else view_array("input", given)
    if view is not None:
        stack.enter_context(view.on_device())
    if isinstance(what, layer.PackedLayer):
        bound = bind_call(what.problem, args, kwargs)
        return what.problem(*bound.args, **bound.kwargs), True, ""
    return functional.problem_of_call(what, *args, **kwargs), False, ""


def _copy_note(copy: ArrayProblem) -> str:
    """Say what copying the input with its boundary takes before a pool."""
    with unforced():
        told = _explain(copy, True)
    row = next(row for row in told.rows if row.chosen)
    return f"of a copy of the input with its boundary: {row.kernel}, {row.milliseconds:.3f} ms"


def _sparse_problem_of(
    stack: contextlib.ExitStack, what: Any, *args: Any, **kwargs: Any
) -> tuple[Problem, bool, str]:
    functional, layers = (
        first_use.load(f"fastconv.sparse.{name}") for name in ("functional", "layers")
    )
    is_layer = isinstance(what, layers.Layer)
    call = (
        what.call(*bind_call(what.call, args, kwargs).args)
        if is_layer
        else functional.call_of(what, *args, **kwargs)
    )
    stack.enter_context(call.on_device())
    return call.problem, call.keeps_weight, call.note()


def _explain_parts(problem: TransposedProblem | BoundaryProblem, packed: bool) -> Explanation:
    """Tell of each kind of part which kernel computes it, with the time of all of its kind."""
    with _choice_of_parts():
        kinds, note = parts_of(problem, packed)
    rows, costs = [], ""
    for of, places in kinds.items():
        shown = places if len(places) < 4 else [*places[:2], "...", places[-1]]
        row, costs = _part_row(of, len(places), " ".join(shown), packed)
        if row is None:
            return replace(_explain(of, packed), problem=problem, note=note)
        rows.append(row)
    return Explanation(problem, packed, rows, note, costs=costs)


def _choice_of_parts() -> contextlib.AbstractContextManager[None]:
    """Return the context in which calls choose kernels for their parts."""
    return contextlib.nullcontext() if config.tune else steady_choice()


def _part_row(
    of: ConvProblem | ArrayProblem, count: int, why: str, packed: bool
) -> tuple[Row | None, str]:
    """Tell which kernel computes one kind of part, with the time of all, and whose costs it is.

    There is no row where a kernel is forced that cannot.
    """
    with (
        _choice_of_parts(),
        unforced() if isinstance(of, ArrayProblem) else contextlib.nullcontext(),
    ):
        told = _explain(of, packed)
    row = next((row for row in told.rows if row.chosen), None)
    if row is None:
        return None, told.costs
    times = (row.milliseconds or 0.0) * count, (row.pack_milliseconds or 0.0) * count
    if isinstance(of, ConvProblem):
        why = f"{'x'.join(map(str, of.kernel_size))} taps, {why}"
    return Row(row.kernel, True, *times, row.workspace, [why, *row.reasons]), told.costs


def _explain_pair(problem: PairProblem, packed: bool) -> Explanation:
    """Tell of each kind of a band's two calls which kernel computes it, with the time of all."""
    kinds: dict[tuple[str, ConvProblem], int] = {}
    for band, count in problem.kinds():
        for name, dense in zip(("first", "second"), problem.parts(band), strict=True):
            if dense is not None:
                kinds[name, dense] = kinds.get((name, dense), 0) + count
    rows, costs = [], ""
    for (name, dense), count in sorted(kinds.items(), key=lambda kind: kind[0][0]):
        why = f"{name} convolution, {dense.out_size[0]} rows at a time, {count} times"
        row, costs = _part_row(dense, count, why, packed)
        assert row is not None
        rows.append(row)
    size = f"{max(1, problem.band_bytes >> 10)} KiB"
    note = f"two convolutions, by bands whose middle takes {size}: {problem.band_count}"
    return Explanation(problem, packed, rows, note, costs=costs)


def _refuse_gpu(problem: TransposedProblem | BoundaryProblem | PairProblem, name: str) -> None:
    if problem.device != "cpu":
        raise DeviceError(
            f"what: got {problem.line()} for a GPU, want one for the CPU: {name} has no kernels "
            "for GPUs"
        )


def _explain(problem: _Explained, packed: bool, note: str = "") -> Explanation:
    if problem.op == "conv_input_grad":
        assert isinstance(problem, ConvProblem)
        return replace(_explain(input_gradient(problem), packed), problem=problem)
    if isinstance(problem, TransposedProblem):
        _refuse_gpu(problem, "transposed convolution")
        return _explain_parts(problem, packed)
    if isinstance(problem, BoundaryProblem):
        _refuse_gpu(problem, f"padding_mode={problem.word!r}")
        return _explain_parts(problem, packed)
    if isinstance(problem, PairProblem):
        _refuse_gpu(problem, "a pair of convolutions")
        return _explain_pair(problem, packed)
    given = problem
    if isinstance(problem, ConvProblem):
        problem, taps = trim(problem)
        if taps is not None:
            note = f"taps that meet only padding are left out: {problem.line()}"
    steady = isinstance(problem, ArrayProblem) and not config.tune
    with steady_choice() if steady else contextlib.nullcontext():
        candidates = list_candidates(problem, packed)
        winner, rule = pick_winner(problem, packed, candidates)
    tuned = tuned_choice(problem, packed)
    measured = {} if tuned is None else tuned.milliseconds
    rows = []
    for candidate in candidates:
        name = candidate.spec.name
        if candidate.reasons:
            rows.append(Row(name, False, None, None, None, candidate.reasons))
            continue
        why = _why(candidate, winner, rule, measured.get(name))
        space = candidate.spec.workspace(problem, device_info(problem))
        packing = 1e3 * candidate.pack_seconds
        rows.append(Row(name, candidate is winner, 1e3 * candidate.seconds, packing, space, [why]))
    device = device_info(problem)
    if isinstance(device, CudaInfo):
        return Explanation(given, packed, rows, note, device.name)
    seconds = first_use.load("fastconv.kernels.cpu.machine.seconds")
    return Explanation(given, packed, rows, note, costs=seconds.profile_source(device))


def _why(candidate: Candidate, winner: Candidate | None, rule: str, measured: float | None) -> str:
    """Say why a kernel that can run the problem would or would not."""
    if candidate is winner and rule == "cost":
        return "lowest predicted time"
    if rule == "forced":
        name = f"use_kernel({settings()[0]!r})"
        return f"forced by {name}" if candidate is winner else f"{name} is in force"
    if measured is not None:
        return f"{'tuned: ' if candidate is winner else ''}measured {measured:.3g} ms"
    assert winner is not None
    return (
        f"{candidate.seconds / winner.seconds:.1f} times the predicted time of {winner.spec.name}"
    )
