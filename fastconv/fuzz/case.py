"""A case: a short program of calls as plain data, and its text.

What a case says is enough to repeat it in another process: sizes, memory orders and seeds, no data.
Its JSON leaves out what has its default, so that a small case is short.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

__all__ = ["Case", "Failure", "Report", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a case's operator.

    Parameters
    ----------
    params : dict
        Sizes and arguments that differ from the case's.
    layouts : dict of str to str
        How arrays lie in memory, by argument; an optional array is given where it is named here.
        See `memory.WORDS`.
    form : str
        "function", "object" (made by the first step that says so, from the case's parameters) or
        "copy": the same object, pickled and loaded.
    kernel : str
        "" for the dispatched one, "all" for every able one in turn, or a name.
    precision : str
        "fast" or "exact".
    threads : list of int
        Numbers of threads that must all give the same bits.
    spoil : bool
        Whether the weight array that the object was made from is overwritten before the call.
    bad : dict
        Arguments replaced on purpose by what must be refused; see `bad.spoilt`.
    """

    params: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    form: str = "function"
    kernel: str = ""
    precision: str = "fast"
    threads: list[int] = field(default_factory=lambda: [1, 2, 3])
    spoil: bool = False
    bad: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A program: an operator, what its calls have in common, and the calls.

    Parameters
    ----------
    op : str
        A name of `operators.OPERATORS`.
    params : dict
        The operator's sizes and arguments, where they are not its defaults.
    dtype : str
        Element type of every array, or of what an operator's other types follow from.
    values : str
        What the arrays hold: a key of `values.VALUES`.
    seed : int
        Of the random values.
    layouts : dict of str to str
        How the weight and bias lie in memory; an optional one is given where it is named here.
    steps : list of Step
        The calls, in order.
    """

    op: str
    params: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    values: str = "integers"
    seed: int = 0
    layouts: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=lambda: [Step()])

    def dumps(self) -> str:
        """Return the case as JSON, without what has its default."""
        short = _short(self)
        short["steps"] = [_short(step) for step in self.steps]
        if short["steps"] == [{}]:
            del short["steps"]
        return json.dumps(short, separators=(",", ":"))

    @staticmethod
    def loads(text: str) -> Case:
        """Return the case that `dumps` told."""
        given = json.loads(text)
        steps = [Step(**step) for step in given.pop("steps", [{}])]
        return Case(**given, steps=steps)

    def with_kernel(self, kernel: str) -> Case:
        """Return the case with every step that runs all kernels running this one alone."""
        steps = [replace(s, kernel=kernel) if s.kernel == "all" else s for s in self.steps]
        return replace(self, steps=steps)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in a case.

    Parameters
    ----------
    op, kernel, kind : str
        Failures that agree in these three are taken for one.
    step : int
        Index of the step.
    message : str
        What came and what was wanted.
    """

    op: str
    kernel: str
    kind: str
    step: int = 0
    message: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What failures that are taken for one agree in."""
        return self.op, self.kernel, self.kind


@dataclass(slots=True)
class Report:
    """What running a case told: its failure, if any, and how many calls each kernel ran."""

    failure: Failure | None = None
    problems: int = 0
    calls: Counter[str] = field(default_factory=Counter)


def _short(value: Case | Step) -> dict[str, Any]:
    plain = type(value)(value.op) if isinstance(value, Case) else Step()
    told = asdict(value)
    return {
        field.name: told[field.name]
        for field in fields(value)
        if field.name == "op" or told[field.name] != asdict(plain)[field.name]
    }
