"""A session's steps for inputs of known shapes, as one list of jobs.

Each value has its place in memory, each step's machine code is recorded with the addresses that it
works on, and what is recorded runs without Python between the steps. A view of another value costs
nothing then, and a joined one nothing where its parts were made in their places.

Steps of which that cannot be had run in Python, among the others: what ONNX's reference computes,
what depends on numbers that are no floats, and whatever did not repeat exactly in a trial on random
numbers. Values that follow from shapes alone are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..contract import first_use
from ..contract.errors import FastconvError
from .graph import is_random
from .memory_plan import Made, place_values
from .program import Program, own
from .steps import Step

__all__ = ["JobList", "key_of"]

Values = dict[str, Any]
#: Numbers of which the trial's inputs are made; a prime, so that no size of an axis repeats them.
_TILE = 65537
#: Operators whose output follows from the shape of the input.
_OF_SHAPES = ("Shape", "Size")


class _Part(NamedTuple):
    """Jobs from one to before another; then, if there is one, a step in Python."""

    first: int
    last: int
    step: Step | None


def key_of(feed: Mapping[str, Any]) -> Any:
    """Return what a list is made for: types and shapes of inputs; None where it cannot be."""
    if not all(_is_plain(each) and each.flags.c_contiguous for each in feed.values()):
        return None
    return tuple(sorted((name, each.shape, each.dtype.name) for name, each in feed.items()))


def _is_plain(value: Any) -> bool:
    return type(value) is np.ndarray and not value.dtype.hasobject


def _is_array(value: Any) -> bool:
    return value is None or isinstance(value, (np.ndarray, np.generic))


def _is_float(value: Any) -> bool:
    return _is_plain(value) and (value.dtype.kind == "f" or value.dtype.name == "bfloat16")


class JobList:
    """What a session runs for inputs of the shapes that it was made with.

    Parameters
    ----------
    program : Program
        Of the session.
    defaults : mapping of str to ndarray
        Values of inputs that are not given.
    feed : mapping of str to ndarray
        Inputs of one run.
    """

    def __init__(
        self, program: Program, defaults: Mapping[str, Any], feed: Mapping[str, Any]
    ) -> None:
        constants = {**program.constants, **defaults}
        self._lock = threading.Lock()
        #: Whether a step in Python has made a value of another shape than before, or no array.
        self._differs = False
        self._inputs = {name: np.array(value) for name, value in feed.items()}
        self._values: Values = constants | self._inputs
        recording = first_use.load("fastconv.kernels.cpu.runtime.recording")
        self._recording = recording.Recording()
        self._static = set(constants) - set(feed)
        self._made = self._look(program)
        self._parts: list[_Part] = []
        if self._differs:
            return
        memory, self.nbytes = place_values(program.steps, self._made, program.outputs)
        begun = 0
        with np.errstate(all="ignore"):
            for step in program.steps:
                first = len(self._recording)
                if not self._record(step, memory):
                    self._parts.append(_Part(begun, first, step))
                    begun = len(self._recording)
        self._parts.append(_Part(begun, len(self._recording), None))

    @property
    def jobs(self) -> int:
        """How many jobs a run has."""
        return sum(part.last - part.first for part in self._parts)

    @property
    def python_steps(self) -> list[Step]:
        """The steps that run in Python."""
        return [part.step for part in self._parts if part.step is not None]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in self._inputs.items())
        text = f"for {shapes}: {self.jobs} jobs in a list, {self.nbytes / 1e6:.1f} MB of values"
        names = ", ".join(step.name for step in self.python_steps)
        return f"{text}; in Python between them: {names}" if names else text

    def _look(self, program: Program) -> dict[str, Made]:
        """Run the steps as ever; keep what follows from shapes and return what the others make."""
        values = dict(self._values)
        found: dict[str, Made] = {}
        for place, step in enumerate(program.steps):
            given = {name: values[name] for name in step.inputs}
            outputs = program.advance(place, values)
            # A sequence holds on to arrays whose memory others would get.
            self._differs |= not all(map(_is_array, outputs.values()))
            if self._is_static(step):
                self._static.update(outputs)
                self._values |= outputs
            found |= {
                name: _describe(value, given)
                for name, value in outputs.items()
                if _is_float(value) and name not in self._static
            }
        return found

    def _is_static(self, step: Step) -> bool:
        """Tell whether a step makes the same from all inputs of one shape."""
        if any(map(is_random, step.protos)) or not step.inputs:
            return False
        of_shapes = all(proto.op_type in _OF_SHAPES for proto in step.protos)
        return of_shapes or self._static.issuperset(step.inputs)

    def _record(self, step: Step, memory: Mapping[str, NDArray[Any]]) -> bool:
        """Run a step with its output in its place; tell whether its jobs alone are a run of it."""
        if self._static.issuperset(step.outputs):
            return True
        first = len(self._recording)
        with self._recording.recording():
            outputs = zip(
                step.outputs, step.run(self._values, memory.get(step.outputs[0])), strict=False
            )
        made = {name: value for name, value in outputs if name}
        self._values |= made
        placed = {name for name, value in made.items() if value is memory.get(name)}
        if self._repeats(step, made, placed, first):
            return True
        for name, value in made.items():
            # Jobs behind this one read what Python copies there.
            if _is_plain(value) and name not in placed:
                self._values[name] = np.array(value)
        return False

    def _repeats(self, step: Step, made: Values, placed: set[str], first: int) -> bool:
        """Tell whether the jobs from `first` on make what a step makes, of random numbers.

        `placed` names the outputs that lie where they were planned to.
        """
        taken = {name: self._values[name] for name in step.inputs if name not in self._static}
        if not all(map(_is_float, (*taken.values(), *made.values()))):
            return False
        for name, value in made.items():
            shares = any(np.may_share_memory(value, each) for each in taken.values())
            if shares and name not in placed and not self._made[name].viewed:
                return False  # a view for which no memory is held
            if not shares and not self._recording.writes(value):
                return False  # numbers that no job has made
        arrays = (*taken.values(), *made.values())
        kept = [np.array(value) for value in arrays]
        for number, value in enumerate(taken.values()):
            if value.flags.writeable:
                _fill(value, number)
        try:
            wanted = [np.array(each) for each in step.run(self._values) if each is not None]
            self._recording.run(first, len(self._recording))
            same = len(wanted) == len(made) and all(map(_same, wanted, made.values()))
        except FastconvError:  # numbers that mean something, such as factors of a size
            same = False
        for value, earlier in zip(arrays, kept, strict=True):
            if value.flags.writeable:
                value[...] = earlier
        return same

    def run(self, feed: Mapping[str, Any], names: Sequence[str]) -> list[Any] | None:
        """Return outputs for inputs; None where another thread runs it, or it does not fit."""
        if self._differs or not self._lock.acquire(blocking=False):
            return None
        try:
            for name, value in feed.items():
                np.copyto(self._inputs[name], value)
            for part in self._parts:
                if part.last > part.first:
                    self._recording.run(part.first, part.last)
                if part.step is not None and not self._settle(part.step):
                    self._differs = True
                    return None
            return [own(self._values[name]) for name in names]
        finally:
            self._lock.release()

    def _settle(self, step: Step) -> bool:
        """Run a step in Python and put what it makes where the jobs behind it read.

        False where it has another shape or type than before.
        """
        kept = self._values.get(step.outputs[0]) if step.writes else None
        for name, value in zip(step.outputs, step.run(self._values, kept), strict=False):
            place: Any = self._values.get(name)
            if not name or value is place:
                continue
            if not _is_plain(place):
                self._values[name] = value
                continue
            if not _is_alike(place, value):
                return False
            np.copyto(place, value)
        return True


def _is_alike(one: Any, other: Any) -> bool:
    return _is_plain(other) and (one.shape, one.dtype) == (other.shape, other.dtype)


def _describe(value: NDArray[Any], given: Mapping[str, Any]) -> Made:
    """Return what is known of a value that a step has made of others."""
    arrays = {name: each for name, each in given.items() if isinstance(each, np.ndarray)}
    viewed = next((name for name, each in arrays.items() if np.may_share_memory(value, each)), "")
    order = sorted(range(value.ndim), key=lambda axis: (-abs(value.strides[axis]), axis))
    if value.flags.c_contiguous:
        order = list(range(value.ndim))
    return Made(value.shape, value.dtype, tuple(order), viewed)


def _fill(value: NDArray[Any], seed: int) -> None:
    """Fill an array with random numbers."""
    tile = np.random.default_rng(seed).standard_normal(_TILE)
    value[...] = np.resize(tile, value.shape)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Tell whether arrays hold the same bits."""
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and one.tobytes() == np.ascontiguousarray(other).tobytes()
