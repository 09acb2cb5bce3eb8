"""Chains of element-wise nodes: all that meet in one value, in one pass over their arrays.

Which shapes broadcast is known when arrays come. What is smaller than the result is computed in a
pass of its own, not again for each element that it is broadcast to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..contract import first_use
from ..contract.formula import Formula, Operation
from ..dispatch import settings
from .elementwise import Expression
from .node import Refusal
from .steps import Context, Reference, Step

__all__ = ["Chain", "find_chains"]

#: Kinds of arrays whose plans are kept.
_MOST_KEPT = 64


def find_chains(
    nodes: Sequence[Any], places: Iterable[int], uses: Mapping[str, int]
) -> list[list[int]]:
    """Return element-wise nodes in chains: what leads to one value and to nothing else.

    Parameters
    ----------
    nodes : sequence of NodeProto
        All nodes, in order.
    places : iterable of int
        Where the element-wise ones are.
    uses : mapping of str to int
        How often each value is taken, by nodes and as an output.
    """
    left = set(places)
    chains = []
    for end in sorted(left, reverse=True):
        if end not in left:
            continue
        left.remove(end)
        chain, taken = [end], Counter(nodes[end].input)
        for place in sorted(left, reverse=True):  # the takers of a value stand behind its maker
            name = nodes[place].output[0]
            if place in left and taken[name] and uses[name] == taken[name]:
                chain.append(place)
                left.remove(place)
                taken.update(nodes[place].input)
        chains.append(sorted(chain))
    return chains


class _Pass(NamedTuple):
    """One pass: the arrays that it takes, what it makes, and how that lies in memory."""

    plan: Any
    taken: tuple[str, ...]
    made: str
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def empty(self, dtype: np.dtype[Any]) -> Any:
        """Return an array for its result."""
        stored = np.empty([self.shape[axis] for axis in self.order], dtype)
        return stored.transpose(np.argsort(self.order))


class Chain(Step):
    """Element-wise nodes of which all but the last have takers among them alone.

    Parameters
    ----------
    context : Context
        Of the model.
    protos : sequence of NodeProto
        The nodes, in order.
    expressions : sequence
        What each computes, see `elementwise`.
    """

    writes = True

    def __init__(
        self, context: Context, protos: Sequence[Any], expressions: Sequence[Expression]
    ) -> None:
        made = [proto.output[0] for proto in protos]
        taken = dict.fromkeys(name for proto in protos for name in proto.input)
        super().__init__(protos, [each for each in taken if each and each not in made], made[-1:])
        self._context = context
        self._expressions = dict(zip(made, expressions, strict=True))
        leaves = {leaf for each in expressions for leaf in _leaves(each)}
        #: Inputs whose elements are computed with; an exponent is a number.
        self._operands = [name for name in self.inputs if name in leaves]
        self._kept: dict[Any, list[_Pass]] = {}
        self._references: list[Reference] = []

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the output from values by name."""
        known = {name: _array(values[name]) for name in self.inputs}
        try:
            passes = self._prepared(known, out)
        except Refusal as refused:
            self.handed_on = str(refused)
            return self._one_by_one(values)
        made: Any = None
        dtype = known[self._operands[0]].dtype
        for each in passes:
            made = each.empty(dtype) if out is None or each is not passes[-1] else out
            if each.plan is not None:
                each.plan.run(*(known[name] for name in each.taken), made)
            known[each.made] = made
        return (made,)

    def described(self) -> str:
        """Return what computes the step."""
        several = len(self.protos) > 1
        return "fastconv, element-wise" + (f", {len(self.protos)} nodes in one" if several else "")

    def _prepared(self, known: Mapping[str, Any], out: Any) -> list[_Pass]:
        """Return the passes for arrays like these, the last of which may write to `out`."""
        key = (
            tuple((each.shape, each.strides, each.dtype) for each in known.values()),
            None if out is None else out.strides,
            settings(),
        )
        passes = self._kept.get(key)
        if passes is None:
            passes = self._plan(known, out)
            if len(self._kept) >= _MOST_KEPT:  # other threads may look into it meanwhile
                self._kept.clear()
            self._kept[key] = passes
        return passes

    def _plan(self, known: Mapping[str, Any], out: Any) -> list[_Pass]:
        """Return the passes, or raise where no code of fastconv's is for them."""
        planner = first_use.load("fastconv.kernels.cpu.elementwise.plan")
        dtypes = {known[name].dtype for name in self._operands}
        if len(dtypes) > 1 or not all(each.name in planner.DTYPES for each in dtypes):
            here = ", ".join(sorted(str(each) for each in dtypes))
            raise Refusal(f"computes arrays of one floating-point type; here {here}")
        if not all(each.isnative for each in dtypes):
            raise Refusal("computes numbers in the machine's order of bytes")
        shapes = self._shapes(known)
        arrays, passes = dict(known), []
        for names in self._split(shapes):
            passes.append(self._make(planner, names, shapes, arrays, out))
            arrays[names[-1]] = passes[-1].empty(next(iter(dtypes)))
        return passes

    def _shapes(self, known: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each value."""
        shapes = {name: each.shape for name, each in known.items()}
        for proto in self.protos:
            taken = [shapes[name] for name in proto.input if name]
            try:
                shapes[proto.output[0]] = np.broadcast_shapes(*taken)
            except ValueError:
                raise Refusal(f"shapes {taken} do not broadcast") from None
        return shapes

    def _split(self, shapes: Mapping[str, tuple[int, ...]]) -> list[list[str]]:
        """Return the values that each pass computes, the last of which it makes."""
        ends: dict[str, str] = {}
        for name in reversed(self._expressions):
            takers = [
                each for each, formula in self._expressions.items() if name in _leaves(formula)
            ]
            found = {ends[each] for each in takers}
            end = found.pop() if len(found) == 1 else name
            ends[name] = end if shapes[end] == shapes[name] else name
        return [
            [name for name in self._expressions if ends[name] == end]
            for end in self._expressions
            if ends[end] == end
        ]

    def _make(
        self, planner: Any, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]],
        arrays: Mapping[str, Any], out: Any,
    ) -> _Pass:  # fmt: skip
        """Return the pass that computes some values."""
        formula, taken = write_formula({name: self._expressions[name] for name in names})
        made, shape = names[-1], shapes[names[-1]]
        like = next((arrays[each] for each in taken if shapes[each] == shape), None)
        done = _Pass(None, tuple(taken), made, shape, _order(like, len(shape)))
        dtype = arrays[taken[0]].dtype
        if math.prod(shape) == 0:
            return done
        target = done.empty(dtype) if out is None or made != self.outputs[0] else out
        strides = [np.broadcast_to(arrays[each], shape).strides for each in taken]
        plan = planner.plan_formula(
            formula, dtype.name, shape, [*strides, target.strides], settings()[1] != "exact"
        )
        if plan is None:
            raise Refusal(f"strides of {len(shape)} axes are more than there is code for")
        return done._replace(plan=plan)

    def _one_by_one(self, values: Mapping[str, Any]) -> Sequence[Any]:
        """Compute all nodes by the reference."""
        if not self._references:
            self._references = [Reference(self._context, each) for each in self.protos]
        known = dict(values)
        for reference in self._references:
            (known[reference.outputs[0]],) = reference.run(known)
        return (known[self.outputs[0]],)


def write_formula(expressions: Mapping[str, Expression]) -> tuple[Formula, list[str]]:
    """Return the formula of expressions by the names of their values, and the arrays that it takes.

    Examples
    --------
    >>> formula, taken = write_formula({"s": ("sigmoid", "x"), "y": ("mul", "x", "s")})
    >>> formula.operations[1].operands, taken
    ((0, 1), ['x'])
    """
    leaves = dict.fromkeys(leaf for each in expressions.values() for leaf in _leaves(each))
    taken = [name for name in leaves if isinstance(name, str) and name not in expressions]
    numbers = [leaf for leaf in leaves if not isinstance(leaf, str)]
    values: dict[Expression, int] = {each: place for place, each in enumerate((*taken, *numbers))}
    given, operations = len(values), list[Operation]()

    def find(expression: Expression) -> int:
        if expression not in values:
            name, *operands = expression
            operation = Operation(name, tuple(map(find, operands)))
            values[expression] = given + len(operations)
            operations.append(operation)
        return values[expression]

    for name, expression in expressions.items():
        values[name] = find(expression)
    return Formula(len(taken), tuple(map(float, numbers)), tuple(operations)), taken


def _leaves(expression: Expression) -> list[Any]:
    """Return the names and numbers of an expression."""
    if not isinstance(expression, tuple):
        return [expression]
    return [leaf for each in expression[1:] for leaf in _leaves(each)]


def _array(value: Any) -> Any:
    """Return a value as an array: what ONNX's reference makes may be a number."""
    return value if isinstance(value, np.ndarray) else np.asarray(value)


def _order(like: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes as they lie in memory, those of an array or one behind the other."""
    axes = range(ndim)
    if like is None or like.flags.c_contiguous:
        return tuple(axes)
    return tuple(sorted(axes, key=lambda axis: (-abs(like.strides[axis]), axis)))
