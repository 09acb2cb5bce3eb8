"""The command line: ``python -m fastconv info | explain | bench | tune | audit | ...``.

Every command imports what it needs when it runs, so ``--help`` stays instant. A mistake of the
user is one sentence on stderr and exit code 2; a traceback is always a bug.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DeviceError, FastconvError
from .problem import ConvProblem

if TYPE_CHECKING:
    from .dispatch import Problem
    from .spec import KernelSpec

__all__ = ["main"]

#: Distributions that `info` reports: those fastconv runs on, then those it is compared with.
_REQUIRED = ("fastconv", "numpy", "numba", "llvmlite")
_OPTIONAL = (
    "scipy",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "opencv-python",
    "opencv-python-headless",
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


@dataclass(frozen=True, slots=True)
class _Command:
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; those of this process by default.

    Returns
    -------
    int
        Exit code: 0, or 2 where the user's input can not be served.

    Examples
    --------
    >>> from fastconv.cli import main
    >>> main(["explain", "ic64"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(words).parse_args(words)
        return int(arguments.run(arguments))
    except FastconvError as error:
        print(f"fastconv: {error}", file=sys.stderr)
        return 2


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """Build the parser; only the named command's options are set up (bench's live in bench)."""
    parser = argparse.ArgumentParser(
        prog="fastconv",
        description="Convolution for NumPy arrays, every choice of kernel explained.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in _COMMANDS.items():
        child = commands.add_parser(name, help=command.help, description=command.help)
        if name in words:
            command.configure(child)
        child.set_defaults(run=command.run)
    return parser


def _no_arguments(_: argparse.ArgumentParser) -> None:
    """Configure a command that takes no arguments."""


def _info(_: argparse.Namespace) -> int:
    from . import cache, config, device

    print(_pairs("versions", _versions()))
    cpu = device.cpu_info()
    peaks = {
        f"peak {dtype}": f"{device.measure_peak(dtype, cpu.threads) / 1e9:,.0f} GFLOP/s measured"
        for dtype in ("float32", "float64")
    }
    machine = {
        "cpu": cpu.name,
        "isa": f"{cpu.isa}, {cpu.vector_bytes * 8}-bit vectors" + (", fma" if cpu.fma else ""),
        "caches": f"L1 {_bytes(cpu.l1)}, L2 {_bytes(cpu.l2)} a core, L3 {_bytes(cpu.l3)}",
        "threads": f"{cpu.threads}, in fastconv's own pool (no threading layer of Numba's)",
    }
    print(_pairs("machine", machine | peaks))
    print(_pairs("kernel cache", _cache_facts(cache.cache_dir())))
    print(_pairs("variables", {name: _setting(name) for name in config.VARIABLES}))
    print(_pairs("kernels", _usable_kernels()))
    return 0


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _REQUIRED + _OPTIONAL:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in _REQUIRED:
                found[name] = "not installed"
    return found


def _setting(name: str) -> str:
    import os

    return os.environ.get(name, "not set")


def _usable_kernels() -> dict[str, str]:
    """Return, for each kernel, the sample problems that it can run, or why it can run none."""
    from .dispatch import kernels
    from .explanation import explain

    facts = {}
    for spec in kernels():
        usable, refusals = [], []
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


def _sample_problems(spec: KernelSpec) -> dict[str, Problem]:
    """Return one problem of each kind, of a kernel's operator and device."""
    from .problem import parse_line
    from .sparse.problem import OPERANDS, SparseProblem

    if spec.op not in OPERANDS:
        samples = {name: parse_line(line)[0] for name, line in _SAMPLES.items()}
        return {name: each.with_(op=spec.op, device=spec.device) for name, each in samples.items()}
    rows, pairs, kernel = 100_000, 700_000, (3, 3, 3)
    return {
        name: SparseProblem(
            spec.op, rows, rows, pairs, kernel, 32, 32, groups, dtype, spec.device
        )
        for name, groups, dtype in _SPARSE_SAMPLES
    }  # fmt: skip


def _configure_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "line",
        metavar="'PROBLEM LINE'",
        help="in benchdnn's grammar, say 'ic64ih56oc64kh3ph1' or '--dt=f64 g8ic8ih32oc8kh3'; or "
        "the word sparse: a layer over the voxels of a scan",
    )
    parser.add_argument("--gpu", metavar="MODEL", help="on a GPU of this model, say A100")
    importlib.import_module("fastconv.sparse.explanation").add_arguments(parser)


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.line == "sparse":
        return int(importlib.import_module("fastconv.sparse.explanation").run(arguments))
    if arguments.scan is not None:
        raise FastconvError(f"explain: got {arguments.scan!r} behind a problem line, want one line")
    from .explanation import explain

    print(explain(arguments.line, gpu=arguments.gpu))
    return 0


def _configure_bench(parser: argparse.ArgumentParser) -> None:
    importlib.import_module("fastconv.bench.command").add_arguments(parser)


def _bench(arguments: argparse.Namespace) -> int:
    return int(importlib.import_module("fastconv.bench.command").run(arguments))


def _configure_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", help="a suite of the benchmark, a file of problems or one line")
    parser.add_argument("--rows", default="", help="regular expression on the lines to tune")


def _tune(arguments: argparse.Namespace) -> int:
    cases = importlib.import_module("fastconv.bench.cases")
    try:
        rows = cases.select(cases.load(arguments.suite), arguments.rows)
    except ValueError as error:
        raise FastconvError(str(error)) from None
    if any(case.kind != "dense" for case in rows):
        raise FastconvError(f"suite: got {arguments.suite}, want dense convolutions alone to tune")
    right = []
    for case in rows:
        kernel, times = _tune_problem(case.problem)
        told = ", ".join(f"{name} {taken:.3f} ms" for name, taken in times.items())
        print(f"{case.name:<30} {kernel:<18} {told or 'no other can run it'}", flush=True)
        if times:
            predicted, *_ = times.values()
            right.append(predicted <= 1.1 * min(times.values()))
    if right:
        print(
            f"predicted kernel within 10% of the fastest measured: {sum(right)} of {len(right)} "
            f"rows with a choice"
        )
    return 0


def _tune_problem(problem: ConvProblem) -> tuple[str, dict[str, float]]:
    """Return the fastest kernel and the milliseconds of those measured, lowest prediction first."""
    import fastconv

    from .dispatch import tuned_choice

    arrays = importlib.import_module("fastconv.bench.truth").arrays
    x, weight = arrays(problem)
    geometry = (problem.stride, problem.padding, problem.dilation, problem.groups)
    layer = getattr(fastconv, f"Conv{problem.ndim}d")(weight, None, *geometry, tune=True)
    kernel = layer.prepare(x)
    tuned = tuned_choice(problem, packed=True)
    return kernel, {} if tuned is None else tuned.milliseconds


def _configure_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kernel", nargs="?", default="", metavar="KERNEL", help="part of the names to audit"
    )
    parser.add_argument("--sm", nargs="+", metavar="SM", help="architectures, say sm_80 (all)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write one table there too")


def _audit(arguments: argparse.Namespace) -> int:
    missing = [name for name in ("numba_cuda", "rich") if find_spec(name) is None]
    if missing:
        raise FastconvError(
            f"audit needs {' and '.join(missing)}, which is not installed: "
            "pip install 'fastconv[cuda-audit]'"
        )
    return int(importlib.import_module("fastconv.kernels.cuda.report").run(arguments))


def _configure_forecast(parser: argparse.ArgumentParser) -> None:
    importlib.import_module("fastconv.forecast").add_arguments(parser)


def _forecast(arguments: argparse.Namespace) -> int:
    return int(importlib.import_module("fastconv.forecast").run(arguments))


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject",
        nargs="?",
        choices=["sparse"],
        metavar="sparse",
        help="voxels of a LiDAR scan through a sparse encoder, in place of a photograph",
    )
    parser.add_argument(
        "scan",
        nargs="?",
        type=Path,
        metavar="SCAN",
        help="a .npz, .npy, .ply, .las, .laz or KITTI's .bin (default: a sweep is simulated)",
    )
    parser.add_argument(
        "--out", type=Path, help="picture to write (default: demo.png or demo_sparse.png)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.subject == "sparse":
        _require_for_demo({"matplotlib": "matplotlib"})
        from .demo import sparse

        return sparse.run(arguments.scan, arguments.out or Path("demo_sparse.png"))
    _require_for_demo({"sklearn": "scikit-learn", "matplotlib": "matplotlib"})
    from .demo import run

    return run(arguments.out or Path("demo.png"))


def _require_for_demo(packages: dict[str, str]) -> None:
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise FastconvError(
            f"demo needs {' and '.join(missing)}, which is not installed: "
            "pip install 'fastconv[demo]'"
        )


def _configure_warmup(parser: argparse.ArgumentParser) -> None:
    from .problem import DTYPES

    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=["float32", "float64"],
        choices=list(DTYPES),
        help="element types to compile for (default: float32 float64)",
    )


def _warmup(arguments: argparse.Namespace) -> int:
    from .kernels.cpu.warmup import warmup

    start = time.perf_counter()
    count = warmup(dtypes=arguments.dtypes, progress=_progress)
    seconds = time.perf_counter() - start
    print(f"{count} kernels compiled in {seconds:.1f} s; the others were found on disk")
    return 0


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def _configure_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clear", action="store_true", help="remove all compiled kernels and tuned choices"
    )


def _cache(arguments: argparse.Namespace) -> int:
    from . import cache, tuning

    if arguments.clear:
        print(f"removed {cache.clear()} files")
    print(_pairs("kernel cache", _cache_facts(cache.cache_dir())))
    choices = tuning.memory()
    facts = {"path": str(choices.path or "none"), "problems": str(len(choices.all()))}
    print(_pairs("tuned choices", facts))
    return 0


def _cache_facts(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {"path": "none (switched off by FASTCONV_CACHE, or no folder can be written)"}
    sizes = [entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()]
    return {"path": str(folder), "entries": str(len(sizes)), "size": _bytes(sum(sizes))}


def _bytes(count: float) -> str:
    """Return a size as people read it.

    >>> _bytes(32768), _bytes(0)
    ('32 KiB', '0 B')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def _pairs(title: str, facts: dict[str, str]) -> str:
    """Return a titled block of names and values in two columns."""
    width = max(map(len, facts), default=0)
    lines: Iterable[str] = (f"  {name:<{width}}  {value}" for name, value in facts.items())
    return "\n".join([title, *lines])


_COMMANDS = {
    "info": _Command("versions, machine, measured peak, usable kernels", _no_arguments, _info),
    "explain": _Command("which kernel runs a problem, and why", _configure_explain, _explain),
    "bench": _Command("time fastconv against other libraries", _configure_bench, _bench),
    "tune": _Command("measure which kernel is fastest, and remember it", _configure_tune, _tune),
    "audit": _Command("what CUDA kernels are compiled to, no GPU needed", _configure_audit, _audit),
    "forecast": _Command(
        "what bounds CUDA kernels on GPU models, counted without one",
        _configure_forecast,
        _forecast,
    ),
    "demo": _Command(
        "filter a photograph, or encode a LiDAR scan: one picture, one table",
        _configure_demo,
        _demo,
    ),
    "warmup": _Command("compile every CPU kernel now", _configure_warmup, _warmup),
    "cache": _Command(
        "where compiled kernels and tuned choices are kept", _configure_cache, _cache
    ),
}
