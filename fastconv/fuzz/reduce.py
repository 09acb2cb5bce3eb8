"""Make a failing case smaller by what its parts mean, once Hypothesis has done so by its draws.

Hypothesis knows no case, only the numbers that one was drawn from. Here steps, words of layouts and
parameters are left out one after another, and numbers are made less, as long as the case fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from .case import Case, Step

__all__ = ["reduce"]


def reduce(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Return the smallest case found that fails, by trying every change until none is left.

    Parameters
    ----------
    case : Case
        One that fails.
    fails : callable
        Whether a case fails alike.
    """
    tried: set[str] = set()
    while True:
        for smaller in _smaller(case):
            text = smaller.dumps()
            if text not in tried and fails(smaller):
                case = smaller
                break
            tried.add(text)
        else:
            return case


def _smaller(case: Case) -> Iterator[Case]:
    steps = case.steps
    if len(steps) > 1:
        yield from (replace(case, steps=[step]) for step in steps)
        yield from (replace(case, steps=steps[:n] + steps[n + 1 :]) for n in range(len(steps)))
    if any(step.params for step in steps):
        yield from (
            replace(case, params={**case.params, **step.params}, steps=[replace(step, params={})])
            for step in steps
        )
    for params in _less_params(case.params):
        yield replace(case, params=params)
    for layouts in _less_layouts(case.layouts):
        yield replace(case, layouts=layouts)
    plain = Case(case.op)
    for name in ("dtype", "values", "seed"):
        if getattr(case, name) != getattr(plain, name):
            yield replace(case, **{name: getattr(plain, name)})
    for number, step in enumerate(steps):
        for less in _less_step(step):
            yield replace(case, steps=[*steps[:number], less, *steps[number + 1 :]])


def _less_step(step: Step) -> Iterator[Step]:
    plain = Step()
    for field in fields(step):
        value = getattr(step, field.name)
        default = getattr(plain, field.name)
        if field.name not in ("params", "layouts", "kernel") and value != default:
            yield replace(step, **{field.name: default})
    if step.threads not in ([1], plain.threads):
        yield replace(step, threads=[1])
    for params in _less_params(step.params):
        yield replace(step, params=params)
    for layouts in _less_layouts(step.layouts):
        yield replace(step, layouts=layouts)


def _less_layouts(layouts: dict[str, str]) -> Iterator[dict[str, str]]:
    for name, layout in layouts.items():
        yield {key: value for key, value in layouts.items() if key != name}
        words = layout.split("+") if layout else []
        for n in range(len(words)):
            yield {**layouts, name: "+".join(words[:n] + words[n + 1 :])}


def _less_params(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in params.items():
        yield {key: kept for key, kept in params.items() if key != name}
        for less in _less(value):
            yield {**params, name: less}


def _less(value: Any) -> Iterator[Any]:
    """Yield values that are simpler: less numbers, and one number for a list of them."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        yield from dict.fromkeys((value // 2, value - 1))
    if isinstance(value, list):
        if value and all(isinstance(entry, int) for entry in value):
            yield max(value)
            yield min(value)
        for n, entry in enumerate(value):
            for less in _less(entry):
                yield [*value[:n], less, *value[n + 1 :]]
