"""Pieces of LLVM IR as text: lists, and the sizes of types."""

from __future__ import annotations

__all__ = ["leading_type", "size_of", "split_commas"]


def split_commas(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes; stop at an unmatched closing bracket."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        if not quoted:
            if letter in "([{<":
                depth += 1
            elif letter in ")]}>":
                depth -= 1
                if depth < 0:
                    break
            elif letter == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def leading_type(text: str) -> str:
    """The type at the beginning of `text`."""
    if text[0] not in "[{<":
        return text.split()[0]
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in "[{<") - (letter in "]}>")
        if depth == 0:
            return text[: at + 1]
    raise ValueError(text)


_SIZES = {"half": 2, "bfloat": 2, "float": 4, "double": 8, "ptr": 8}


def size_of(type_: str) -> int:
    """Bytes of an LLVM type on x86-64 and on the GPU."""
    return _layout(type_.strip())[0]


def _layout(type_: str) -> tuple[int, int]:
    """Size and alignment."""
    if type_ in _SIZES:
        return _SIZES[type_], _SIZES[type_]
    if type_.startswith("i"):
        size = max(1, int(type_[1:]) // 8)
        return size, min(size, 16)
    if type_.startswith("<{"):
        return sum(size_of(part) for part in split_commas(type_[2:-2])), 1
    if type_[0] in "[<":
        number, _, inner = type_[1:-1].partition(" x ")
        size, align = _layout(inner.strip())
        total = int(number) * size
        return total, align if type_[0] == "[" else total
    at = widest = 0
    for part in split_commas(type_[1:-1]):
        size, align = _layout(part)
        at = -(-at // align) * align + size
        widest = max(widest, align)
    return -(-at // max(widest, 1)) * max(widest, 1), max(widest, 1)
