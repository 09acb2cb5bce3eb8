"""What a pair of convolutions is given: checked, under the names that its caller knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..arrays import Array, dtype_name, require_array
from ..companions import check_companion, check_groups, check_memory, check_weight
from ..contract.arguments import Activation, canonical_arguments, parse_activation
from ..contract.errors import DTypeError, ShapeError, renamed
from ..contract.pair_problem import PairProblem
from ..contract.problem import ConvProblem
from ..dense_problem import check_arrays, make_problem, problem_of_shapes

__all__ = [
    "PAIR",
    "SEPARABLE",
    "Arguments",
    "PairForm",
    "canonical_pair",
    "check_parameters",
    "make_pair_problem",
]

#: Of each convolution stride, padding, dilation and groups.
Arguments = tuple[tuple[Any, Any, Any, Any], tuple[Any, Any, Any, Any]]

_WORDS = ("weight", "bias", "stride", "padding", "dilation", "groups", "activation")


class PairForm(NamedTuple):
    """How a caller names what two convolutions are given.

    Parameters
    ----------
    name : str
        What it is called in messages, and what tells its calls from others.
    names : (mapping, mapping)
        For each convolution, the caller's names of what `fastconv.conv2d` calls otherwise.
    depthwise : bool
        Whether the first convolution has as many groups as the input has channels, whatever its
        arguments say.
    """

    name: str
    names: tuple[Mapping[str, str], Mapping[str, str]]
    depthwise: bool = False

    def named(self, number: int, word: str) -> str:
        """Return the caller's name of an argument of one of the convolutions."""
        return self.names[number].get(word, word)


#: A depthwise convolution, then one of a single tap.
SEPARABLE = PairForm(
    "separable convolution",
    (
        {name: f"depthwise_{name}" for name in ("weight", "bias", "activation")},
        {"weight": "pointwise_weight"},
    ),
    depthwise=True,
)
#: Any two.
PAIR = PairForm(
    "a pair of convolutions",
    ({name: f"first_{name}" for name in _WORDS}, {name: f"second_{name}" for name in _WORDS}),
)


def canonical_pair(form: PairForm, arguments: Arguments) -> Arguments:
    """Check what stands beside the arrays and return it as integers, tuples and words."""
    made = []
    for names, each in zip(form.names, arguments, strict=True):
        with renamed(names):
            made.append(canonical_arguments(2, each))
    return made[0], made[1]


def check_parameters(
    form: PairForm, weights: tuple[Any, Any], biases: tuple[Any, Any], arguments: Arguments,
    activations: tuple[Activation, Activation],
) -> tuple[Array, Array]:  # fmt: skip
    """Check all that does not depend on the input, and return the weights as NumPy knows them."""
    checked: list[Array] = []
    for number, (weight, bias, told, activation) in enumerate(
        zip(weights, biases, arguments, activations, strict=True)
    ):
        with renamed(form.names[number]):
            weight = require_array("weight", weight)
            check_memory("weight", weight, form.name)
            check_weight(weight, 2, "output channels, input channels / groups, height, width")
            check_groups(told[3], weight)
            if checked and weight.dtype != checked[0].dtype:
                raise DTypeError(
                    f"weight: got {weight.dtype}, want {checked[0].dtype} as the "
                    f"{form.named(0, 'weight')} has"
                )
            if bias is not None:
                check_companion(
                    "bias", bias, weight.shape[:1], weight, form.named(number, "weight")
                )
            parse_activation(activation)
        checked.append(weight)
    first, second = checked
    _check_middle(form, first, second, arguments)
    return first, second


def _check_middle(form: PairForm, first: Array, second: Array, arguments: Arguments) -> None:
    """Raise where the second weight is not for as many channels as the first one makes."""
    if form.depthwise and first.shape[1] != 1:
        raise ShapeError(
            f"{form.named(0, 'weight')}: got {first.shape[1]} input channels a group (axis 1 of "
            f"{first.shape}), want 1"
        )
    if form.depthwise and second.shape[2:] != (1, 1):
        raise ShapeError(
            f"{form.named(1, 'weight')}: got shape {second.shape}, want (K, {first.shape[0]}) or "
            f"(K, {first.shape[0]}, 1, 1)"
        )
    groups = arguments[1][3]
    if second.shape[1] * groups != first.shape[0]:
        raise ShapeError(
            f"{form.named(1, 'weight')}: got {second.shape[1]} input channels a group (axis 1 of "
            f"{second.shape}) and {groups} groups, want {first.shape[0]} input channels, as "
            f"many as {form.named(0, 'weight')} makes (axis 0 of {first.shape})"
        )


def make_pair_problem(
    form: PairForm, x: Any, weights: tuple[Array, Array], arguments: Arguments
) -> PairProblem:
    """Return the problem of an input with a batch axis; the rest is checked and canonical."""
    first, second = weights
    with renamed(form.names[0]):
        x, _ = check_arrays(2, x, first, "output channels, input channels / groups")
        check_memory("input", x, form.name)
        stride, padding, dilation, groups = arguments[0]
        if form.depthwise:
            groups = x.shape[1]
            if groups < 1 or first.shape[0] % groups:
                raise ShapeError(
                    f"weight: got {first.shape[0]} filters (axis 0 of {first.shape}) with an input "
                    f"of {groups} channels, want a multiple of them"
                )
        before = make_problem(2, x, first, (stride, padding, dilation, groups))
    return PairProblem(before, _second_problem(form, before, second, arguments[1]))


def _second_problem(
    form: PairForm, before: ConvProblem, weight: Array, arguments: tuple[Any, Any, Any, Any]
) -> ConvProblem:
    with renamed(form.names[1]):
        return problem_of_shapes(
            before.out_shape, weight.shape, arguments, dtype_name("weight", weight.dtype),
            before.layout, before.device,
        )  # fmt: skip
