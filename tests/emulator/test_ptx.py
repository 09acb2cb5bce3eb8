"""Inline PTX in the emulator: wide and asynchronous copies, tensor cores, what has no twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from llvmlite import ir  # noqa: E402 - after the look for the package
from numba import float32, uint32  # noqa: E402
from numba.cuda import types  # noqa: E402
from numba.cuda.cudadrv import nvvm  # noqa: E402
from numba.cuda.extending import intrinsic  # noqa: E402

from emulator_helpers import launch  # noqa: E402
from fastconv import cuda_emulator  # noqa: E402
from fastconv.kernels.cuda.emulator.ir import _numba_ir  # noqa: E402
from tensor_core import multiply_tf32  # noqa: E402


def four(array: Any, context: Any, builder: Any, value: Any, index: Any, space: int | None = None):
    """Address of four floats of an array."""
    data = context.make_array(array)(context, builder, value=value).data
    vector = ir.VectorType(ir.FloatType(), 4)
    pointer = builder.bitcast(builder.gep(data, [index]), vector.as_pointer())
    return pointer if space is None else builder.addrspacecast(pointer, vector.as_pointer(space))


@intrinsic
def copy_four(typingctx, out, i, x, j):
    """128-bit load and store."""

    def codegen(context, builder, sig, args):
        value = builder.load(four(sig.args[2], context, builder, *args[2:]), align=16)
        builder.store(value, four(sig.args[0], context, builder, *args[:2]), align=16)
        return context.get_dummy_value()

    return types.void(out, i, x, j), codegen


@intrinsic
def copy_async(typingctx, shared, i, x, j):
    """Inline PTX: 16 bytes from global to shared memory."""

    def codegen(context, builder, sig, args):
        target = four(sig.args[0], context, builder, *args[:2], space=3)
        source = four(sig.args[2], context, builder, *args[2:])
        arguments = [
            builder.ptrtoint(target, ir.IntType(32)),
            builder.ptrtoint(source, ir.IntType(64)),
        ]
        type_ = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        ptx = "cp.async.cg.shared.global [$0], [$1], 16;"
        builder.call(ir.InlineAsm(type_, ptx, "r,l,~{memory}", side_effect=True), arguments)
        return context.get_dummy_value()

    return types.void(shared, i, x, j), codegen


def ptx(text: str) -> Any:
    """Inline PTX without operands."""

    @intrinsic
    def run(typingctx):
        def codegen(context, builder, sig, args):
            type_ = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(type_, text, "~{memory}", side_effect=True), [])
            return context.get_dummy_value()

        return types.void(), codegen

    return run


commit, wait = ptx("cp.async.commit_group;"), ptx("cp.async.wait_group 0;")
wait_but_one = ptx("cp.async.wait_group 1;")
unknown = ptx("wgmma.fence.sync.aligned;")


def wide_copies(out, x):
    tile = cuda.shared.array(128, float32, 16)
    t = uint32(cuda.threadIdx.x)
    copy_async(tile, t * uint32(4), x, t * uint32(4))
    commit()
    wait()
    cuda.syncthreads()
    copy_four(out, t * uint32(4), tile, uint32(124) - t * uint32(4))


def test_wide_and_asynchronous_copies(rng):
    x = rng.standard_normal(128).astype(np.float32)
    out = np.full(128, np.nan, np.float32)
    report = launch(wide_copies, out, x)
    np.testing.assert_array_equal(out, x.reshape(32, 4)[::-1].ravel())
    assert {access.size for access in report.accesses} == {16}
    np.testing.assert_array_equal([access.cost for access in report.accesses], [16, 4, 4, 16])
    shifted = np.full(132, np.nan, np.float32)[1:129]
    faults = cuda_emulator.EmulatedKernel(wide_copies).launch(
        1, 32, (shifted, x), checks=cuda_emulator.ALL
    )
    assert "shifted" not in str(faults.misaligned[0])
    assert "out[0]" in str(faults.misaligned[0])


def pair_address(context: Any, builder: Any, array: Any, value: Any, index: Any) -> Any:
    data = context.make_array(array)(context, builder, value=value).data
    return builder.ptrtoint(builder.gep(data, [index]), ir.IntType(64))


@intrinsic
def load_pair(typingctx, x, i):
    """Inline PTX: 64-bit load with a cache hint."""

    def codegen(context, builder, sig, args):
        address = pair_address(context, builder, sig.args[0], *args)
        type_ = ir.FunctionType(ir.LiteralStructType([ir.FloatType()] * 2), [address.type])
        ptx = "ld.global.nc.v2.f32 {$0,$1}, [$2];"
        value = builder.call(ir.InlineAsm(type_, ptx, "=f,=f,l"), [address])
        items = [builder.extract_value(value, i) for i in range(2)]
        return context.make_tuple(builder, sig.return_type, items)

    return types.UniTuple(types.float32, 2)(x, i), codegen


@intrinsic
def store_pair(typingctx, out, i, first, second):
    """Inline PTX: 64-bit store with a cache hint."""

    def codegen(context, builder, sig, args):
        address = pair_address(context, builder, sig.args[0], *args[:2])
        operands = [address, *args[2:]]
        type_ = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        ptx = "st.global.cs.v2.f32 [$0], {$1,$2};"
        builder.call(ir.InlineAsm(type_, ptx, "l,f,f", side_effect=True), operands)
        return context.get_dummy_value()

    return types.void(out, i, first, second), codegen


def pairs(out, x):
    t = cuda.threadIdx.x
    first, second = load_pair(x, 2 * t)
    store_pair(out, 2 * t, second, first)


def test_vectors_by_inline_ptx(rng):
    x = rng.standard_normal(64).astype(np.float32)
    out = np.full(64, np.nan, np.float32)
    report = launch(pairs, out, x)
    np.testing.assert_array_equal(out.reshape(-1, 2), x.reshape(-1, 2)[:, ::-1])
    assert {access.size for access in report.accesses} == {8}


def without_wait(out, x):
    tile = cuda.shared.array(128, float32, 16)
    t = uint32(cuda.threadIdx.x)
    copy_async(tile, t * uint32(4), x, t * uint32(4))
    commit()
    cuda.syncthreads()
    copy_four(out, t * uint32(4), tile, uint32(124) - t * uint32(4))


def without_commit(out, x):
    tile = cuda.shared.array(128, float32, 16)
    t = uint32(cuda.threadIdx.x)
    copy_async(tile, t * uint32(4), x, t * uint32(4))
    wait()
    cuda.syncthreads()
    copy_four(out, t * uint32(4), tile, uint32(124) - t * uint32(4))


def without_barrier(out, x):
    tile = cuda.shared.array(128, float32, 16)
    t = uint32(cuda.threadIdx.x)
    copy_async(tile, t * uint32(4), x, t * uint32(4))
    commit()
    wait()
    copy_four(out, t * uint32(4), tile, uint32(124) - t * uint32(4))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (without_wait, "has not been waited for"),
        (without_commit, "has not been waited for"),
        (without_barrier, "with no barrier between them"),
    ],
)
def test_copies_that_may_not_have_landed(kernel, message, rng):
    x = rng.standard_normal(128).astype(np.float32)
    args = np.empty_like(x), x
    checks = cuda_emulator.Checks.RACES
    report = cuda_emulator.EmulatedKernel(kernel).launch(1, 32, args, checks=checks)
    assert report.races
    for fault in report.races:
        assert message in fault.message
        assert len(fault.lines) == 2


def two_stages(out, x):
    tile = cuda.shared.array(256, float32, 16)
    at = uint32(cuda.threadIdx.x) * uint32(4)
    copy_async(tile, at, x, at)
    commit()
    for stage in range(uint32(2)):
        if stage == 0:
            copy_async(tile, uint32(128) + at, x, uint32(128) + at)
        commit()
        wait_but_one()
        cuda.syncthreads()
        begin = uint32(stage) * uint32(128)
        copy_four(out, begin + at, tile, begin + uint32(124) - at)


def test_pipeline_of_two_stages(rng):
    x = rng.standard_normal(2 * 128).astype(np.float32)
    out = np.full_like(x, np.nan)
    launch(two_stages, out, x)
    np.testing.assert_array_equal(out.reshape(2, 32, 4), x.reshape(2, 32, 4)[:, ::-1])


def tensor_cores(c, a, b):
    g, t = cuda.laneid // 4, cuda.laneid % 4
    r = multiply_tf32(a[g, t], a[g + 8, t], a[g, t + 4], a[g + 8, t + 4], b[t, g], b[t + 4, g])
    c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1] = r


def test_tensor_cores(rng):
    a = rng.integers(-8, 8, (16, 8)).astype(np.float32)
    b = rng.integers(-8, 8, (8, 8)).astype(np.float32)
    c = np.full((16, 8), np.nan, np.float32)
    launch(tensor_cores, c, a, b)
    np.testing.assert_array_equal(c, a @ b)


def uses_unknown(out):
    unknown()
    out[0] = 1


def uses_cooperative_groups(out):
    cuda.cg.this_grid().sync()
    out[0] = 1


def test_what_has_no_twin_is_named():
    out = np.zeros(1)
    with pytest.raises(cuda_emulator.UnsupportedInstructionError) as caught:
        cuda_emulator.EmulatedKernel(uses_unknown).launch(1, 1, (out,))
    assert "wgmma.fence.sync.aligned;" in str(caught.value)
    assert "test_ptx.py:" in str(caught.value)
    said = "uses_cooperative_groups: no twin on the host for cudaCG"
    with pytest.raises(cuda_emulator.UnsupportedInstructionError, match=said):
        cuda_emulator.EmulatedKernel(uses_cooperative_groups).launch(1, 1, (out,))


def saxpy(y, a, x):
    i = cuda.grid(1)
    if i < y.size:
        y[i] += a * x[i]


def test_one_process_compiles_for_a_gpu_and_emulates():
    """The IR's pointers are converted as text: no flag of llvmlite has to be set."""
    x = np.arange(100, dtype=np.float32)
    y = np.ones(100, np.float32)
    launch(saxpy, y, np.float32(2), x, grid=4)
    np.testing.assert_array_equal(y, 1 + 2 * x)
    _, typed, _ = _numba_ir(saxpy, (float32[::1], float32, float32[::1]), {})
    assert "float*" in typed[0]
    unit = nvvm.CompilationUnit({"arch": "compute_80"})
    unit.add_module(typed[0].encode())
    unit.verify()
    assert b".target sm_80" in unit.compile()
