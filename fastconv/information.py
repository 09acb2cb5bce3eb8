"""What the command `info` tells: versions, machine, caches, and what each kernel can run."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata

from . import dispatch
from .contract import cache, settings
from .contract.array_problem import ARRAY_OPS
from .contract.cpu import cpu_info
from .contract.errors import DeviceError, FastconvError
from .contract.problem_line import parse_line
from .contract.sparse_problem import OPERANDS, SparseProblem
from .contract.spec import KernelSpec
from .dispatch import Problem
from .explanation import explain

__all__ = ["cache_facts", "describe", "measure_peak", "size_text", "titled", "usable_kernels"]

#: Distributions that `info` reports: those fastconv runs on, then those it is compared with.
_REQUIRED = ("fastconv", "numpy", "numba", "llvmlite")
_OPTIONAL = (
    "scipy",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "opencv-python",
    "opencv-python-headless",
    "spconv",
    "ml_dtypes",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "numba-cuda",
)

#: One problem of each kind, to ask every kernel what it can run on this machine.
_SAMPLES = {
    "3x3": "ic64ih56oc64kh3ph1",
    "1x1": "ic64ih56oc256kh1",
    "strided": "ic64ih56oc128kh3sh2ph1",
    "grouped": "g4ic64ih56oc64kh3ph1",
    "depthwise": "g64ic64ih56oc64kh3ph1",
    "dilated": "ic64ih56oc64kh3ph2dh1",
    "image filter": "ic1ih480iw640oc1kh7ph3",
    "large filter": "ic1ih640oc1kh31ph15",
    "1-d": "ic64iw1000oc64kw5pw2",
    "3-d": "ic16id16oc16kd3pd1",
    "float64": "--dt=f64 ic64ih56oc64kh3ph1",
    "float16": "--dt=f16 ic64ih56oc64kh3ph1",
}
#: The same over 100,000 active sites: name, groups of 32 channels, element type.
_SPARSE_SAMPLES = (
    ("sparse", 1, "float32"),
    ("sparse depthwise", 32, "float32"),
    ("sparse float64", 1, "float64"),
    ("sparse float16", 1, "float16"),
)


def describe() -> str:
    """Return versions, machine, peak, caches, variables and kernels, as blocks of lines."""
    from .kernels.cpu.machine.seconds import profile_source

    cpu = cpu_info()
    peaks = {f"peak {dtype}": _peak(dtype, cpu.threads) for dtype in ("float32", "float64")}
    machine = {
        "cpu": f"{cpu.name} ({cpu.model})",
        "isa": f"{cpu.isa}, {cpu.vector_bytes * 8}-bit vectors" + (", fma" if cpu.fma else ""),
        "caches": f"L1 {size_text(cpu.l1)}, L2 {size_text(cpu.l2)} a core, L3 {size_text(cpu.l3)}",
        "costs": profile_source(cpu),
        "threads": f"{cpu.threads}, in fastconv's own pool (no threading layer of Numba's)",
    }
    blocks = {
        "versions": _versions(),
        "machine": machine | peaks,
        "kernel cache": cache_facts(cache.place(warn=False)),
        "variables": _variables(),
        "kernels": _said_once(usable_kernels()),
    }
    return "\n".join(titled(title, facts) for title, facts in blocks.items())


def _variables() -> dict[str, str]:
    """Return what each variable is set to, and which of those set has a name that nothing reads."""
    told = {name: os.environ.get(name) or "not set" for name in settings.VARIABLES}
    known = (*told, "FASTCONV_SCAN")  # the benchmark of sparse layers reads it
    unread = (name for name in sorted(os.environ) if name.startswith("FASTCONV_"))
    return told | {name: "set, but nothing reads it" for name in unread if name not in known}


def _peak(dtype: str, threads: int) -> str:
    try:
        return f"{measure_peak(dtype, threads) / 1e9:,.0f} GFLOP/s measured"
    except FastconvError as error:  # the compiler is switched off: the rest can be told
        return f"not measured: {error}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _REQUIRED + _OPTIONAL:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in _REQUIRED:
                versions[name] = "not installed"
    return versions


def usable_kernels() -> dict[str, str]:
    """Return, for each kernel, the sample problems that it can run, or why it can run none.

    Of operators without a weight it is the element types.
    """
    facts = {}
    for spec in dispatch.kernels():
        if spec.op in ARRAY_OPS:
            facts[spec.name] = ", ".join(spec.tolerance)
            continue
        usable, refusals = [], []
        if spec.op in ARRAY_OPS:  # it runs all that its operator knows
            facts[spec.name] = ", ".join(spec.tolerance)
            continue
        for name, sample in _sample_problems(spec).items():
            try:
                rows = explain(sample).rows
            except DeviceError as error:  # there is no such device to explain for
                refusals.append(str(error))
                continue
            row = next(row for row in rows if row.kernel == spec.name)
            if row.milliseconds is None:
                refusals += row.reasons
            else:
                usable.append(name)
        facts[spec.name] = ", ".join(usable) or "; ".join(["unusable", *dict.fromkeys(refusals)])
    return facts


def _said_once(facts: dict[str, str]) -> dict[str, str]:
    """Return facts with those that stood there before told by the first name that has them.

    >>> _said_once({"a": "long", "b": "short", "c": "long"})
    {'a': 'long', 'b': 'short', 'c': 'as a'}
    """
    first: dict[str, str] = {}
    for name, fact in facts.items():
        first.setdefault(fact, name)
    return {
        name: fact if first[fact] == name else f"as {first[fact]}" for name, fact in facts.items()
    }


def _sample_problems(spec: KernelSpec) -> dict[str, Problem]:
    """Return one problem of each kind, of a kernel's operator and device."""
    if spec.op not in OPERANDS:
        samples = {name: parse_line(line)[0] for name, line in _SAMPLES.items()}
        return {
            name: sample.with_(op=spec.op, device=spec.device) for name, sample in samples.items()
        }
    rows, pairs, kernel = 100_000, 700_000, (3, 3, 3)
    return {
        name: SparseProblem(
            spec.op, rows, rows, pairs, kernel, 32, 32, groups, dtype, spec.device
        )
        for name, groups, dtype in _SPARSE_SAMPLES
    }  # fmt: skip


def cache_facts(place: cache.Place) -> dict[str, str]:
    """Return what there is to say of where kernels are kept, and of what is not used for them."""
    doubts = "; ".join(place.doubts)
    if place.folder is None:
        return {"path": f"none ({doubts or 'switched off by FASTCONV_CACHE=0'})"}
    sizes = []
    for entry in place.folder.iterdir():
        with contextlib.suppress(OSError):  # another process may remove it at any time
            if entry.is_file():
                sizes.append(entry.stat().st_size)
    facts = {"path": str(place.folder), "entries": str(len(sizes)), "size": size_text(sum(sizes))}
    return facts | ({"passed over": doubts} if doubts else {})


def size_text(count: float) -> str:
    """Return a size as people read it.

    >>> size_text(32768), size_text(0)
    ('32 KiB', '0 B')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def titled(title: str, facts: dict[str, str]) -> str:
    """Return a titled block of names and values in two columns."""
    width = max(map(len, facts), default=0)
    lines: Iterable[str] = (f"  {name:<{width}}  {value}" for name, value in facts.items())
    return "\n".join([title, *lines])


def measure_peak(dtype: str = "float32", threads: int | None = None) -> float:
    """Measure the multiply-add peak, in FLOP/s, with the GEMM micro-kernel on data in L1.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Element type.
    threads : int, optional
        Threads to use; those in force by default.

    Returns
    -------
    float
        Best of several short runs, over all threads together.
    """
    from .kernels.cpu.gemm.peak import measure

    device = cpu_info()
    return measure(dtype, replace(device, threads=threads or device.threads))
