"""A graph ready to run: its steps in their order, and what lives from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .graph import Graph
from .steps import Step

__all__ = ["Program", "own"]


class Program:
    """The steps of a graph, with the constants that they take.

    Parameters
    ----------
    graph : Graph
        What they compute.
    steps : sequence of Step
        In an order in which they can run.
    """

    def __init__(self, graph: Graph, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self.outputs = [each.name for each in graph.outputs]
        taken = {name for step in self.steps for name in step.inputs} | set(self.outputs)
        self.constants = {name: graph.constants[name] for name in graph.constants if name in taken}
        self.inner = [inner for step in self.steps for inner in step.programs.values()]
        #: How many nodes were computed once and for all.
        self.folded: int = graph.folded + sum(inner.folded for inner in self.inner)
        self._lasts = self._last_uses()

    def _last_uses(self) -> list[list[str]]:
        """Return, for each step, the values that nothing takes any more."""
        kept = {*self.outputs, *self.constants}
        lasts: list[list[str]] = []
        for step in reversed(self.steps):
            ends = {*step.inputs, *step.outputs} - kept
            kept |= ends
            lasts.append(sorted(ends))
        return lasts[::-1]

    def every_step(self) -> list[Step]:
        """Return its steps and those of the programs within them."""
        return [*self.steps, *(step for inner in self.inner for step in inner.every_step())]

    def advance(self, place: int, values: dict[str, Any]) -> dict[str, Any]:
        """Run a step and return its outputs; let go of what nothing takes any more.

        Parameters
        ----------
        place : int
            Which step it is.
        values : dict of str to ndarray
            What is known by now, the constants too; its outputs are put into it.
        """
        step = self.steps[place]
        made = dict(zip(step.outputs, step.run(values), strict=False))
        values |= made
        for name in self._lasts[place]:
            values.pop(name, None)
        return made

    def run(self, values: dict[str, Any]) -> list[Any]:
        """Run all steps on inputs by name, and return the outputs."""
        values = self.constants | values
        for place in range(len(self.steps)):
            self.advance(place, values)
        return [values[name] for name in self.outputs]


def own(value: Any) -> Any:
    """Return a copy of an output, which may lie in memory that a node, or the caller, holds."""
    if isinstance(value, (list, tuple)):
        return [own(each) for each in value]
    return value.copy("K") if isinstance(value, np.ndarray) else value
