"""Innermost loops of code that is given as blocks and the blocks that may follow each.

It reads assembly and LLVM IR alike (`assembly`, `llvm_text`). A loop is found by what can be
reached, not by where it stands: compilers rotate loops so that their condition comes last, enter
them in the middle and put rare blocks behind the function's end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["Block", "innermost_loops"]

#: Blocks by number, and those at the other end of their edges.
Edges = dict[int, list[int]]


@dataclass(frozen=True, slots=True)
class Block:
    """Code that is entered at its start only.

    Parameters
    ----------
    label : str
        Its name, unique in a function; "" where nothing jumps to it.
    lines : tuple of str
        The code.
    successors : tuple of int
        Numbers of the blocks that may run next.
    """

    label: str
    lines: tuple[str, ...]
    successors: tuple[int, ...]


def innermost_loops(blocks: Sequence[Block]) -> list[list[int]]:
    """Return the loops that hold no other loop, each as its blocks' numbers in ascending order.

    Blocks that reach each other form a loop. One of those that are entered from outside is taken
    away; what still reaches each other then is a loop inside.

    Parameters
    ----------
    blocks : sequence of Block
        A function's, in the order of its text.

    Examples
    --------
    >>> following = {"entry": (1,), "outer": (2,), "inner": (2, 3), "latch": (1, 4), "end": ()}
    >>> innermost_loops([Block(name, (), after) for name, after in following.items()])
    [[2]]
    """
    after = [block.successors for block in blocks]
    innermost: list[list[int]] = []
    pending: list[Collection[int]] = [range(len(blocks))]
    while pending:
        for loop in _cycles(after, pending.pop()):
            inside = loop - {_head(after, loop)}
            if any(_cycles(after, inside)):
                pending.append(inside)
            else:
                innermost.append(sorted(loop))
    return sorted(innermost)


def _head(after: Sequence[Sequence[int]], loop: set[int]) -> int:
    """Return the first block that is entered from outside a loop."""
    entered = {
        block
        for before, following in enumerate(after)
        if before not in loop
        for block in following
        if block in loop
    }
    return min(entered or loop)


def _cycles(after: Sequence[Sequence[int]], part: Collection[int]) -> list[set[int]]:
    """Return the largest sets of blocks of a part that reach each other and themselves within it.

    After S. R. Kosaraju: blocks in the order in which a walk leaves them for good, last one first;
    what a walk against the edges reaches from one of them, and no earlier one has, is its set.
    """
    inside = set(part)
    forward: Edges = {
        block: [successor for successor in after[block] if successor in inside] for block in part
    }
    backward: Edges = {block: [] for block in part}
    for block, following in forward.items():
        for successor in following:
            backward[successor].append(block)
    left: list[int] = []
    seen: set[int] = set()
    for start in part:
        _leave(start, forward, seen, left)
    taken: set[int] = set()
    cycles = []
    for start in reversed(left):
        group: list[int] = []
        _leave(start, backward, taken, group)
        if len(group) > 1 or (group and start in forward[start]):
            cycles.append(set(group))
    return cycles


def _leave(start: int, edges: Edges, seen: set[int], left: list[int]) -> None:
    """Walk depth first from `start` and append blocks in the order in which they are left."""
    if start in seen:
        return
    seen.add(start)
    path = [(start, iter(edges[start]))]
    while path:
        block, rest = path[-1]
        following = next((successor for successor in rest if successor not in seen), None)
        if following is None:
            left.append(block)
            path.pop()
        else:
            seen.add(following)
            path.append((following, iter(edges[following])))
