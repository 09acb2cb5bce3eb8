"""From a Python function to the optimised LLVM IR of one kernel, everything inlined.

::

    Numba-CUDA --typed text--> opaque pointers, host target, `llvm.nvvm.*` renamed
               --LLVM--> linked, device functions inlined, optimised but not vectorised
               --text--> `Module`: the kernel's lines, the lines around it, source locations

Optimising here and not only at the end has a reason: the checks and counts are put into code from
which the copies of arguments and local variables are gone, so that what is left of loads and
stores is what a GPU would do as well. Vectorising would merge them as no GPU does.

NVVM's intrinsics become plain functions (``fc.nvvm.*``) that are convergent: LLVM may neither move
memory accesses over a barrier nor merge two of them. Shared arrays are weak externals here: LLVM
may not assume that they can be read at all, so no load is hoisted out of the branch it stands in.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm

from fastconv.contract import first_use

from .halves import half_library
from .maths import library
from .opaque import opaque_pointers
from .raised import Raised, number_exceptions

__all__ = ["Module", "kernel_module", "lock", "target_machine"]

#: Numba's compiler, LLVM's global context and the stand-in for a device are all of the process.
lock = first_use.lock

COMPUTE_CAPABILITY = (8, 0)

#: Read by the hardware: the same value wherever they stand.
_PURE = "memory(none) nounwind willreturn speculatable"
_CONVERGENT = "convergent nounwind"

_LOCATION = re.compile(r"!dbg !(\d+)")
_METADATA = re.compile(r"^!(\d+) = (?:distinct )?(!DI\w+\(.*\))$", re.M)


@dataclass(frozen=True)
class Module:
    """A kernel as lines of LLVM IR in the form that LLVM prints."""

    title: str  # the Python function's name
    name: str  # with its quotes, as after the @
    head: list[str]  # globals and declarations before the kernel, and after it
    body: list[str]  # between the braces
    parameters: list[str]  # LLVM types
    parameter_text: str
    metadata: dict[int, str] = field(repr=False)
    raised: dict[int, Raised] = field(default_factory=dict)

    def source(self, line: str) -> tuple[str, int]:
        """File and line of the Python source that an instruction stems from."""
        match = _LOCATION.search(line)
        if not match:
            return "", 0
        location = self.metadata[int(match.group(1))]
        row = re.search(r"line: (\d+)", location)
        return self._file_of(location), int(row.group(1)) if row else 0

    def _file_of(self, node: str) -> str:
        while not node.startswith("!DIFile"):
            parent = re.search(r"file: !(\d+)", node) or re.search(r"scope: !(\d+)", node)
            if not parent:
                return ""
            node = self.metadata[int(parent.group(1))]
        name = re.search(r'filename: "([^"]*)"', node)
        return name.group(1) if name else ""


def target_machine() -> Any:
    """Return LLVM's description of this machine, with all that its processor can do."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        opt=3,
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        codemodel="jitdefault",
        jit=True,
    )


def optimise(module: Any, machine: Any, *, vectorise: bool) -> None:
    """Run LLVM's standard pipeline, which also splits coroutines."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = vectorise
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)


def kernel_module(
    function: Callable[..., Any], types: tuple[Any, ...], options: dict[str, Any]
) -> Module:
    """Compile `function` for arguments of `types` and return its IR.

    Parameters
    ----------
    function : callable
        Plain Python function.
    types : tuple of Numba types
        Of the arguments.
    options : dict
        Target options of its dispatcher; ``fastmath`` and ``debug`` count.
    """
    with lock:
        name, texts, raised = _numba_ir(function, types, options)
        machine = target_machine()
        module, *devices = (_parse(text, machine) for text in texts)
        for device in devices:
            module.link_in(device)
        missing = {function.name for function in module.functions if function.is_declaration}
        for text in (library(missing), half_library(missing)):
            module.link_in(llvm.parse_assembly(text))
        _internalise(module, name)
        optimise(module, machine, vectorise=False)
        kernel = module.get_function(name)
        parameters = [str(argument.type) for argument in kernel.arguments]
        return replace(_split(function.__name__, str(module), name, parameters), raised=raised)


@contextlib.contextmanager
def _stand_in_device() -> Iterator[None]:
    """Answer Numba, which asks for a device's compute capability when a device function is called.

    There is no device here, and none is needed.
    """
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    device = SimpleNamespace(compute_capability=COMPUTE_CAPABILITY)
    dispatcher.get_current_device = lambda: device
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def _numba_ir(
    function: Callable[..., Any], types: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str, list[str], dict[int, Raised]]:
    """Name of the kernel, the modules (its own, then one a device function), and its exceptions.

    With ``debug`` exceptions are kept and integers divided as in Python, which raises for zero.
    """
    from numba.cuda import compiler
    from numba.cuda.types import void

    debug = bool(options.get("debug"))
    with _stand_in_device():
        compiled = compiler.compile_cuda(
            function,
            void,
            types,
            debug=debug,
            lineinfo=True,
            fastmath=bool(options.get("fastmath")),
            nvvm_options={},
            cc=COMPUTE_CAPABILITY,
        )
    library, name = compiled.library, compiled.fndesc.llvm_func_name
    library._entry_name = name
    compiler.kernel_fixup(library.get_function(name), debug)
    texts, raised = library.llvm_strs, dict[int, Raised]()
    if debug:
        texts, raised = number_exceptions(compiled, texts)
    return name, texts, raised


def _parse(text: str, machine: Any) -> Any:
    """Return the module for the host."""
    text = opaque_pointers(text)
    text = re.sub(r"target triple = .*", f'target triple = "{machine.triple}"', text)
    text = re.sub(r"target datalayout = .*", f'target datalayout = "{machine.target_data}"', text)
    text = re.sub(
        r'^(?:@"?llvm\.used"?|!nvvm\.annotations|!nvvmir\.version) = .*$', "", text, flags=re.M
    )
    text = re.sub(
        r'^(@"?_cudapy_smem_\d+"?) = (?:external )?global (\[.*\])(?: undef)?(,.*)?$',
        r"\1 = extern_weak global \2\3",
        text,
        flags=re.M,
    )
    text = re.sub(r'@"?llvm\.nvvm\.([\w.]+)"?', r'@"fc.nvvm.\1"', text)
    text = re.sub(r'^(declare .*@"fc\.nvvm\.read\.[^)]*\))$', rf"\1 {_PURE}", text, flags=re.M)
    text = re.sub(r'^(declare .*@"fc\.nvvm\.(?!read).*\))$', rf"\1 {_CONVERGENT}", text, flags=re.M)
    module = llvm.parse_assembly(text)
    module.verify()
    return module


def _internalise(module: Any, kernel: str) -> None:
    """Make LLVM inline every device function, also those that hold a barrier."""
    for function in module.functions:
        if not function.is_declaration and function.name != kernel:
            function.linkage = "internal"
            function.add_function_attribute("alwaysinline")


def _split(title: str, text: str, name: str, parameters: list[str]) -> Module:
    """Take LLVM's text apart around the kernel."""
    define = re.search(rf'^define [^\n]*?@("?{re.escape(name)}"?)\((.*)\)[^\n()]*\{{\n', text, re.M)
    assert define is not None, name
    end = text.index("\n}\n", define.end())
    around = text[: define.start()] + text[end + 3 :]
    metadata = {int(number): node for number, node in _METADATA.findall(text)}
    head = [line for line in around.split("\n") if not line.startswith(("!", "attributes "))]
    lines = text[define.end() : end].split("\n")
    body = [line for line in lines if line.strip() and not line.lstrip().startswith(("#dbg_", ";"))]
    if not re.match(r'("[^"]*"|[-\w.$]+):', body[0]):
        body.insert(0, "fc.body:")
    return Module(title, define.group(1), head, body, parameters, define.group(2), metadata)
