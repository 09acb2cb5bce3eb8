"""The text of Winograd's three transforms: weights, input, output.

Each is a matrix from the left and its transpose from the right, written out as sums of scalars so
that everything stays in registers; coefficients are exact fractions, rounded once.

    weight   U[e, k, c] = G w G^T       one thread an output and input channel
    input    V[e, c, t] = B^T d B       one thread a channel and tile, neighbours side by side
    output   y = A^T M A                one thread an output channel and tile

``e`` counts the ``n x n`` elements of a transformed tile, ``t`` the tiles of the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction

from fastconv.kernels.cook_toom import Matrix, matrices

from ..common.params import SCALARS
from ..common.source import EPILOGUE, compile_text, namespace_of
from ..gemm.tile import indent

__all__ = ["input_function", "output_function", "weight_function"]

#: Taps along each axis.
_TAPS = 3


def _sum(row: tuple[Fraction, ...], terms: list[str]) -> str:
    """Return the expression of a row of a matrix times a vector of names."""
    parts = []
    for value, term in zip(row, terms, strict=True):
        if value:
            parts.append(term if value == 1 else f"real({float(value)!r}) * {term}")
    return " + ".join(parts)


def _both_sides(matrix: Matrix, source: str, target: str) -> str:
    """Return code for ``target = matrix @ source @ matrix.T`` on scalars named ``d0_0``, ..."""
    rows, columns = len(matrix), len(matrix[0])
    text = []
    for i in range(rows):
        for j in range(columns):
            column = [f"{source}{k}_{j}" for k in range(columns)]
            text.append(f"half{i}_{j} = {_sum(matrix[i], column)}")
    for i in range(rows):
        for j in range(rows):
            row = [f"half{i}_{k}" for k in range(columns)]
            text.append(f"{target}{i}_{j} = {_sum(matrix[j], row)}")
    return "\n".join(text)


def _elements(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count)]


def _weight_text(m: int) -> str:
    n = m + _TAPS - 1
    load = "\n".join(
        f"w{i}_{j} = load1(weight, u(at + u({i}) * wh + u({j}) * ww))" for i, j in _elements(_TAPS)
    )
    store = "\n".join(f"packed[place + u({i * n + j}) * apart] = v{i}_{j}" for i, j in _elements(n))
    return (
        "def transform_weight(weight, packed, size, bm, bk, panels, blocks, channels, in_channels, "
        "first, wk, wc, wh, ww, apart):\n"
        + indent("""
    place = u(cuda.grid(1))
    if place < size:
        row, rest = place % bm, place // bm
        step, rest = rest % bk, rest // bk
        panel, rest = rest % panels, rest // panels
        block, group = rest % blocks, rest // blocks
        source, channel = u(panel * bk + step), u(block * bm + row)
    """)
        + "".join(f"        w{i}_{j} = ZERO\n" for i, j in _elements(_TAPS))
        + "        if channel < channels and source < in_channels:\n"
        + "            at = u(first + (group * channels + channel) * wk + source * wc)\n"
        + indent(load, 3)
        + indent(_both_sides(matrices(m, _TAPS)[1], "w", "v"), 2)
        + indent(store, 2)
    )


#: A tile's place: its image and the first row and column of its outputs.
_TILE_PLACE = """
tile, channel = u(cuda.grid(1)), u(cuda.blockIdx.y)
image, rest = tile // (tiles_h * tiles_w), tile % (tiles_h * tiles_w)
top, left = u(rest // tiles_w * u({m})), u(rest % tiles_w * u({m}))
"""


def _input_text(m: int) -> str:
    n = m + _TAPS - 1
    ranges = [f"row{i} = u(top - ph + u({i})) < ih" for i in range(n)]
    ranges += [f"column{j} = u(left - pw + u({j})) < iw" for j in range(n)]
    load = "\n".join(
        f"d{i}_{j} = ZERO\nif row{i} and column{j}:\n"
        f"    d{i}_{j} = load1(x, u(at + u({i}) * xh + u({j}) * xw))"
        for i, j in _elements(n)
    )
    store = "\n".join(
        f"transformed[place + u({i * n + j}) * apart] = v{i}_{j}" for i, j in _elements(n)
    )
    return (
        f"def transform_input(x, transformed, {', '.join(SCALARS)}, "
        "images, tiles_h, tiles_w, all_tiles, apart):\n"
        + indent(_TILE_PLACE.format(m=m))
        + "    if tile < all_tiles:\n"
        + indent("\n".join(ranges), 2)
        + indent(
            f"""
        if image >= images:
            {" = ".join(f"row{i}" for i in range(n))} = False
        at = u(x_first + image * xn + channel * xc + u(top - ph) * xh + u(left - pw) * xw)
        """,
            2,
        )
        + indent(load, 2)
        + indent(_both_sides(matrices(m, _TAPS)[2], "d", "v"), 2)
        + "        place = u(channel * all_tiles + tile)\n"
        + indent(store, 2)
    )


def _output_text(m: int) -> str:
    n = m + _TAPS - 1
    load = "\n".join(
        f"s{i}_{j} = products[place + u({i * n + j}) * apart]" for i, j in _elements(n)
    )
    pick = "\n".join(
        f"value = y{i}_{j} if e == u({i * m + j}) else value" for i, j in _elements(m)[1:]
    )
    return (
        f"def transform_output(products, bias, residual, out, {', '.join(SCALARS)}, "
        "images, tiles_h, tiles_w, all_tiles, apart):\n"
        + indent(_TILE_PLACE.format(m=m))
        + "    group, row = channel // channels, channel % channels\n"
        + "    if image < images:\n"
        + "        place = u(channel * all_tiles + tile)\n"
        + indent(load, 2)
        + indent(_both_sides(matrices(m, _TAPS)[0], "s", "y"), 2)
        + f"        for e in range(u({m * m})):\n"
        + "            value = y0_0\n"
        + indent(pick, 3)
        + indent(
            f"""
            h, w = u(top + e // u({m})), u(left + e % u({m}))
            if h < oh and w < ow:
                residual_at = u(r_first + image * rn + group * rg + h * rh + w * rw)
                out_at = u(y_first + image * yn + group * yg + h * yh + w * yw)
        """,
            3,
        )
        + indent(EPILOGUE.format(residual="residual_at", out="out_at"), 4)
    )


def _function(text: str, name: str, storage: str, m: int) -> Callable[..., None]:
    namespace = namespace_of(storage)
    namespace["real"] = namespace["compute"]
    return compile_text(text, name, f"{name} {storage} f{m}", namespace)


@functools.cache
def weight_function(storage: str, m: int) -> Callable[..., None]:
    """Return the kernel that transforms and packs weights."""
    return _function(_weight_text(m), "transform_weight", storage, m)


@functools.cache
def input_function(storage: str, m: int) -> Callable[..., None]:
    """Return the kernel that transforms the input's tiles."""
    return _function(_input_text(m), "transform_input", storage, m)


@functools.cache
def output_function(storage: str, m: int) -> Callable[..., None]:
    """Return the kernel that transforms products to outputs and stores them."""
    return _function(_output_text(m), "transform_output", storage, m)
