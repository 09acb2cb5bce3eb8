"""Suites: text files of problem lines, read into cases.

A line of a suite is a problem line, of `fastconv.contract.problem_line`, for a sparse layer of
`fastconv.bench.sparse.parse_layer` or for a network of `fastconv.bench.network.parse_network`. Its
quoted name may end in ``*count``, as in benchdnn's own shape files:
``ic64ih56oc64oh56kh3ph1n"layer1.0.conv2*3"`` is a layer that the network runs three times. Names
may hold spaces. Lines that start with ``#`` are comments. A suite is timed once a line; counts only
weight the total at the end of the report.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv.contract.array_problem import ArrayProblem
from fastconv.contract.boundary_problem import BoundaryProblem
from fastconv.contract.errors import DTypeError
from fastconv.contract.pair_problem import PairProblem
from fastconv.contract.problem import DTYPES
from fastconv.contract.problem_line import parse_any_line
from fastconv.contract.transposed_problem import TransposedProblem

from .network import NetworkRun, is_network_line, parse_network
from .sparse import SparseLayer, is_sparse_line, parse_layer

__all__ = ["Case", "in_dtype", "load", "parse_case", "select", "suite_names"]

_FOLDER = Path(__file__).parent / "problems"
_NAME = re.compile(r'n"([^"]*)"\s*$')
_COUNT = re.compile(r"\*(\d+)$")
_DTYPE = re.compile(r"--dt=\S+\s*")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a benchmark.

    Parameters
    ----------
    problem : ConvProblem, SparseLayer, NetworkRun or another of problem lines
        What is computed.
    name : str
        The row's label.
    count : int
        How often the network runs this layer.
    line : str
        The line that it was read from; it runs again as ``python -m fastconv bench LINE``.
    """

    problem: Any
    name: str
    count: int
    line: str

    @property
    def kind(self) -> str:
        """What sort of row it is, a key of `fastconv.bench.registry.PEERS`."""
        if isinstance(self.problem, ArrayProblem):
            return "array"
        if self.problem.op in ("conv_input_grad", "conv_weight_grad"):
            return "gradient"
        kinds: dict[type, str] = {
            SparseLayer: "sparse", TransposedProblem: "transposed", BoundaryProblem: "boundary",
            PairProblem: "pair", NetworkRun: "network",
        }  # fmt: skip
        return kinds.get(type(self.problem), "dense")


def suite_names() -> list[str]:
    """Return the names of the suites that ship with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


def parse_case(line: str) -> Case:
    """Read one line of a suite.

    Examples
    --------
    >>> case = parse_case('g96ic96ih56oc96kh3ph1n"dw 96@56*2"')
    >>> case.name, case.count, case.problem.groups
    ('dw 96@56', 2, 96)
    """
    text = line.strip()
    quoted = _NAME.search(text)
    # The quoted name is taken off first: it may hold spaces, and means nothing to the problem.
    sizes = text[: quoted.start()] if quoted else text
    problem = _parse(sizes)
    label = quoted.group(1) if quoted else ""
    counted = _COUNT.search(label)
    count = int(counted.group(1)) if counted else 1
    name = label[: counted.start()] if counted else label
    if count < 1:
        raise ValueError(f"{text}: got a count of {count}, want at least 1")
    return Case(problem, name or problem.line(), count, text)


def _parse(sizes: str) -> Any:
    """Read a line without its quoted name, by what it begins with."""
    if is_network_line(sizes):
        return parse_network(sizes)
    return parse_layer(sizes) if is_sparse_line(sizes) else parse_any_line(sizes)[0]


def in_dtype(case: Case, dtype: str) -> Case:
    """Return a row in another element type; its line tells the type, its name stays.

    Parameters
    ----------
    case : Case
        A row.
    dtype : str
        One of `fastconv.contract.problem.DTYPES`.

    Raises
    ------
    DTypeError
        Where it is another than float32 and the row is sparse or a network.

    Examples
    --------
    >>> in_dtype(parse_case('ic4ih8oc6kh3n"a*2"'), "bfloat16").line
    '--dt=bf16 ic4ih8oc6kh3n"a*2"'
    """
    if case.problem.dtype == dtype:
        return case
    if case.kind in ("sparse", "network"):
        raise DTypeError(f"--dtype: got {dtype}, want float32 for the {case.kind} row {case.name}")
    sizes, *quoted = case.line.partition('"')
    flag = "" if dtype == "float32" else f"--dt={DTYPES[dtype]} "
    return parse_case(flag + _DTYPE.sub("", sizes) + "".join(quoted))


def load(suite: str) -> list[Case]:
    """Read a suite by name, a text file by path, or a single problem line.

    Parameters
    ----------
    suite : str
        A name of `suite_names`, a path to a text file of problem lines, or one problem line.

    Returns
    -------
    list of Case
        In the order of the file.

    Raises
    ------
    ValueError
        Where it is none of the three, or a line is not a problem.

    Examples
    --------
    >>> [case.name for case in load("alexnet")][:2]
    ['features.0', 'features.3']
    >>> load("ic3ih224oc64kh7sh2ph3")[0].problem.out_size
    (112, 112)
    """
    if suite in suite_names():
        return _read(_FOLDER / f"{suite}.txt")
    if os.path.isfile(suite):  # False of a long line, too, of which pathlib raises
        return _read(Path(suite))
    if is_network_line(suite) or re.search(r"ic\d", suite):
        return [parse_case(suite)]
    near = difflib.get_close_matches(suite, suite_names())
    meant = f" (do you mean {' or '.join(near)}?)" if near else ""
    raise ValueError(
        f"suite: got {suite!r}{meant}, want a problem line, a file, or one of "
        f"{', '.join(suite_names())}"
    )


def _read(path: Path) -> list[Case]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"suite: cannot read {path}: {error}") from error
    cases = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            cases.append(parse_case(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    if not cases:
        raise ValueError(f"{path}: got no problem line, want at least one")
    return cases


def select(cases: Iterable[Case], pattern: str) -> list[Case]:
    """Return the cases whose line (which holds the name) matches a regular expression."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"--rows: got {pattern!r}, which is no regular expression: {error}"
        ) from None
    return [case for case in cases if wanted.search(case.line)]
