"""The text form of a problem: one line of benchdnn's grammar.

oneDNN describes it in ``tests/benchdnn/doc/knobs_conv.md``: ``ic64ih56oc64oh56kh3ph1n"name"``. A
key is one or two letters: ``kh3`` is the kernel's height.
"""

from __future__ import annotations

import re
from typing import Any

from .array_line import format_array_line, problem_class, read_array_line
from .array_problem import ARRAY_OPS, ArrayProblem
from .boundary_problem import NO_BOUNDARY, BoundaryProblem, parse_mode
from .errors import ShapeError
from .padding import Pads, output_size
from .pair_problem import PairProblem
from .problem import DTYPES, INTEGERS, LAYOUTS, ConvProblem, result_dtypes
from .transposed_problem import TransposedProblem

__all__ = ["LINE_KEYS", "AnyProblem", "format_line", "parse_any_line", "parse_line"]

#: What a line describes.
AnyProblem = ConvProblem | TransposedProblem | BoundaryProblem | PairProblem | ArrayProblem

_AXES = "dhw"
_TYPES = DTYPES | INTEGERS
#: Operators of a `ConvProblem`.
_CONV_OPS = ("conv", "conv_input_grad", "conv_weight_grad")
_OPS = {name: name for name in (*_CONV_OPS, "conv_transpose", "conv_pair", *ARRAY_OPS)}
#: The keys of a problem line, as help and errors tell them.
LINE_KEYS = (
    "g (groups), mb (batch), ic and oc (input and output channels), and with d, h or w for depth, "
    "height or width: i (input), o (output), k (kernel), s (stride), p (padding), d (dilation: 0 "
    "is dense)"
)
#: More digits than these are no size (`MOST` has 15), and would take long to read.
_MOST_DIGITS = 19
_TOKEN = re.compile(rf'([a-z]+)(-?[0-9]{{1,{_MOST_DIGITS}}})(?![0-9])|n"([^"]*)"|n([^\s"]\S*)$|_')


def format_line(problem: AnyProblem, name: str = "") -> str:
    """Return a problem as one line; `parse_any_line` reads it back."""
    if isinstance(problem, ArrayProblem):
        return format_array_line(problem, name)
    if isinstance(problem, BoundaryProblem):
        return f"--padding_mode={problem.word} {format_line(problem.sizes, name)}"
    parts = []
    if problem.op != "conv":
        parts.append(f"--op={problem.op} ")
    parts.append(_format_types(problem))
    if problem.layout != "channels_first":
        parts.append(f"--tag={LAYOUTS[problem.layout]} ")
    if isinstance(problem, PairProblem):
        parts += [_format_keys(problem.first), "+", _format_keys(problem.second, of_input=False)]
    else:
        parts.append(_format_keys(problem))
    return "".join(parts) + (f'n"{name}"' if name else "")


def _format_types(problem: AnyProblem) -> str:
    """Return the flag of the element types, those of input, weight and output where they differ."""
    if isinstance(problem, ConvProblem) and not (
        problem.dtype == problem.weight_dtype == problem.result_dtype
    ):
        result = _TYPES[problem.result_dtype]
        return f"--dt={_TYPES[problem.dtype]}:{_TYPES[problem.weight_dtype]}:{result} "
    return f"--dt={DTYPES[problem.dtype]} " if problem.dtype != "float32" else ""


def _format_keys(problem: ConvProblem | TransposedProblem, of_input: bool = True) -> str:
    """Return a convolution's keys and numbers, those of its input or without."""
    axes = _AXES[3 - problem.ndim :]
    parts = []
    if problem.groups != 1:
        parts.append(f"g{problem.groups}")
    if problem.batch != 1 and of_input:
        parts.append(f"mb{problem.batch}")
    sizes = {
        "i": (problem.in_size, None),
        "o": (problem.out_size, None),
        "k": (problem.kernel_size, None),
        "s": (problem.stride, 1),
        "p": (tuple(low for low, _ in problem.padding), 0),
        "d": (tuple(d - 1 for d in problem.dilation), 0),
    }
    for letter, (values, default) in sizes.items():
        if letter == "i" and not of_input:
            continue
        if letter == "i":
            parts.append(f"ic{problem.in_channels}")
        if letter == "o":
            parts.append(f"oc{problem.out_channels}")
        parts.append(_format_sizes(letter, axes, values, default))
    return "".join(parts)


def _format_sizes(letter: str, axes: str, values: tuple[int, ...], default: int | None) -> str:
    if all(value == default for value in values):
        return ""
    if len(set(values)) == 1 and default != values[0]:
        return f"{letter}{axes[0]}{values[0]}"  # the other axes copy the first
    return "".join(f"{letter}{axis}{value}" for axis, value in zip(axes, values, strict=True))


def parse_line(text: str) -> tuple[ConvProblem, str]:
    """Read the line of a convolution, as `parse_any_line` does.

    Raises
    ------
    ShapeError
        For the line of another operator, too.

    Examples
    --------
    >>> problem, name = parse_line('g64ic64ih56oc64kh3sh2ph1n"dw"')
    >>> problem.out_size, problem.groups, name
    ((28, 28), 64, 'dw')
    """
    problem, name = parse_any_line(text)
    if not isinstance(problem, ConvProblem) or problem.op != "conv":
        raise ShapeError(f"problem line: got --op={problem.op}, want a convolution")
    return problem, name


def parse_any_line(text: str) -> tuple[AnyProblem, str]:
    """Read a problem line of any operator over dense arrays.

    Parameters
    ----------
    text : str
        Flags ``--op=conv|conv_input_grad|conv_weight_grad|conv_transpose|conv_pair|max_pool|...``,
        ``--dt=f32|f64|f16|bf16``, ``--tag=abx|axb|any``, of a convolution
        ``--padding_mode=reflect|symmetric|replicate|circular|constant:NUMBER``, of others their
        options first, then keys and numbers in benchdnn's grammar, as the notes list them for
        convolutions. Of a convolution of or to integers the types of input, weight and output:
        ``--dt=u8:f32:u8``, where ``u16``, ``s16`` and, for the output, ``f32`` may stand, too.
        Of a copy with a boundary (``--op=pad``) one of them stands alone: ``--dt=u8``.

    Returns
    -------
    (ConvProblem, TransposedProblem, BoundaryProblem, PairProblem or ArrayProblem, str)
        The problem and its name ("" without one).

    Notes
    -----
    =====================  ==================================================================
    key                    meaning
    =====================  ==================================================================
    ``g``                  groups (1)
    ``mb``                 batch (1)
    ``ic``, ``oc``         input and output channels, over all groups
    ``id``, ``ih``, ``iw`` input size: which of the three are there says how many axes there are
    ``od``, ``oh``, ``ow`` output size; where it is told, it decides the padding at the high side,
                           of a transposed convolution the output padding
    ``kd``, ``kh``, ``kw`` kernel size
    ``sd``, ``sh``, ``sw`` stride (1)
    ``pd``, ``ph``, ``pw`` padding at the low side, and at the high side unless output is told (0)
    ``dd``, ``dh``, ``dw`` dilation, counted from zero (0): ``dh1`` leaves one hole
    ``n"name"``            a name for people
    =====================  ==================================================================

    A missing width copies the height, a missing height the depth. Of a pair (``--op=conv_pair``)
    the keys of the second convolution follow a ``+``; its input is the first one's output.

    Examples
    --------
    >>> problem, _ = parse_any_line("--op=conv_transpose ic8ih5oc3oh10kh3sh2ph1")
    >>> problem.out_size, problem.output_padding
    ((10, 10), (1, 1))
    >>> problem, _ = parse_any_line("--dt=u8:f32:s16 ic1ih480oc1kh3ph1")
    >>> problem.dtype, problem.weight_dtype, problem.result_dtype
    ('uint8', 'float32', 'int16')
    """
    op, types, layout, descriptor = "conv", "f32", "channels_first", text.strip()
    options: dict[str, str] = {}
    while descriptor.startswith("--"):
        flag, _, descriptor = descriptor.partition(" ")
        descriptor = descriptor.strip()
        key, _, value = flag.partition("=")
        if key == "--op":
            op = _lookup("op", value, _OPS)
        elif key == "--dt":
            types = value
        elif key in ("--tag", "--stag"):
            layout = _lookup("tag", value, LAYOUTS)
        else:
            options[key.removeprefix("--")] = value
    dtype, result = _lookup_types(op, types)
    first = ""
    if op == "conv_pair":  # names, which may hold anything, stand behind the second
        first, _, descriptor = descriptor.partition("+")
    values, name = _tokens(descriptor, text)
    if result and op != "conv":
        raise ShapeError(f"problem line: got integers in {_shorten(text)}, want --op=conv")
    if op in ARRAY_OPS:
        where = {"dtype": dtype, "layout": layout}
        return read_array_line(op, options, values, where, text), name
    mode = options.pop("padding_mode", "zeros") if op == "conv" else "zeros"
    if options:
        flags = ", ".join(f"--{key}={value}" for key, value in options.items())
        raise ShapeError(f"problem line: got flag {flags!r}, want --op=, --dt= or --tag=")
    if op == "conv_pair":
        return _pair(_tokens(first, text)[0], values, dtype, layout, text), name
    problem = _from_values(op, values, dtype, layout, text)
    if result:
        problem = problem.with_(out_dtype=result)
    number = parse_mode(mode)
    if number == NO_BOUNDARY:
        return problem, name
    assert isinstance(problem, ConvProblem)
    return BoundaryProblem(problem, *number), name


def _lookup_types(op: str, value: str) -> tuple[str, str]:
    """Return the types of the input and, where one of both is integers, of the output."""
    types = value.split(":")
    if len(types) != 3:
        known = problem_class(op)._element_types if op in ARRAY_OPS else DTYPES
        return _lookup("dt", value, known), ""
    dtype, weight, result = (_lookup("dt", each, _TYPES) for each in types)
    wanted = "float32" if dtype in INTEGERS else dtype
    if weight != wanted or result not in result_dtypes(dtype):
        results = "|".join(_TYPES[each] for each in result_dtypes(dtype))
        raise ShapeError(
            f"problem line: got --dt={value}, want {_TYPES[dtype]}:{_TYPES[wanted]}:{results}"
        )
    return dtype, result if dtype in INTEGERS or result != dtype else ""


def _pair(
    first: dict[str, int], second: dict[str, int], dtype: str, layout: str, text: str
) -> PairProblem:
    """Return the pair of two convolutions, of whose second the input's keys need not be told."""
    before = _from_values("conv", first, dtype, layout, text)
    assert isinstance(before, ConvProblem)
    batch, channels, *size = before.out_shape
    axes = _AXES[3 - before.ndim :]
    made = {"mb": batch, "ic": channels}
    made |= {f"i{axis}": length for axis, length in zip(axes, size, strict=True)}
    if wrong := {key for key in made.keys() & second.keys() if made[key] != second[key]}:
        got = ", ".join(f"{key}{second[key]}" for key in sorted(wrong))
        raise ShapeError(
            f"problem line: got {got} behind + in {_shorten(text)}, want the first convolution's "
            f"output, {before.out_shape}"
        )
    after = _from_values("conv", second | made, dtype, layout, text)
    assert isinstance(after, ConvProblem)
    return PairProblem(before, after)


def _lookup(flag: str, value: str, table: dict[str, str]) -> str:
    for name, short in table.items():
        if value in (short, name):
            return name
    raise ShapeError(f"problem line: got --{flag}={value}, want one of {', '.join(table.values())}")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _tokens(descriptor: str, text: str) -> tuple[dict[str, int], str]:
    values: dict[str, int] = {}
    name, position = "", 0
    while position < len(descriptor):
        match = _TOKEN.match(descriptor, position)
        if match is None:
            raise ShapeError(
                f"problem line: got {_shorten(descriptor[position:])} in {_shorten(text)}, want "
                f"keys and numbers of at most {_MOST_DIGITS} digits, such as "
                'ic64ih56oc64kh3ph1n"name"'
            )
        if match.group(1) in values:
            raise ShapeError(f"problem line: got {match.group(1)} twice in {_shorten(text)}")
        if match.group(1):
            values[match.group(1)] = int(match.group(2))
        name = match.group(3) or match.group(4) or name
        position = match.end()
    return values, name


def _axes_of(values: dict[str, int], text: str) -> str:
    """Return the letters of a line's axes, its keys checked."""
    known = {"g", "mb", "ic", "oc"} | {f"{letter}{axis}" for letter in "ioskpd" for axis in _AXES}
    if unknown := sorted(set(values) - known):
        raise ShapeError(
            f"problem line: got keys {', '.join(unknown)} in {text!r}, want {LINE_KEYS}"
        )
    axes = next((_AXES[i:] for i in range(3) if f"i{_AXES[i]}" in values), "")
    if not axes or "ic" not in values or "oc" not in values:
        raise ShapeError(f"problem line: got {text!r}, want at least ic, oc and iw, ih or id")
    return axes


def _from_values(
    op: str, values: dict[str, int], dtype: str, layout: str, text: str
) -> ConvProblem | TransposedProblem:
    axes = _axes_of(values, text)

    def sizes(letter: str, default: int | None) -> tuple[int, ...] | None:
        along_axes: list[int] = []
        for axis in axes:
            copied = along_axes[-1] if along_axes else default
            value = values.get(f"{letter}{axis}", copied)
            if value is None:
                return None
            along_axes.append(value)
        return tuple(along_axes)

    in_size, kernel, out = sizes("i", None), sizes("k", None), sizes("o", None)
    stride, low, holes = sizes("s", 1), sizes("p", 0), sizes("d", 0)
    if in_size is None or kernel is None:
        raise ShapeError(f"problem line: got no kernel size in {text!r}, want kw, kh or kd")
    assert stride is not None and low is not None and holes is not None
    if min(holes) < 0:
        raise ShapeError(
            f"problem line: got a dilation of {min(holes)} in {_shorten(text)}, want 0 for a dense "
            "kernel, or more"
        )
    dilation = tuple(hole + 1 for hole in holes)
    channels = values.get("mb", 1), values["ic"], values["oc"]
    where: dict[str, Any] = {"groups": values.get("g", 1), "dtype": dtype, "layout": layout}
    problem: ConvProblem | TransposedProblem
    if op != "conv_transpose":
        sides = _padding(in_size, out, kernel, stride, low, dilation)
        problem = ConvProblem(*channels, in_size, kernel, stride, sides, dilation, **where, op=op)
    else:
        sides = tuple((p, p) for p in low)
        problem = TransposedProblem(
            *channels, in_size, kernel, stride, sides, (), dilation, **where
        )
        if out is not None and out != problem.out_size:
            extra = tuple(o - size for o, size in zip(out, problem.out_size, strict=True))
            problem = problem.with_(output_padding=extra)
    if out is not None and problem.out_size != out:
        raise ShapeError(f"problem line: got output {out} in {text!r}, want {problem.out_size}")
    return problem


def _padding(
    in_size: tuple[int, ...], out: tuple[int, ...] | None, kernel: tuple[int, ...],
    stride: tuple[int, ...], low: tuple[int, ...], dilation: tuple[int, ...],
) -> Pads:  # fmt: skip
    """Return the zeros on both sides; an output that is told decides those behind the input."""
    if out is None:
        return tuple((p, p) for p in low)
    high = tuple(
        max((o - 1) * s + d * (k - 1) + 1 - i - p, 0) if o != output_size(i, k, s, (p, p), d) else p
        for i, o, k, s, p, d in zip(in_size, out, kernel, stride, low, dilation, strict=True)
    )
    return tuple(zip(low, high, strict=True))
