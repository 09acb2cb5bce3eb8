"""A tensor core's product as an intrinsic; needs numba-cuda, which a test looks for first."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic


@intrinsic
def multiply_tf32(typingctx, a0, a1, a2, a3, b0, b1):
    """``mma.sync`` m16n8k8 onto zeros."""
    four_floats = types.UniTuple(types.float32, 4)

    def codegen(context, builder, sig, args):
        single, word = ir.FloatType(), ir.IntType(32)
        words = [builder.bitcast(arg, word) for arg in args]
        type_ = ir.FunctionType(ir.LiteralStructType([single] * 4), [word] * 6 + [single] * 4)
        ptx = (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
        )
        asm = ir.InlineAsm(type_, ptx, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f")
        result = builder.call(asm, [*words, *[ir.Constant(single, 0.0)] * 4])
        items = [builder.extract_value(result, i) for i in range(4)]
        return context.make_tuple(builder, sig.return_type, items)

    return four_floats(a0, a1, a2, a3, b0, b1), codegen
