"""A case in words: which arrays, which calls."""

from __future__ import annotations

from typing import Any

from .case import Case, Step
from .memory import numpy_dtype, strides_of
from .operators import Shapes, find_operator
from .values import VALUES

__all__ = ["render"]


def render(case: Case) -> str:
    """Return a case for a reader: arrays with shapes, strides and layouts, then each call."""
    operator = find_operator(case.op)
    params = {**operator.defaults, **case.params}
    lines = [f"  {case.dtype} arrays, {VALUES[case.values]}, seed {case.seed}"]
    shapes = operator.shapes(params)
    for name in operator.weights:
        if name in shapes and (name.endswith("weight") or name in case.layouts):
            lines.append("    " + _array(name, shapes, case.layouts.get(name, ""), case.dtype))
    for number, step in enumerate(case.steps):
        lines += _step(number, step, case, params)
    return "\n".join(lines)


def _array(name: str, shapes: Shapes, layout: str, dtype: str) -> str:
    if name not in shapes:
        return f"{name}: of no shape, for the arguments fit nothing"
    shape = shapes[name]
    strides, _ = strides_of(shape, numpy_dtype(dtype).itemsize, layout)
    return f"{name} {shape}, strides {strides}" + (f" ({layout})" if layout else "")


def _step(number: int, step: Step, case: Case, params: dict[str, Any]) -> list[str]:
    operator = find_operator(case.op)
    params = {**params, **step.params}
    told = {
        name: value
        for name, value in params.items()
        if value != operator.defaults[name]
        and name not in ("size", "kernel", "batch", "channels")
        and name != "filters"
    }
    arguments = ", ".join(f"{name}={value!r}" for name, value in told.items())
    how = {"function": case.op, "object": f"{case.op} object", "copy": f"pickled {case.op} object"}
    notes = [f"kernel {step.kernel}"] if step.kernel else []
    notes += [f'precision("{step.precision}")'] if step.precision != "fast" else []
    notes += [f"threads {step.threads}"] if step.threads != [1, 2, 3] else []
    notes += ["after the weight array was overwritten"] if step.spoil else []
    notes += [f"with {step.bad}"] if step.bad else []
    lines = [f"  {number + 1}. {how[step.form]}({arguments}) {'; '.join(notes)}".rstrip()]
    shapes = operator.shapes(params)
    for name, layout in {**dict.fromkeys(operator.required, ""), **step.layouts}.items():
        lines.append("    " + _array(name, shapes, layout, case.dtype))
    return lines
