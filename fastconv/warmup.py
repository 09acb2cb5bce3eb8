"""Compile ahead of time: everything that common problems will ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .arrays import dtype_of
from .contract.geometry import KINDS, Geometry
from .contract.problem import DTYPES, ConvProblem
from .contract.problem_line import parse_line
from .contract.spec import dense_binding
from .dispatch import list_candidates, plan_of
from .kernels.cpu.rulebook import build as rulebook
from .kernels.cpu.rulebook.join import join_rows
from .kernels.cpu.runtime import jit
from .kernels.cpu.runtime.fingerprint import Parts
from .sparse.rulebook import Rulebook

__all__ = ["warmup"]

# Each line reaches another variant: tiles by width, by kernel size, by stride.
_LINES = (
    "ic64ih14oc64kh3ph1",
    "ic64ih40oc64kh3ph6dh5",
    *(
        f"g8ic8ih{w}oc8kh{k}ph{k // 2}sh{s}"
        for w in (14, 28, 42, 112)
        for k in (3, 5, 7)
        for s in (1, 2)
    ),
    *(f"g8ic8iw{w}oc8kw{k}pw{k // 2}" for w in (16, 1000) for k in (3, 31)),
    "g8ic8id8ih28iw28oc8kd3pd1",
    *(f"ic3ih{w}oc3kh{k}ph{k // 2}" for w in (16, 512) for k in (3, 5, 15)),
)


def _problems(dtypes: Iterable[str]) -> Iterator[ConvProblem]:
    for dtype in dtypes:
        for line in _LINES:
            yield parse_line(f"--dt={DTYPES[dtype]} {line}")[0]


def _build_rulebooks(dtypes: tuple[str, ...]) -> None:
    """Run all that sorts, pairs and joins sites, which is the same code for every geometry."""
    sites = np.array([[0, 2], [0, 1]], np.int32)  # unsorted, so that sorting runs too
    for kind in KINDS:
        book = Rulebook.build(Geometry(kind, (4,), 1, (3,), (1,), (1,), ((1, 1),), (0,)), sites)
        rulebook.reverse(book.neighbours, book.in_rows)
        rulebook.order(rulebook.masks(book.neighbours))
        rulebook.pair_lists(book.neighbours)
        rulebook.hash_table((4,), 1, sites)
    for dtype in dtypes:
        rows = np.zeros((2, 1), dtype_of(dtype))
        if rows.dtype.name == dtype:  # there is no bfloat16 without ml_dtypes
            join_rows(rows, np.arange(2, dtype=np.int32), np.array([0, 2]), "sum")


def warmup(
    dtypes: Iterable[str] = ("float32", "float64"),
    progress: Callable[[str], None] | None = None,
) -> int:
    """Compile the CPU kernels for common problems and keep them on disk.

    Parameters
    ----------
    dtypes : iterable of str
        Element types to compile for.
    progress : callable, optional
        Told each kernel and problem before it is compiled, and how many there are.

    Returns
    -------
    int
        Number of variants that were compiled now; those found on disk do not count.
    """
    before = jit.statistics.compiled
    if progress is not None:
        progress("cpu.rulebook")
    dtypes = tuple(dtypes)
    _build_rulebooks(dtypes)
    nothing = np.zeros(1)
    Parts([(nothing.ctypes.data, nothing.nbytes)]).fingerprints()
    pairs = [
        (candidate.spec, problem)
        for problem in _problems(dtypes)
        for candidate in list_candidates(problem, packed=True)
        if not candidate.reasons
    ]
    for number, (spec, problem) in enumerate(pairs, 1):
        if progress is not None:
            progress(f"{number} of {len(pairs)}: {spec.name} {problem.line()}")
        plan_of(spec, problem, dense_binding(problem))
    return jit.statistics.compiled - before
