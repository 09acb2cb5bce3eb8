"""Run a case in this process and say what went wrong.

Only a worker does so: what is run may end the process.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastconv
from fastconv import dispatch
from fastconv.contract.errors import FastconvError
from fastconv.contract.spec import KernelSpec
from fastconv.kernels import reference

from . import bad
from .activations import SLOPES, as_parameter
from .case import Case, Failure, Report, Step
from .compiling import compiler
from .judge import differs, is_exact_activation
from .memory import Placed, numpy_dtype, place, strides_of
from .operators import Failed, Operator, Params, Shapes, find_operator
from .values import EXACT, draw_values

__all__ = ["run_case"]

#: Seconds of a call's own thread beyond those of its arithmetic at a pessimistic rate.
_SLOW, _RATE = 2.0, 5e7
#: Elements of an array above which a case is passed over.
_MOST_ELEMENTS = 1 << 26
#: And bytes from its first to its last.
_MOST_BYTES = 1 << 30


@dataclass(slots=True)
class _Call:
    """One step's arrays and what is asked of them."""

    step: Step
    params: Params
    shapes: Shapes
    placed: dict[str, Placed]
    out: Placed | None
    truth: tuple[Any, Any] | None = None
    kernel: str = ""

    @property
    def arrays(self) -> dict[str, Any]:
        found = {name: placed.array for name, placed in self.placed.items()}
        return found if self.out is None else {**found, "out": self.out.array}


class _Program:
    """The state that the steps of a case share."""

    def __init__(self, case: Case, progress: Callable[[int, str], None]) -> None:
        self.case, self.progress = case, progress
        self.operator: Operator = find_operator(case.op)
        self.report = Report()
        self.params: Params = {**self.operator.defaults, **case.params}
        self.weights = self._weights(self.operator.shapes(self.params))
        self.kept = {name: placed.array.copy() for name, placed in self.weights.items()}
        self.object: Any = None
        self.number, self.kernel = 0, ""

    def _place(self, name: str, shape: tuple[int, ...], layout: str) -> Placed:
        case = self.case
        factor = name == "mask" or name.endswith("weight") or name in self.operator.required[1:]
        dtype = self._dtype(name, self.params)
        values = draw_values(case.values, name, shape, dtype, case.seed, not factor)
        with np.errstate(over="ignore"):
            return place(values, numpy_dtype(dtype), layout)

    def _dtype(self, name: str, params: Params) -> str:
        """Return the element type of an argument."""
        return self.operator.element_type(name, self.case.dtype, params)

    def _weights(self, shapes: Shapes) -> dict[str, Placed]:
        layouts = self.case.layouts
        return {
            name: self._place(name, shapes[name], layouts.get(name, ""))
            for name in self.operator.weights
            if name in shapes and (name.endswith("weight") or name in layouts)
        }

    def call(self, step: Step) -> _Call:
        """Make the arrays of a step."""
        params = {**self.params, **step.params}
        shapes = self.operator.shapes(params)
        placed = {}
        for name, layout in {**dict.fromkeys(self.operator.required, ""), **step.layouts}.items():
            if name not in ("out", *self.operator.weights) and name in shapes:
                placed[name] = self._place(name, shapes[name], layout)
        out = None
        if "out" in step.layouts and "out" in shapes:
            out = place(
                shapes["out"], numpy_dtype(self._dtype("out", params)), step.layouts["out"],
                placed["input"],
            )  # fmt: skip
        return _Call(step, params, shapes, placed, out)

    def run(self, number: int, step: Step) -> None:
        """Run one step with every kernel that it names."""
        self.number, self.kernel = number, step.kernel if step.kernel != "all" else ""
        self.progress(number, self.kernel)
        if step.spoil and step.form != "function":
            self._made()
            for placed in self.weights.values():
                placed.element_bytes()[...] = 0xFF
        call = self.call(step)
        if step.form == "function":
            call.placed.update(self._weights(self.operator.shapes(call.params)))
        self.report.problems += 1
        if step.bad or "out" not in call.shapes:
            self._refuse(call)
            return
        with dispatch.precision(self._precision(step)):
            for name in self._kernels(call):
                self.kernel = name
                self.progress(number, name)
                self._run_kernel(call, name)

    def _precision(self, step: Step) -> str:
        return "exact" if self.case.values == "nonfinite" else step.precision

    def _kernels(self, call: _Call) -> list[str]:
        """Return the kernels to force, "" for the dispatched one."""
        step = call.step
        if step.kernel != "all" or 0 in call.shapes["out"]:
            return ["" if step.kernel == "all" else step.kernel]
        with self.limited("choosing a kernel", call):
            problem = self._problem(call)
            if problem is None:
                return [""]
            candidates = dispatch.list_candidates(problem, step.form != "function")
        return [each.spec.name for each in candidates if not each.reasons]

    def _problem(self, call: _Call) -> Any:
        arrays = {**call.arrays, **{k: v for k, v in self.kept.items() if k not in call.placed}}
        return self.operator.problem(arrays, call.params)

    def spec(self, call: _Call, name: str) -> KernelSpec | None:
        """Return the kernel that a call runs; None where there is nothing to compute."""
        if 0 in call.shapes["out"]:
            return None
        if name:
            return next(spec for spec in dispatch.kernels() if spec.name == name)
        with self.limited("choosing a kernel", call):
            problem = self._problem(call)
            if problem is not None:
                return dispatch.choose(problem, call.step.form != "function")
        found = dispatch.kernels(self.operator.op, "cpu")
        if not self.operator.inside:
            return found[0] if found else None
        exact = self._precision(call.step) == "exact"
        dtype = self.case.dtype
        able = [each for each in found if (each.exact or not exact) and dtype in each.tolerance]
        return max(able, key=lambda each: each.tolerance[dtype].relative)

    def _refuse(self, call: _Call) -> None:
        """Make a call that must raise one of fastconv's errors before anything is written."""
        self.report.calls["refused"] += 1
        fresh = self._weights(self.operator.shapes(call.params))
        arrays = {**{name: placed.array for name, placed in fresh.items()}, **call.arrays}
        kinds = {self.operator.bad.get(name) for name in call.step.bad if name not in arrays}
        if kinds & {"array", "lone", "output"}:
            return  # shrinking has taken away the array that was to be replaced
        params = {**call.params, **{k: v for k, v in call.step.bad.items() if k not in arrays}}
        given = {
            name: bad.replacement(call.step.bad[name], array) if name in call.step.bad else array
            for name, array in arrays.items()
        }
        try:
            with self.limited("refusing", call):
                self.operator.function(given, params)
        except FastconvError as error:
            words = str(error).replace(":", " ").replace("'", " ").split()
            if not bad.NAMES.intersection(words):
                message = f"{type(error).__name__}: {error}"
                raise Failed("names no argument", message) from None
        else:
            raise Failed("accepted", "the call was not refused")
        self.check_memory(call)
        if call.out is not None and not call.out.is_unchanged():
            raise Failed("wrote before refusing", "out was written before the error")

    @contextlib.contextmanager
    def limited(self, what: str, call: _Call) -> Iterator[None]:
        """Fail where the block takes this thread absurdly long, its compiling left out."""
        flops = self.operator.work(call.shapes, call.params)
        start, compiled = time.thread_time(), compiler.seconds
        yield
        taken = time.thread_time() - start - (compiler.seconds - compiled)
        if taken > _SLOW + flops / _RATE:
            raise Failed("slow", f"{what} took {taken:.1f} s, for {flops:.3g} operations")

    def _run_kernel(self, call: _Call, name: str) -> None:
        forced = dispatch.use_kernel(name) if name else contextlib.nullcontext()
        bits: dict[str, bytes] = {}
        with forced:
            for threads in call.step.threads:
                fastconv.set_num_threads(threads)
                # Which kernel is the fastest depends on the threads; its bits do not.
                spec = self.spec(call, name)
                run = spec.name if spec else "none"
                if spec is not None and not name:
                    self.kernel = run
                    self.progress(self.number, run)
                result = self._invoke(call, run)
                if run not in bits:
                    bits[run] = result.tobytes()
                    self._judge(call, spec, result)
                elif bits[run] != result.tobytes():
                    raise Failed("threads differ", f"other bits with {threads} threads")

    def invoke(self, call: _Call) -> Any:
        """Make the call of a step, by its form."""
        step, arrays = call.step, call.arrays
        if step.form == "function":
            return self.operator.function(arrays, call.params)
        called = self._made()
        if step.form == "copy":
            called = pickle.loads(pickle.dumps(called))
        return self.operator.apply(called, arrays, call.params)

    def _made(self) -> Any:
        """Return the case's object, made when it is first asked for."""
        if self.object is None:
            given = {name: placed.array for name, placed in self.weights.items()}
            assert self.operator.make is not None
            self.object = self.operator.make(given, self.params)
        return self.object

    def _invoke(self, call: _Call, name: str) -> Any:
        for placed in call.placed.values():
            placed.reset()
        if call.out is not None:
            call.out.reset()
        self.report.calls[name] += 1
        with self.limited("the call", call):
            result = self.invoke(call)
        if call.out is not None and result is not call.out.array:
            raise Failed("not out", "the result is not the array given as out")
        dtype = numpy_dtype(self._dtype("out", call.params))
        if type(result) is not np.ndarray or result.dtype != dtype:
            raise Failed("wrong type", f"got {type(result).__name__} {result.dtype}")
        if result.shape != call.shapes["out"]:
            raise Failed("wrong shape", f"got {result.shape}, want {call.shapes['out']}")
        result = np.array(result)
        self.check_memory(call)
        return result

    def check_memory(self, call: _Call) -> None:
        """Fail where an operand was changed, or memory around the output."""
        if call.out is not None and not call.out.is_unchanged_around():
            raise Failed("wrote outside", "memory around out was written")
        for name, placed in call.placed.items():
            inside = call.out is not None and call.out.memory is placed.memory
            if not inside and not placed.is_unchanged():
                raise Failed("operand changed", f"{name} or memory around it was written")

    def _truth(self, call: _Call) -> tuple[Any, Any]:
        """Return the sums and the result in float64."""
        if call.truth is None:
            wide = self._wide(call)
            sums = self.operator.truth(wide, call.params)
            given, axis = call.params.get("activation"), self.operator.channels
            call.truth = sums, reference.activate(sums, *as_parameter(given, sums, axis))
        return call.truth

    def _wide(self, call: _Call) -> dict[str, Any]:
        """Return what the operands held before the call, as float64."""
        for placed in call.placed.values():
            placed.reset()
        found = {name: array.astype(np.float64) for name, array in self.kept.items()}
        if call.step.form == "function":
            found = {}
        wide = {name: placed.array.astype(np.float64) for name, placed in call.placed.items()}
        return {**found, **wide}

    def _typical(self, call: _Call) -> float:
        squares = {name: array**2 for name, array in self._wide(call).items()}
        with np.errstate(all="ignore"):
            sums = self.operator.truth(squares, call.params)
        held = sums[np.isfinite(sums)]
        return math.sqrt(held.max(initial=0.0))

    def _judge(self, call: _Call, spec: KernelSpec | None, result: Any) -> None:
        sums, truth = self._truth(call)
        exact = self.case.values in EXACT and is_exact_activation(call.params.get("activation"))
        exact = exact and not self.operator.rounds
        tolerance = None
        if spec is not None and not (exact and spec.exact):
            tolerance = spec.tolerance[self.case.dtype]
        gain = _gain(call.params)
        terms = self.operator.work(call.shapes, call.params) / max(2, 2 * result.size)
        dtype = self._dtype("out", call.params)
        told = differs(
            result, sums, truth, dtype, tolerance, lambda: self._typical(call), gain, terms
        )
        if told:
            raise Failed("wrong result", told)


def _gain(params: Params) -> float:
    """Return by how much an activation enlarges an error at most."""
    given = params.get("activation")
    parameters: tuple[float, ...] = SLOPES if given == "prelu" else ()
    if isinstance(given, (list, tuple)):
        parameters = (given[1],)
    return max(1.0, *map(abs, parameters), 0.0)


def run_case(case: Case, progress: Callable[[int, str], None] = lambda *_: None) -> Report:
    """Run a case.

    Parameters
    ----------
    case : Case
        What to run.
    progress : callable
        Told the number of each step and the name of each kernel before it runs, so that somebody
        else knows where this process ended.
    """
    before = fastconv.get_num_threads()
    program, number = None, 0
    if _is_vast(case):
        return Report()
    try:
        program = _Program(case, progress)
        for number, step in enumerate(case.steps):
            program.run(number, step)
    except Failed as failed:
        kernel = program.kernel if program else ""
        return _ended(program, Failure(case.op, kernel, failed.kind, number, failed.message))
    except MemoryError as error:
        return _ended(program, _raised(case, program, number, "memory", error))
    except Exception as error:  # noqa: BLE001 - whatever the library raises is a finding
        return _ended(program, _raised(case, program, number, f"raised {_origin(error)}", error))
    finally:
        fastconv.set_num_threads(before)
    return program.report


def _is_vast(case: Case) -> bool:
    """Tell whether a case's arrays are so large that a lack of memory would be no fault."""
    operator = find_operator(case.op)
    params, item = {**operator.defaults, **case.params}, numpy_dtype(case.dtype).itemsize
    for step in case.steps:
        shapes = operator.shapes({**params, **step.params})
        if any(math.prod(shape) > _MOST_ELEMENTS for shape in shapes.values()):
            return True
        for name, layout in {**case.layouts, **step.layouts}.items():
            # What lies between the elements of a slice takes memory, too.
            if name in shapes and strides_of(shapes[name], item, layout)[1] > _MOST_BYTES:
                return True
    return False


def _ended(program: _Program | None, failure: Failure) -> Report:
    report = program.report if program else Report()
    report.failure = failure
    return report


def _raised(case: Case, program: _Program | None, number: int, kind: str, error: Any) -> Failure:
    kernel = program.kernel if program else ""
    message = f"{type(error).__name__}: {error}"[:600]
    return Failure(case.op, kernel, kind, number, message)


def _origin(error: Exception) -> str:
    """Return an error's type and the function that raised it, to tell failures apart."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "fastconv" in code.co_filename or "kernels" in code.co_filename:
            where = f" in {code.co_name}"
        trace = trace.tb_next
    name = "FastconvError" if type(error) is FastconvError else type(error).__name__
    return name + where
