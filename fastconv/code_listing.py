"""The code of the kernel that a problem runs: ``python -m fastconv explain LINE --code`` or --asm.

    form    CPU                                          CUDA, with --gpu MODEL
    code    Python source of each compiled variant,      generated text of each kernel
            LLVM IR of its main loop
    asm     assembly of the loops that multiply and      SASS of the main loops, with the audit's
            add, and what they are made of               counts

Kernels are compiled for this, past the cache on disk, and none is run.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from .contract.array_problem import ArrayProblem, dense_array_binding
from .contract.boundary_problem import BoundaryProblem
from .contract.errors import DeviceError, FastconvError, ShapeError
from .contract.pair_problem import PairProblem
from .contract.problem import ConvProblem
from .contract.problem_line import parse_any_line
from .contract.spec import CudaInfo, SparseBinding, dense_binding, dense_strides
from .contract.transposed_problem import TransposedProblem
from .cuda_device import EMULATED, named_model, use_device
from .dispatch import Problem, make_plan
from .trim import trim

__all__ = ["Form", "list_code"]

Form = Literal["code", "asm"]


def list_code(what: Problem | str, form: Form, gpu: str | None = None) -> str:
    """Return the code of the kernel that a call with packed weights would run.

    Parameters
    ----------
    what : ConvProblem, SparseProblem or str
        A problem, or a problem line.
    form : {"code", "asm"}
        Sources, or the machine code of main loops.
    gpu : str, optional
        A name of `fastconv.cuda_device.MODELS`: the code for such a GPU, which need not be there.

    Raises
    ------
    NoKernelError
        Where no kernel runs the problem.
    DeviceError
        For a CUDA problem without a model, or a sparse one.
    FastconvError
        Where a package that compiles for CUDA is missing.

    Examples
    --------
    >>> list_code("g8ic8ih8oc8kh3ph1", "code").partition(",")[0]
    'g8ic8ih8oc8oh8kh3ph1: cpu.depthwise'
    """
    problem = parse_any_line(what)[0] if isinstance(what, str) else what
    if isinstance(problem, (TransposedProblem, BoundaryProblem)):
        raise ShapeError(
            f"code: got {problem.line()}, want one of its parts, which explain lists: each is a "
            "dense convolution"
        )
    if isinstance(problem, PairProblem):
        raise ShapeError(
            f"code: got {problem.line()}, want one of its two convolutions, which explain lists"
        )
    if isinstance(problem, ConvProblem):
        problem, _ = trim(problem)
    if gpu is None and problem.device == "cpu":
        return _list_cpu(problem, form)
    if gpu is None or not isinstance(problem, ConvProblem):
        got = "no gpu" if gpu is None else problem.line()
        raise DeviceError(
            f"code for CUDA: got {got}, want a dense problem and a model of a GPU, say 'A100'"
        )
    return _list_cuda(problem.with_(device="cuda"), form, named_model(gpu))


def _list_cpu(problem: Problem, form: Form) -> str:
    from .kernels.cpu.listing import variants
    from .kernels.cpu.runtime import jit

    with jit.recorded_variants() as compiled:
        if isinstance(problem, ConvProblem):
            spec, _ = make_plan(problem, dense_binding(problem))
        elif isinstance(problem, ArrayProblem):
            spec, _ = make_plan(problem, dense_array_binding(problem))
        else:
            has_weight = problem.op == "sparse_conv"
            strides = dense_strides(problem.weight_shape, problem.itemsize) if has_weight else ()
            spec, _ = make_plan(problem, SparseBinding(strides))
    write = variants.code_listing if form == "code" else variants.assembly_listing
    head = f"{problem.line()}: {spec.name}, {len(compiled)} variants compiled"
    return f"{head}\n\n{write(compiled.values())}"


def _list_cuda(problem: ConvProblem, form: Form, model: CudaInfo) -> str:
    if find_spec("numba_cuda") is None:
        raise FastconvError(
            "explain --code and --asm of CUDA kernels need numba-cuda, which is not installed: "
            "pip install 'fastconv[cuda-audit]'"
        )
    from .kernels.cuda.audit import listing

    binding = dense_binding(problem)
    with use_device(EMULATED, model):
        spec, plan = make_plan(problem, binding)
    kernels = listing.launched_kernels(plan, problem, binding)
    head = f"{problem.line()}: {spec.name} on {model.name}, {len(kernels)} kernels"
    if form == "code":
        return f"{head}\n\n{listing.code_listing(kernels)}"
    arch = "sm_{}{}".format(*model.compute_capability)
    return f"{head}\n\n{listing.assembly_listing(kernels, arch)}"
