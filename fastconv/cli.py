"""The command line: ``python -m fastconv info | explain | bench | tune | audit | ...``.

Every command imports what it needs when it runs, so ``--help`` stays instant. A mistake of the
user is one sentence on stderr and exit code 2; a traceback is always a bug.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .contract.errors import FastconvError
from .contract.problem import DTYPES, LAYOUTS, ConvProblem
from .contract.problem_line import LINE_KEYS

__all__ = ["main"]


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
        Exit code: 0, or 2 where the user's input cannot be served.

    Examples
    --------
    >>> from fastconv.cli import main
    >>> main(["explain", "ic64"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(words).parse_args(words)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except FastconvError as error:
        print(f"fastconv: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read has enough, as `head` has
        # What is still buffered goes nowhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """Build the parser; only the named command's options are set up (bench's live in bench)."""
    parser = argparse.ArgumentParser(
        prog="fastconv",
        description="Convolution for NumPy arrays, every choice of kernel explained.",
    )
    parser.set_defaults(run=lambda _: _help(parser))
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, command in _COMMANDS.items():
        child = commands.add_parser(name, help=command.help, description=command.help)
        if name in words:
            command.configure(child)
        child.set_defaults(run=command.run)
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    """Print what the program is for, to who names no command."""
    parser.print_help()
    return 0


def _no_arguments(_: argparse.ArgumentParser) -> None:
    """Configure a command that takes no arguments."""


def _info(_: argparse.Namespace) -> int:
    from .information import describe

    print(describe())
    return 0


def _calibrate(_: argparse.Namespace) -> int:
    from .calibration import describe

    print(describe())
    return 0


def _configure_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "line",
        metavar="'PROBLEM LINE'",
        help="in benchdnn's grammar, say 'ic64ih56oc64kh3ph1' or '--dt=f64 g8ic8ih32oc8kh3'; or "
        f"the word sparse: a layer over the voxels of a scan. Keys: {LINE_KEYS}; first --dt= "
        f'({", ".join(DTYPES.values())}) and --tag= ({", ".join(LAYOUTS.values())}), last n"name"',
    )
    parser.add_argument("--gpu", metavar="MODEL", help="on a GPU of this model, say A100")
    form = parser.add_mutually_exclusive_group()
    for name, text in (
        ("code", "print what the kernel's code is generated from, in place of the table"),
        ("asm", "print the assembly of the kernel's main loop, in place of the table"),
    ):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=text)
    importlib.import_module("fastconv.sparse.explanation").add_arguments(parser)


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.line == "sparse":
        return int(importlib.import_module("fastconv.sparse.explanation").run(arguments))
    if arguments.scan is not None:
        raise FastconvError(f"explain: got {arguments.scan!r} behind a problem line, want one line")
    if arguments.form is not None:
        from .code_listing import list_code

        print(list_code(arguments.line, arguments.form, arguments.gpu))
        return 0
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
    if not rows:
        raise FastconvError(
            f"--rows: got {arguments.rows!r}, which matches no row of {arguments.suite}"
        )
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
    layer_arguments = (problem.stride, problem.padding, problem.dilation, problem.groups)
    layer = getattr(fastconv, f"Conv{problem.ndim}d")(weight, None, *layer_arguments, tune=True)
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
    _require("audit", {"numba_cuda": "numba-cuda", "rich": "rich"}, "cuda-audit")
    return int(importlib.import_module("fastconv.kernels.cuda.audit.report").run(arguments))


def _configure_forecast(parser: argparse.ArgumentParser) -> None:
    importlib.import_module("fastconv.forecast").add_arguments(parser)


def _forecast(arguments: argparse.Namespace) -> int:
    return int(importlib.import_module("fastconv.forecast").run(arguments))


def _configure_fuzz(parser: argparse.ArgumentParser) -> None:
    importlib.import_module("fastconv.fuzz.command").add_arguments(parser)


def _fuzz(arguments: argparse.Namespace) -> int:
    return int(importlib.import_module("fastconv.fuzz.command").run(arguments))


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject",
        nargs="?",
        choices=["sparse", "train"],
        metavar="sparse|train",
        help="in place of a photograph: voxels of a LiDAR scan through a sparse encoder, or a "
        "network that learns digits",
    )
    parser.add_argument(
        "scan",
        nargs="?",
        type=Path,
        metavar="SCAN",
        help="a .npz, .npy, .ply, .las, .laz, KITTI's .bin or nuScenes' .pcd.bin (default: a sweep "
        "is simulated)",
    )
    parser.add_argument(
        "--columns", type=int, metavar="N", help="numbers a point of another .bin file"
    )
    parser.add_argument(
        "--out", type=Path, help="picture to write (default: demo.png, demo_sparse.png, ...)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.subject == "sparse":
        _require("demo", {"matplotlib": "matplotlib"}, "demo")
        from .demo import sparse

        return sparse.run(
            arguments.scan, arguments.out or Path("demo_sparse.png"), arguments.columns
        )
    needs = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    if arguments.subject == "train":
        _require("demo train", needs | {"rich": "rich"}, "demo")
        from .demo import train

        return train.run(arguments.out or Path("demo_train.png"))
    _require("demo", needs, "demo")
    from .demo import run

    return run(arguments.out or Path("demo.png"))


def _configure_onnx(parser: argparse.ArgumentParser) -> None:
    importlib.import_module("fastconv.onnx.command").add_arguments(parser)


def _onnx(arguments: argparse.Namespace) -> int:
    return int(importlib.import_module("fastconv.onnx.command").run(arguments))


def _require(command: str, packages: dict[str, str], extra: str) -> None:
    """Raise where a command's packages, by the modules that they bring, are not installed."""
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise FastconvError(
            f"{command} needs {' and '.join(missing)}, which is not installed: "
            f"pip install 'fastconv[{extra}]'"
        )


def _configure_warmup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=["float32", "float64"],
        choices=list(DTYPES),
        help="element types to compile for (default: float32 float64)",
    )


def _warmup(arguments: argparse.Namespace) -> int:
    from .contract import cache
    from .information import cache_facts
    from .kernels.cpu.runtime import jit
    from .warmup import warmup

    place = cache.place(warn=False)
    if place.folder is None:
        raise FastconvError(f"warmup: kernels would be kept nowhere: {cache_facts(place)['path']}")
    start = time.perf_counter()
    count = warmup(dtypes=arguments.dtypes, progress=_progress)
    seconds = time.perf_counter() - start
    print(
        f"{count} kernels compiled in {seconds:.1f} s, {jit.statistics.kept} of them kept in "
        f"{place.folder}; the others were found there"
    )
    return 0


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def _configure_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clear", action="store_true", help="remove all compiled kernels and tuned choices"
    )


def _cache(arguments: argparse.Namespace) -> int:
    from . import tuning
    from .contract import cache
    from .information import cache_facts, titled

    if arguments.clear:
        for cleared in cache.clear():
            left = "; what fastconv did not write is left in it" if cleared.left else ""
            print(f"removed {cleared.files} files from {cleared.folder}{left}")
    print(titled("kernel cache", cache_facts(cache.place(warn=False))))
    choices = tuning.memory()
    facts = {"path": str(choices.path or "none"), "problems": str(len(choices.all()))}
    print(titled("tuned choices", facts))
    return 0


_COMMANDS = {
    "info": _Command("versions, machine, measured peak, usable kernels", _no_arguments, _info),
    "explain": _Command("which kernel runs a problem, and why", _configure_explain, _explain),
    "bench": _Command("time fastconv against other libraries", _configure_bench, _bench),
    "calibrate": _Command("measure what a core and its memory do", _no_arguments, _calibrate),
    "tune": _Command("measure which kernel is fastest, and remember it", _configure_tune, _tune),
    "audit": _Command("what CUDA kernels are compiled to, no GPU needed", _configure_audit, _audit),
    "forecast": _Command(
        "what bounds CUDA kernels on GPU models, counted without one",
        _configure_forecast,
        _forecast,
    ),
    "demo": _Command(
        "filter a photograph, encode a LiDAR scan or learn digits: one picture, one table",
        _configure_demo,
        _demo,
    ),
    "onnx": _Command("what runs an ONNX model, and how fast", _configure_onnx, _onnx),
    "fuzz": _Command("random problems in search of failures", _configure_fuzz, _fuzz),
    "warmup": _Command(
        "compile the CPU kernels of common convolutions now", _configure_warmup, _warmup
    ),
    "cache": _Command(
        "where compiled kernels and tuned choices are kept", _configure_cache, _cache
    ),
}
