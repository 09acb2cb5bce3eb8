"""``python -m fastconv onnx MODEL``: what a model is run by, and how long that takes."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..contract import first_use
from ..contract.errors import ArgumentError
from .session import InferenceSession, NodeArg

__all__ = ["add_arguments", "random_inputs", "run"]

#: Runs of one library before those of another, and how often that is repeated.
_RUNS, _ROUNDS = 5, 5
_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Set up the options of the command."""
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "--explain", action="store_true", help="run it once and tell what computes each node"
    )
    parser.add_argument(
        "--bench", action="store_true", help="time it, beside ONNX Runtime where that is installed"
    )
    parser.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="NAME=N",
        help="a size that the model leaves open, as its shapes name it, one an option (of a first "
        "axis 1, if nothing is said)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    session = InferenceSession(arguments.model)
    sizes = _sizes(arguments.size, session.get_inputs())
    for word, each in _arguments_of(session):
        shape = ", ".join("?" if size is None else str(size) for size in each.shape)
        print(f"{word:<7} {each.name}: {each.type} ({shape})")
    if not (arguments.explain or arguments.bench):
        print(session.explain().partition("\n")[0])
        return 0
    feed = random_inputs(session.get_inputs(), sizes)
    session.run(None, feed)  # which tells what is handed on, and compiles
    if arguments.explain:
        print(session.explain())
    if arguments.bench:
        print(_bench(arguments.model, session, feed))
    return 0


def _arguments_of(session: InferenceSession) -> list[tuple[str, NodeArg]]:
    inputs = [("input", each) for each in session.get_inputs()]
    return inputs + [("output", each) for each in session.get_outputs()]


def _sizes(words: list[str], inputs: list[NodeArg]) -> dict[str, int]:
    """Return the sizes that are told by name."""
    names = {size for each in inputs for size in each.shape if isinstance(size, str)}
    sizes = {}
    for word in words:
        name, _, number = word.partition("=")
        if not number.isdecimal():
            raise ArgumentError(f"--size: got {word!r}, want NAME=N, N a whole number")
        if name not in names:
            known = f"one of {', '.join(sorted(names))}" if names else "none: it leaves none open"
            raise ArgumentError(f"--size: got no size {name!r} in this model, want {known}")
        sizes[name] = int(number)
    return sizes


def random_inputs(inputs: list[NodeArg], sizes: dict[str, int]) -> dict[str, Any]:
    """Return random inputs of a model.

    Parameters
    ----------
    inputs : list of NodeArg
        What a session says of them.
    sizes : dict of str to int
        Sizes that the model leaves open.

    Raises
    ------
    ArgumentError
        For a size that nobody tells, and for inputs of other types than floating point.
    """
    rng = np.random.default_rng(0)
    feed = {}
    for each in inputs:
        if each.type not in _DTYPES:
            raise ArgumentError(
                f"MODEL: got an input {each.name!r} of {each.type}, want floating point, which can "
                "be drawn"
            )
        shape = []
        for axis, size in enumerate(each.shape):
            known = size if isinstance(size, int) else sizes.get(str(size), 1 if axis == 0 else 0)
            if known == 0:
                raise ArgumentError(
                    f"MODEL: got an input {each.name!r} whose axis {axis} has an open size, want "
                    f"it told by --size {size or 'NAME'}=N"
                )
            shape.append(known)
        feed[each.name] = rng.standard_normal(shape).astype(_DTYPES[each.type])
    return feed


def _bench(path: str, session: InferenceSession, feed: dict[str, Any]) -> str:
    """Return medians of the libraries' times, taken in turn, and the slowest steps."""
    calls: dict[str, Callable[[], Any]] = {"fastconv": lambda: session.run(None, feed)}
    if find_spec("onnxruntime"):
        runtime = first_use.load("onnxruntime")
        runtime.set_default_logger_severity(3)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = first_use.load("fastconv").get_num_threads()
        other = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        calls["ONNX Runtime"] = lambda: other.run(None, feed)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            call()
            times[name] += [_milliseconds(call) for _ in range(_RUNS)]
    lines = [f"{name:<13} {statistics.median(taken):8.3f} ms" for name, taken in times.items()]
    if len(calls) == 1:
        lines.append("ONNX Runtime  not installed")
    steps: dict[str, list[float]] = {}
    for _ in range(_RUNS):
        for name, taken in session.profile(feed):
            steps.setdefault(name, []).append(taken)
    slowest = sorted(((statistics.median(taken), name) for name, taken in steps.items()))[-10:]
    lines += [
        "slowest steps, each run by itself:",
        *(f"  {taken:8.3f} ms  {name}" for taken, name in slowest[::-1]),
    ]
    return "\n".join(lines)


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
