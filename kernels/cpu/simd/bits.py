"""Elements that are moved and not computed with: their bits as they lie, of any element type."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .ir import literal, pointer

__all__ = ["copy_bits"]


@intrinsic(prefer_literal=True)
def copy_bits(typingctx: Any, source: Any, target: Any, item: Any) -> Any:
    """Copy an element of `item` bytes, 1, 2, 4 or 8, from one address to another."""
    size = literal(item)
    if size is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(8 * size)
        bits = builder.load(pointer(builder, args[0], word), align=size)
        builder.store(bits, pointer(builder, args[1], word), align=size)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, item), codegen
