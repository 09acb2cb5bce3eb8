"""Dependencies point one way: what each part of the tree may import, read from every source.

Names given to importlib or to `first_use.load` count as imports; parts of an f-string that are
computed stand for anything.
"""

from __future__ import annotations

import ast
import fnmatch
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastconv
from fastconv import dispatch

pytestmark = pytest.mark.program

ROOT = Path(__file__).resolve().parents[2]
LOADERS = ("import_module", "load", "__import__", "find_spec")

#: What each part may import of fastconv beside itself, most special first: the first pattern that
#: fits a module's name counts.
MAY_IMPORT = {
    "fastconv.contract*": (),
    "fastconv.kernels": (),
    "fastconv.kernels.cpu*": ("fastconv.contract", "fastconv.kernels.shared"),
    # The emulator compiles what it runs with the CPU's compiler and cache.
    "fastconv.kernels.cuda.emulator*": ("fastconv.contract", "fastconv.kernels.cpu.runtime"),
    "fastconv.kernels.cuda*": ("fastconv.contract", "fastconv.kernels.shared"),
    "fastconv.kernels.*": ("fastconv.contract", "fastconv.kernels.shared"),
    "fastconv.scans*": ("fastconv.contract",),
}
#: What kernels of all devices share.
SHARED = ("axes", "cook_toom", "sums", "taps", "tolerance", "reference")


def part(module: str) -> str:
    """The part of the tree that a module belongs to, as `MAY_IMPORT` names it."""
    names = module.split(".")
    if names[:2] == ["fastconv", "kernels"] and len(names) > 2 and names[2] in SHARED:
        return "fastconv.kernels.shared"
    return module


def sources() -> dict[str, Path]:
    """Every module of the package and its file."""
    found = {}
    for folder, package in (("fastconv", ""), ("kernels", "fastconv."), ("bench", "fastconv.")):
        for path in (ROOT / folder).rglob("*.py"):
            if not path.is_symlink() and "kernels" not in path.relative_to(ROOT).parts[1:2]:
                names = path.relative_to(ROOT).with_suffix("").parts
                found[package + ".".join(names).removesuffix(".__init__")] = path
    return found


SOURCES = sources()


def imports(module: str, text: str, package: bool) -> Iterator[tuple[int, str]]:
    """Line and name of each module that a source imports; a name may hold ``*``."""
    home = module if package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = home.split(".")[: len(home.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in SOURCES else base
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in LOADERS and (given := written(node.args[0])):
                yield node.lineno, given


def written(node: ast.expr) -> str:
    """The text of a string, with ``*`` for what is computed; "" where it is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(piece.value) if isinstance(piece, ast.Constant) else "*" for piece in node.values
        )
    return ""


def forbidden(module: str, text: str, package: bool = False) -> list[str]:
    """Sentences on the imports of a source that its part of the tree may not have."""
    pattern = next((each for each in MAY_IMPORT if fnmatch.fnmatchcase(module, each)), None)
    if pattern is None or part(module) == "fastconv.kernels.shared":
        pattern = "fastconv.kernels.*" if pattern else None
    if pattern is None:
        return []
    own = pattern.rstrip("*").rstrip(".") if pattern != "fastconv.kernels.*" else "shared"
    allowed = (*MAY_IMPORT[pattern], own)
    return [
        f"{module}:{line} imports {name}"
        for line, name in imports(module, text, package)
        if name.split(".")[0] == "fastconv"
        and not any(part(name) == each or part(name).startswith(f"{each}.") for each in allowed)
    ]


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_imports_what_its_part_may(module: str) -> None:
    path = SOURCES[module]
    assert forbidden(module, path.read_text(), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("fastconv.contract.problem", "from ..dispatch import choose"),
        ("fastconv.contract.problem", "import fastconv.kernels.taps"),
        ("fastconv.kernels.cpu.gemm.tile", "from fastconv.dispatch import choose"),
        ("fastconv.kernels.cpu.gemm.tile", "from fastconv import dispatch"),
        ("fastconv.kernels.cpu.gemm.tile", "from ...cuda.gemm import tile"),
        ("fastconv.kernels.cuda.gemm.tile", "from ...cpu.gemm import tile"),
        ("fastconv.kernels.cpu.gemm.tile", "first_use.load('fastconv.sparse.rulebook')"),
        ("fastconv.kernels.cpu.gemm.tile", "import_module(f'fastconv.{name}.rulebook')"),
        ("fastconv.kernels.cuda.gemm.tile", "def f():\n    import fastconv.arrays"),
        ("fastconv.kernels.taps", "from .cpu.gemm import tile"),
        ("fastconv.scans.read", "from ..demo import cases"),
    ],
)
def test_a_planted_import_is_found(module: str, text: str) -> None:
    assert len(forbidden(module, text)) == 1


def test_folders_of_kernels_form_no_circle() -> None:
    """Each mechanism stands above what it uses; modules on top of a folder are their own."""
    above: dict[str, set[str]] = defaultdict(set)
    for module, path in SOURCES.items():
        names = module.split(".")
        if names[:2] != ["fastconv", "kernels"] or len(names) < 4:
            continue
        mine = ".".join(names[:4])
        for _, name in imports(module, path.read_text(), path.name == "__init__.py"):
            theirs = ".".join(name.split(".")[:4])
            if name.startswith("fastconv.kernels.") and name.count(".") > 2 and theirs != mine:
                above[mine].add(theirs)
    order: list[str] = []

    def visit(folder: str, path: tuple[str, ...]) -> None:
        assert folder not in path, " > ".join((*path, folder))
        if folder not in order:
            for below in sorted(above[folder]):
                visit(below, (*path, folder))
            order.append(folder)

    for folder in sorted(above):
        visit(folder, ())
    assert order.index("fastconv.kernels.cpu.simd") < order.index("fastconv.kernels.cpu.runtime")


#: What the library reaches of kernels beside the registry: code that is no kernel. Sites meet by
#: rulebooks, which no problem is dispatched to, and element-wise nodes by formulas, of which there
#: are no sizes to choose by; what lies between two kernels is borrowed as their
#: workspaces are; commands measure, audit, forecast and emulate; the reference is the truth of
#: whoever compares.
BESIDE_THE_REGISTRY = {
    "fastconv.bench.array_truth": {"reference"},
    "fastconv.bench.boundary_truth": {"reference"},
    "fastconv.bench.transposed_truth": {"reference"},
    "fastconv.calibration": {"cpu.calibration.measure", "cpu.machine.measured"},
    "fastconv.cli": {"cpu.runtime.jit", "cuda.audit.report"},
    "fastconv.cuda_emulator": {"cuda.emulator"},
    "fastconv.demo.engines": {"reference"},
    "fastconv.code_listing": {
        "cpu.listing.variants",
        "cpu.runtime.jit",
        "cuda.audit.listing",
    },
    "fastconv.explanation": {"cpu.machine.seconds"},
    "fastconv.fingerprint": {"cpu.runtime.fingerprint"},
    "fastconv.forecast": {"cuda.forecast.forecast"},
    "fastconv.fuzz": {"reference", "reference.sparse", "reference.sparse_sets"},
    "fastconv.information": {"cpu.gemm.peak", "cpu.machine.seconds"},
    "fastconv.onnx.chains": {"cpu.elementwise.plan"},
    "fastconv.onnx.job_list": {"cpu.runtime.recording"},
    "fastconv.ops.boundary_calls": {"cpu.runtime.scratch"},
    "fastconv.ops.pair_plan": {"cpu.runtime.scratch"},
    "fastconv.sparse.rulebook": {"*.rulebook.build"},
    "fastconv.sparse.sites": {"cpu.rulebook.build", "cpu.rulebook.join"},
    "fastconv.warmup": {
        "cpu.rulebook.build",
        "cpu.rulebook.join",
        "cpu.runtime.fingerprint",
        "cpu.runtime.jit",
    },
}


def test_the_library_reaches_kernels_through_the_registry() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in SOURCES.items():
        if module.startswith(("fastconv.kernels", "fastconv.contract")):
            continue
        where = "fastconv.fuzz" if module.startswith("fastconv.fuzz.") else module
        for _, name in imports(module, path.read_text(), path.name == "__init__.py"):
            if name.startswith("fastconv.kernels."):
                found[where].add(name.removeprefix("fastconv.kernels."))
    assert found == BESIDE_THE_REGISTRY


def test_the_library_names_no_kernel() -> None:
    names = {spec.name for spec in dispatch.kernels()}
    for module, path in SOURCES.items():
        if not module.startswith("fastconv.kernels"):
            constants = (node for node in ast.walk(ast.parse(path.read_text()))
                         if isinstance(node, ast.Constant))  # fmt: skip
            assert not names & {node.value for node in constants}, module


def test_no_function_bears_the_name_of_a_module() -> None:
    """Python would put a module that is imported later in the function's place."""
    modules = {path.stem for path in (ROOT / "fastconv").iterdir()} | {"kernels", "bench"}
    assert modules & set(fastconv.__all__) == set(fastconv._SUBMODULES) & set(fastconv.__all__)
