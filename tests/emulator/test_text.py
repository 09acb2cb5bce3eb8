"""The emulator's handling of IR as text, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

import fastconv.cuda_emulator  # noqa: E402 - after the look for the package
from fastconv.kernels.cuda.emulator import halves, kernel, maths, opaque  # noqa: E402
from fastconv.kernels.cuda.emulator.text import size_of, split_commas  # noqa: E402


def test_is_found_without_an_import_of_its_own():
    code = "import fastconv; print(fastconv.cuda_emulator.EmulatedKernel.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "EmulatedKernel\n"


@pytest.mark.parametrize("module", [opaque, kernel, fastconv.cuda_emulator])
def test_docstrings(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    ("typed", "opaque_text"),
    [
        ("load float, float addrspace(3)* %p", "load float, ptr %p"),
        ("[2 x {i8*, i32 (i8*, ...)**}]* %a", "ptr %a"),
        ('@"x*" = addrspace(3) global [4 x float*] undef', '@"x*" = global [4 x ptr] undef'),
        ("<4 x float>* getelementptr (i8, i8* @g, i64 1)", "ptr getelementptr (i8, ptr @g, i64 1)"),
        ('c"i8*\\00"  ; a * b', 'c"i8*\\00"  ; a * b'),
        ('%"T"* addrspacecast (i8 addrspace(1)* @g to %"T"*)', "ptr bitcast (ptr @g to ptr)"),
        ("load i8, ptr %p", "load i8, ptr %p"),
    ],
)
def test_opaque_pointers(typed, opaque_text):
    assert opaque.opaque_pointers(typed) == opaque_text


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("i1", 1), ("i32", 4), ("half", 2), ("ptr", 8), ("<4 x float>", 16),
        ("[3 x [5 x i16]]", 30), ("{ i8, i32 }", 8),
        ("<{ i8, i32 }>", 5), ("{ i32, { i8, double }, i8 }", 32), ("{}", 0),
    ],
)  # fmt: skip
def test_sizes_of_types(type_, size):
    assert size_of(type_) == size


def test_commas_inside_of_brackets_split_nothing():
    text = 'i32 %a, ptr getelementptr (i8, ptr @"g,h", i64 4), <2 x i32> <i32 1, i32 2>), !dbg !3'
    assert split_commas(text) == [
        "i32 %a",
        'ptr getelementptr (i8, ptr @"g,h", i64 4)',
        "<2 x i32> <i32 1, i32 2>",
    ]


@pytest.mark.parametrize("table", [maths, halves])
def test_every_twin_is_ir_that_llvm_takes(table):
    import llvmlite.binding as llvm

    names = [row[1] if table is maths else row[0] for row in table._definitions()]
    assert len(names) == len(set(names)) > 100
    write = maths.library if table is maths else halves.half_library
    module = llvm.parse_assembly(write(set(names)))
    module.verify()
    assert {function.name for function in module.functions if not function.is_declaration} == set(
        names
    )
