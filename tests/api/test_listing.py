"""``explain LINE --code`` and ``--asm``: the generated code of the kernel that a problem runs."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastconv
from fastconv.cli import main
from fastconv.code_listing import list_code
from fastconv.contract.cpu import cpu_info
from fastconv.contract.errors import FastconvError
from fastconv.contract.problem_line import parse_line
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import dense_binding
from fastconv.dispatch import make_plan
from fastconv.kernels.cpu.listing.assembly import find_loops
from fastconv.kernels.cpu.listing.control_flow import Block, innermost_loops
from fastconv.kernels.cpu.listing.llvm_text import find_ir_loops
from fastconv.kernels.cpu.runtime import jit
from fastconv.kernels.cpu.simd.ir import F32
from fastconv.kernels.cpu.simd.register_tiles import gemm_tile
from fastconv.kernels.reference import conv

pytestmark = pytest.mark.program

LINE = "ic16ih28oc32kh3ph1"
DEPTHWISE = "g16ic16ih28oc16kh3ph1"
X86 = cpu_info().isa in ("avx512", "avx2", "sse2")

#: A function whose first loop is unrolled and has four sums, and whose second one has six; the
#: latter is rotated, so that it is entered in its middle, and has a rare block behind the end.
PLANTED = """
	.globl	_ZN4tile4makeB2v1Exx
_ZN4tile4makeB2v1Exx:
	pushq	%rbx
	.p2align	4
.LBB0_1:
	vmovups	(%rsi), %zmm9
	vfmadd231ps	(%rdi){1to16}, %zmm9, %zmm0
	vfmadd231ps	4(%rdi){1to16}, %zmm9, %zmm1
	vfmadd231ps	8(%rdi){1to16}, %zmm9, %zmm2
	vfmadd231ps	12(%rdi){1to16}, %zmm9, %zmm3
	vfmadd231ps	16(%rdi){1to16}, %zmm9, %zmm0
	vfmadd231ps	20(%rdi){1to16}, %zmm9, %zmm1
	vfmadd231ps	24(%rdi){1to16}, %zmm9, %zmm2
	vfmadd231ps	28(%rdi){1to16}, %zmm9, %zmm3
	decq	%rax
	jne	.LBB0_1
	jmp	.LBB0_3
.LBB0_2:
	vmovups	(%rsi), %ymm9
	vmovups	8(%rsp), %ymm10
	vfmadd231ps	%ymm10, %ymm9, %ymm0
	vfmadd231ps	%ymm10, %ymm9, %ymm1
	vfmadd231ps	%ymm10, %ymm9, %ymm2
	vfmadd231ps	%ymm10, %ymm9, %ymm3
	vfmadd231ps	%ymm10, %ymm9, %ymm4
	vfmadd231ps	%ymm10, %ymm9, %ymm5
	vmovups	%ymm9, 40(%rsp) {%k1}
	vmovups	%ymm9, (%rdx)
	prefetcht0	64(%rsi)
.LBB0_3:
	cmpq	%rcx, (%rbx)
	jb	.LBB0_4
	jmp	.LBB0_2
.LBB0_5:
	popq	%rbx
	retq
.LBB0_4:
	decq	%rcx
	jne	.LBB0_2
	jmp	.LBB0_5
.Lfunc_end0:
	.globl	cfunc._ZN4tile4makeB2v1Exx
cfunc._ZN4tile4makeB2v1Exx:
.LBB1_1:
	vfmadd231ps	%zmm10, %zmm9, %zmm0
	jne	.LBB1_1
	retq
"""

#: A loop that skips its arithmetic for some rows, and is entered behind it.
SKIPPING = """
rows:
	jmp	.LBB0_3
.LBB0_1:
	vfmadd231ps	%zmm1, %zmm2, %zmm0
.LBB0_2:
	decq	%rax
	je	.LBB0_4
.LBB0_3:
	cmpq	%rcx, %rax
	jb	.LBB0_1
	incq	%rdx
	jmp	.LBB0_2
.LBB0_4:
	retq
"""

SSE2 = """
sums:
.LBB0_1:
	movups	(%rsi), %xmm1
	mulps	%xmm1, %xmm2
	addps	%xmm2, %xmm3
	mulps	%xmm1, %xmm4
	addps	%xmm4, %xmm5
	addps	%xmm4, %xmm5
	jne	.LBB0_1
"""

ARM = """
sums:
	mov	x29, sp
.LBB0_1:
	ldp	q2, q3, [x0], #32
	ldr	q4, [x29, #16]
	fmla	v0.4s, v2.4s, v4.s[0]
	fmla	v1.4s, v3.4s, v4.s[0]
	str	q0, [sp, #16]
	prfm	pldl1keep, [x0, #64]
	madd	x1, x2, x3, x4
	subs	x1, x1, #1
	b.ne	.LBB0_1
	ret
"""


def test_a_loop_is_found_wherever_it_is_entered_and_the_one_with_more_sums_is_first() -> None:
    first, second = find_loops(PLANTED)
    assert [loop.function for loop in (first, second)] == ["tile.make"] * 2
    assert (first.sums, first.multiply_adds, first.bits) == (6, 6, 256)
    assert (second.sums, second.multiply_adds, second.bits) == (4, 8, 512)
    assert [line for line in first.lines if line.endswith(":")] == [
        ".LBB0_2:",
        ".LBB0_3:",
        ".LBB0_4:",
    ]
    assert (first.loads, first.stores, first.stack_loads, first.stack_stores) == (3, 2, 1, 1)
    assert (second.instructions, second.loads, second.stack_loads) == (11, 9, 0)
    assert "1 and 1 of them on the stack" in first.facts()
    assert "none on the stack" in second.facts()


def test_what_a_loop_may_skip_belongs_to_it() -> None:
    (loop,) = find_loops(SKIPPING)
    assert (loop.multiply_adds, loop.instructions) == (1, 7)


def test_multiply_adds_of_every_instruction_set_are_counted() -> None:
    (sse2,) = find_loops(SSE2)
    assert (sse2.multiply_adds, sse2.sums, sse2.bits, sse2.loads) == (2, 2, 128, 1)
    (arm,) = find_loops(ARM)
    assert (arm.multiply_adds, arm.sums, arm.bits) == (2, 2, 128)
    assert (arm.loads, arm.stores, arm.stack_loads, arm.stack_stores) == (2, 1, 1, 1)


def test_loops_in_loops_are_left_to_the_innermost() -> None:
    def graph(*after: tuple[int, ...]) -> list[Block]:
        return [Block("", (), each) for each in after]

    assert innermost_loops(graph((1,), (2,), ())) == []
    assert innermost_loops(graph((1,), (1, 2), ())) == [[1]]
    # 1 holds two loops, 2 alone and 3 with 4; a block without a way to it changes nothing.
    assert innermost_loops(graph((1,), (2, 6), (2, 3), (4,), (3, 5), (1,), (), (4,))) == [
        [2],
        [3, 4],
    ]


IR = """
define linkonce_odr i32 @_ZN4tile4makeB2v1Exx(ptr %x, i64 %n) {
entry:
  br label %wide
wide:                                             ; preds = %wide, %entry
  %0 = phi <8 x float> [ zeroinitializer, %entry ], [ %3, %wide ]
  %1 = phi <8 x float> [ zeroinitializer, %entry ], [ %4, %wide ]
  %2 = load <8 x float>, ptr %x, align 4
  %3 = tail call <8 x float> @llvm.fmuladd.v8f32(<8 x float> %2, <8 x float> %2, <8 x float> %0)
  %4 = tail call <8 x float> @llvm.fmuladd.v8f32(<8 x float> %2, <8 x float> %2, <8 x float> %1)
  br i1 %more, label %wide, label %narrow, !llvm.loop !3

narrow:                                           ; preds = %narrow, %wide
  %5 = phi float [ 0.0, %wide ], [ %7, %narrow ]
  %6 = fmul float %5, %5
  %7 = fadd float %6, %5
  br i1 %again, label %narrow, label %done

done:                                             ; preds = %narrow
  ret i32 0
}

declare float @llvm.fmuladd.f32(float, float, float)
"""


def test_loops_of_ir_are_found_with_the_most_sums_first() -> None:
    wide, narrow = find_ir_loops(IR)
    assert (wide.function, wide.multiply_adds, wide.sums) == ("tile.make", 2, 2)
    assert (narrow.multiply_adds, narrow.sums) == (1, 1)
    assert wide.lines[0] == "wide:"
    assert wide.lines[-1] == "  br i1 %more, label %wide, label %narrow"


@pytest.mark.skipif(not X86, reason="the registers of x86")
def test_the_main_loop_of_a_product_keeps_its_sums_in_registers() -> None:
    with fastconv.use_kernel("cpu.im2col_gemm"):
        printed = list_code(LINE, "asm")
    head, _, loops = printed.partition("\n\n")
    assert head.startswith(f"{parse_line(LINE)[0].line()}: cpu.im2col_gemm, ")
    facts, *loop = loops.partition("\n#")[0].splitlines()
    info = cpu_info()
    tile = gemm_tile(info, F32)
    assert facts.startswith(f"# gemm_tile({tile.mr}, {tile.nv}, {tile.lanes}, ")
    assert f" of {8 * info.vector_bytes} bits into {tile.mr * tile.nv} registers" in facts
    assert facts.endswith("none on the stack")
    register = {64: "zmm", 32: "ymm", 16: "xmm"}[info.vector_bytes]
    multiply_add = "vfmadd231ps" if info.fma else "v?mulps"
    assert any(re.search(rf"\b{multiply_add}\s.*%{register}", line) for line in loop)
    assert re.search(r"\bj\w+\s+\.?LBB", loop[-1])
    assert "no loop multiplies and adds in im2col_gemm(" in printed


@pytest.mark.parametrize("form", ["code", "asm"])
def test_the_loop_of_a_depthwise_kernel_is_listed(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", DEPTHWISE, f"--{form}"]) == 0
    printed = capsys.readouterr().out
    assert ": cpu.depthwise, " in printed.splitlines()[0]
    assert "\n# strip(3, 3, " in printed
    assert "multiply-adds" in printed
    if form == "code":
        assert "\ndef strip_loop(" in printed and "\ndef task(" in printed
        assert "# compiled for " in printed and "lanes = " in printed
        assert "@llvm.fmuladd." in printed
        assert "cfunc." not in printed and "NRT" not in printed and "cpython" not in printed


def test_variants_are_listed_in_the_order_of_compilation_and_by_their_keys() -> None:
    with fastconv.use_kernel("cpu.im2col_gemm"):
        printed = list_code(LINE, "code")
    headings = re.findall(r"^# (\w+)\(.*\): fastconv\.kernels\.cpu\.\S+, line \d+$", printed, re.M)
    assert headings == ["gemm_tile", "im2col_gemm", "im2col_gemm_pack"]
    assert "3 variants compiled" in printed.splitlines()[0]
    assert all(f"\ndef {name}(" in printed for name in ("any_rows", "task"))
    # What emits LLVM is shown by its loop, what only calls it is not.
    assert printed.count("; its main loop, in tile_address.any_rows: ") == 1
    assert printed.count("; its main loop") == 1


def test_code_is_compiled_past_the_cache_and_can_be_run(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    problem = parse_line("ic5ih9oc7kh3")[0]
    x, weight = (
        rng.standard_normal(shape, dtype="f4") for shape in (problem.x_shape, problem.weight_shape)
    )
    expected = conv(
        x, weight, stride=problem.stride, padding=problem.padding, dilation=problem.dilation
    )
    fastconv.conv2d(x, weight)  # starts the threads, whose code comes from the cache
    with monkeypatch.context() as patch:
        for name in ("load_overload", "save_overload"):
            patch.setattr(jit.KernelCache, name, lambda *_: pytest.fail("the cache was asked"))
        patch.setattr(jit, "_callbacks", {})  # as in a process that has run nothing
        with fastconv.use_kernel("cpu.im2col_gemm"):
            once, again = (list_code("ic5ih9oc7kh3", "asm") for _ in range(2))
            assert once == again
            y = fastconv.conv2d(x, weight)
    assert np.abs(y - expected).max() < 1e-5 * np.abs(expected).max()


def test_listing_leaves_later_calls_what_they_run() -> None:
    with jit.recorded_variants() as variants, fastconv.use_kernel("cpu.im2col_gemm"):
        make_plan(parse_line(LINE)[0], dense_binding(parse_line(LINE)[0]))
    assert variants and jit._recorded.get() is None
    before = jit.statistics.compiled, jit.statistics.loaded
    assert all(key in jit._callbacks for key in variants)
    with fastconv.use_kernel("cpu.im2col_gemm"):
        make_plan(parse_line(LINE)[0], dense_binding(parse_line(LINE)[0]))
    assert (jit.statistics.compiled, jit.statistics.loaded) == before


def test_sparse_kernels_are_listed_for_given_channels(capsys: pytest.CaptureFixture[str]) -> None:
    problem = SparseProblem("sparse_conv", 900, 900, 4000, (3, 3, 3), 16, 32)
    assert "\n# gather_tiles(" in list_code(problem, "asm")
    pool = SparseProblem("sparse_max_pool", 900, 900, 4000, (2, 2), 16, 16)
    assert "no loop multiplies and adds in sparse_pool(" in list_code(pool, "asm")
    assert main(["explain", "sparse", "--asm"]) == 2
    assert main(["explain", "sparse", "--code", "--channels", "16,32", "--gpu", "A100"]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("fastconv: --") and "--channels IN,OUT" in line
    with pytest.raises(FastconvError, match="want a dense problem"):
        list_code(problem, "asm", "A100")


def test_what_can_not_be_listed_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with fastconv.use_kernel("cpu.dilated"):
        assert main(["explain", LINE, "--asm"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastconv: the kernel that is forced does not run ")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["explain", LINE, "--asm", "--code"])
    with pytest.raises(FastconvError, match="want a dense problem and a model of a GPU"):
        list_code(parse_line(LINE)[0].with_(device="cuda"), "code")
