"""Every function of `fastconv.grad`: central differences of its operator, and threads.

One table holds an operator's forward call and the gradient of each of its operands; a function that
it has no entry for fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastconv
from fastconv import grad
from helpers import bits

#: An array's sizes, of which "n" is the batch, or what makes it of a generator and the batch.
Made = tuple[Any, ...] | Callable[[np.random.Generator, int], np.ndarray]


class Case(NamedTuple):
    """A gradient: the operator's arrays and call, the operand, and the gradient's call."""

    arrays: dict[str, Made]
    forward: Callable[[Any], np.ndarray]
    operand: str
    gradient: Callable[[Any, np.ndarray], np.ndarray]

    def draw(self, rng: np.random.Generator, batch: int) -> SimpleNamespace:
        """Arrays by name; where only sizes are told, numbers that are not near zero."""
        made = {}
        for name, told in self.arrays.items():
            if callable(told):
                made[name] = told(rng, batch)
                continue
            shape = tuple(batch if size == "n" else size for size in told)
            made[name] = rng.uniform(0.2, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        return SimpleNamespace(**made)


CASES: dict[str, Case] = {}


def gradients_of(
    name: str, arrays: dict[str, Made], forward: Callable[[Any], np.ndarray], variant: str = "",
    **calls: Callable[[Any, np.ndarray], np.ndarray],
) -> None:  # fmt: skip
    """Add an operator's gradients, by operand."""
    for operand, call in calls.items():
        case = Case(arrays, forward, operand, call)
        CASES[f"{name}_{operand}{variant and f': {variant}'}"] = case


def positive(*sizes: Any) -> Made:
    return lambda rng, n: rng.uniform(0.5, 1.5, [n if size == "n" else size for size in sizes])


def distinct(*sizes: Any) -> Made:
    """Positive numbers no two of which are near: a step changes no maximum's place."""

    def make(rng: np.random.Generator, n: int) -> np.ndarray:
        shape = [n if size == "n" else size for size in sizes]
        number = int(np.prod(shape))
        return 0.5 + rng.permutation(number).reshape(shape) / number

    return make


def named(name: str) -> Any:
    return getattr(grad, name)


CHANNELS: dict[str, Made] = {"input": ("n", 4, 5), "weight": (4,), "bias": (4,)}
for d in (1, 2, 3):
    size = (5, 6, 4)[:d]
    # Strides that leave samples over, groups, uneven pads and output padding beyond them.
    told: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": 2 if d == 1 else 1, "groups": 2}
    gradients_of(
        f"conv{d}d",
        {"input": ("n", 4, *size), "weight": (6, 2, *(3, 2, 3)[:d]), "bias": (6,)},
        lambda a, d=d, told=told: getattr(fastconv, f"conv{d}d")(a.input, a.weight, a.bias, **told),
        input=lambda a, g, d=d, told=told: named(f"conv{d}d_input")(
            a.input.shape, a.weight, g, **told
        ),
        weight=lambda a, g, d=d, told=told: named(f"conv{d}d_weight")(
            a.input, a.weight.shape, g, **told
        ),
        bias=lambda a, g, d=d: named(f"conv{d}d_bias")(g),
    )
    for variant, padding, extra in (("", 1, 1), ("cropped", [(2, 0)] * d, 1)):
        turned = {**told, "padding": padding, "output_padding": extra}
        gradients_of(
            f"conv_transpose{d}d",
            {"input": ("n", 4, *size), "weight": (4, 3, *(3, 2, 3)[:d]), "bias": (6,)},
            lambda a, d=d, told=turned: getattr(fastconv, f"conv_transpose{d}d")(
                a.input, a.weight, a.bias, **told
            ),
            variant,
            input=lambda a, g, d=d, told=turned: named(f"conv_transpose{d}d_input")(
                a.input.shape, a.weight, g, **told
            ),
            weight=lambda a, g, d=d, told=turned: named(f"conv_transpose{d}d_weight")(
                a.input, a.weight.shape, g, **told
            ),
            bias=lambda a, g, d=d: named(f"conv_transpose{d}d_bias")(g),
        )
    # Of pools: by windows and by their number.
    image: dict[str, Made] = {"input": distinct("n", 2, *size)}
    for name, pool in {
        "avg_pool": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        "adaptive_avg_pool": {"output_size": (3, 4, 2)[:d]},
    }.items():
        own = {key: value for key, value in pool.items() if key != "output_size"}
        gradients_of(
            f"{name}{d}d", image,
            lambda a, d=d, name=name, told=pool: getattr(fastconv, f"{name}{d}d")(a.input, **told),
            input=lambda a, g, d=d, name=name, told=own: named(f"{name}{d}d_input")(
                a.input.shape, g, **told
            ),
        )  # fmt: skip
    for power in (1.0, 2.0, 3.0):
        norm = {"norm_type": power, "kernel_size": 2, "stride": 1, "ceil_mode": power == 2.0}
        gradients_of(
            f"lp_pool{d}d", image,
            lambda a, d=d, told=norm: getattr(fastconv, f"lp_pool{d}d")(a.input, **told),
            f"power {power}",
            input=lambda a, g, d=d, told=norm: named(f"lp_pool{d}d_input")(a.input, g, **told),
        )  # fmt: skip
    for name, pool in {
        "max_pool": {"kernel_size": 3, "stride": 1, "padding": 1},
        "adaptive_max_pool": {"output_size": (3, 4, 2)[:d]},
    }.items():
        gradients_of(
            f"{name}{d}d", image,
            lambda a, d=d, name=name, told=pool: getattr(fastconv, f"{name}{d}d")(a.input, **told),
            input=lambda a, g, d=d, name=name, told=pool: named(f"{name}{d}d_input")(
                a.input.shape,
                getattr(fastconv, f"{name}{d}d")(a.input, **told, return_indices=True)[1],
                g,
            ),
        )  # fmt: skip
    gradients_of(
        f"max_unpool{d}d",
        {
            "input": ("n", 2, *(2, 3, 2)[:d]),
            "places": lambda rng, n, d=d: getattr(fastconv, f"max_pool{d}d")(
                rng.random((n, 2, *(4, 6, 4)[:d])), 2, return_indices=True
            )[1],
        },
        lambda a, d=d: getattr(fastconv, f"max_unpool{d}d")(a.input, a.places, 2),
        input=lambda a, g, d=d: named(f"max_unpool{d}d_input")(a.places, g),
    )

WINDOW: dict[str, Any] = {"stride": (1, 2), "padding": 1, "dilation": 1}
gradients_of(
    "deform_conv2d",
    {
        "input": ("n", 4, 4, 5), "weight": (4, 2, 3, 2), "bias": (4,), "mask": ("n", 12, 4, 3),
        # Bends of the interpolation are at whole offsets.
        "offset": lambda rng, n: rng.integers(-2, 2, (n, 24, 4, 3)) + rng.uniform(
            0.1, 0.9, (n, 24, 4, 3)
        ),
    },
    lambda a: fastconv.deform_conv2d(a.input, a.offset, a.weight, a.bias, mask=a.mask, **WINDOW),
    input=lambda a, g: grad.deform_conv2d_input(
        a.input.shape, a.offset, a.weight, g, mask=a.mask, **WINDOW
    ),
    offset=lambda a, g: grad.deform_conv2d_offset(
        a.input, a.offset, a.weight, g, mask=a.mask, **WINDOW
    )[0],
    mask=lambda a, g: grad.deform_conv2d_mask(
        a.input, a.offset, a.weight, g, mask=a.mask, **WINDOW
    ),
    weight=lambda a, g: grad.deform_conv2d_weight(
        a.input, a.offset, a.weight.shape, g, mask=a.mask, **WINDOW
    ),
    bias=lambda a, g: grad.deform_conv2d_bias(g),
)  # fmt: skip
gradients_of(
    "linear",
    {"input": ("n", 3, 5), "weight": (4, 5), "bias": (4,)},
    lambda a: fastconv.linear(a.input, a.weight, a.bias),
    input=lambda a, g: grad.linear_input(a.weight, g),
    weight=lambda a, g: grad.linear_weight(a.input, g),
    bias=lambda a, g: grad.linear_bias(g),
)
gradients_of(
    "batch_norm",
    CHANNELS,
    lambda a: fastconv.batch_norm(a.input, None, None, a.weight, a.bias, training=True),
    "training",
    input=lambda a, g: grad.batch_norm_input(a.input, None, None, a.weight, g, True),
    weight=lambda a, g: grad.batch_norm_weight(a.input, None, None, g, True),
)
gradients_of(
    "batch_norm",
    {**CHANNELS, "mean": (4,), "var": positive(4)},
    lambda a: fastconv.batch_norm(a.input, a.mean, a.var, a.weight, a.bias),
    input=lambda a, g: grad.batch_norm_input(a.input, a.mean, a.var, a.weight, g),
    weight=lambda a, g: grad.batch_norm_weight(a.input, a.mean, a.var, g),
    bias=lambda a, g: grad.batch_norm_bias(g),
)
gradients_of(
    "group_norm",
    CHANNELS,
    lambda a: fastconv.group_norm(a.input, 2, a.weight, a.bias),
    input=lambda a, g: grad.group_norm_input(a.input, a.weight, g, 2),
    weight=lambda a, g: grad.group_norm_weight(a.input, g, 2),
    bias=lambda a, g: grad.group_norm_bias(g),
)
gradients_of(
    "instance_norm",
    CHANNELS,
    lambda a: fastconv.instance_norm(a.input, None, None, a.weight, a.bias),
    input=lambda a, g: grad.instance_norm_input(a.input, a.weight, g),
    weight=lambda a, g: grad.instance_norm_weight(a.input, g),
    bias=lambda a, g: grad.instance_norm_bias(g),
)
gradients_of(
    "layer_norm",
    {"input": ("n", 3, 2, 5), "weight": (2, 5), "bias": (2, 5)},
    lambda a: fastconv.layer_norm(a.input, (2, 5), a.weight, a.bias),
    input=lambda a, g: grad.layer_norm_input(a.input, a.weight, g, (2, 5)),
    weight=lambda a, g: grad.layer_norm_weight(a.input, g, (2, 5)),
    bias=lambda a, g: grad.layer_norm_bias(g, (2, 5)),
)
gradients_of(
    "local_response_norm",
    CHANNELS,
    lambda a: fastconv.local_response_norm(a.input, 3, 0.5, 0.75, 2.0),
    input=lambda a, g: grad.local_response_norm_input(a.input, g, 3, 0.5, 0.75, 2.0),
)
gradients_of(
    "softmax",
    CHANNELS,
    lambda a: fastconv.softmax(a.input, 1),
    input=lambda a, g: grad.softmax_input(fastconv.softmax(a.input, 1), g, 1),
)
gradients_of(
    "log_softmax",
    CHANNELS,
    lambda a: fastconv.log_softmax(a.input, -1),
    input=lambda a, g: grad.log_softmax_input(fastconv.log_softmax(a.input, -1), g, -1),
)
for variant, slopes in (("", 4), ("shared", 1)):
    gradients_of(
        "prelu",
        {"input": ("n", 4, 5), "weight": (slopes,)},
        lambda a: fastconv.prelu(a.input, a.weight),
        variant,
        input=lambda a, g: grad.prelu_input(a.input, a.weight, g),
        weight=lambda a, g: grad.prelu_weight(a.input, a.weight, g),
    )
RESIZED: dict[str, tuple[int, ...]] = {
    "nearest": (4, 5), "nearest-exact": (4, 5), "linear": (5,), "bilinear": (4, 5),
    "bicubic": (4, 5), "trilinear": (3, 4, 2),
}  # fmt: skip
for mode, samples in RESIZED.items():
    to = (7, 3, 5)[: len(samples)]
    gradients_of(
        "interpolate",
        {"input": ("n", 2, *samples)},
        lambda a, to=to, mode=mode: fastconv.interpolate(a.input, to, mode=mode),
        mode,
        input=lambda a, g, to=to, mode=mode: grad.interpolate_input(
            a.input.shape, g, to, mode=mode
        ),
    )
for factor, channels in {"pixel_shuffle": 12, "pixel_unshuffle": 3, "channel_shuffle": 6}.items():
    number = 3 if factor == "channel_shuffle" else 2
    gradients_of(
        factor,
        {"input": ("n", channels, 4, 2)},
        lambda a, name=factor, number=number: getattr(fastconv, name)(a.input, number),
        input=lambda a, g, name=factor, number=number: named(f"{name}_input")(g, number),
    )
PATCHES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "signals": ((7,), {"kernel_size": (3,), "dilation": 2}),
    "images": ((5, 4), {"kernel_size": 3, "padding": 1, "stride": 2}),
    "volumes": ((4, 2, 4), {"kernel_size": 2, "stride": 2}),
}
for variant, (samples, told) in PATCHES.items():
    taken = fastconv.unfold(np.zeros((1, 2, *samples)), **told).shape
    gradients_of(
        "unfold",
        {"input": ("n", 2, *samples)},
        lambda a, told=told: fastconv.unfold(a.input, **told),
        variant,
        input=lambda a, g, told=told: grad.unfold_input(a.input.shape, g, **told),
    )
    gradients_of(
        "fold",
        {"input": ("n", *taken[1:])},
        lambda a, to=samples, told=told: fastconv.fold(a.input, to, **told),
        variant,
        input=lambda a, g, told=told: grad.fold_input(g, **told),
    )


def differences(case: Case, arrays: Any, grads: np.ndarray) -> np.ndarray:
    """The slope of the output's product with `grads` along each element of the operand."""
    given, step = getattr(arrays, case.operand), 1e-4
    slopes = np.empty_like(given)
    for place in np.ndindex(given.shape):
        before, sums = given[place], []
        for way in (step, -step):
            given[place] = before + way
            sums.append(float((case.forward(arrays) * grads).sum()))
        given[place] = before
        slopes[place] = (sums[0] - sums[1]) / (2 * step)
    return slopes


def test_every_gradient_has_a_case() -> None:
    assert {name.partition(":")[0] for name in CASES} == set(grad.__all__)


def operands() -> Iterator[tuple[str, str]]:
    """Public functions and those of their arguments that a gradient is for."""
    for name in fastconv.__all__:
        function = getattr(fastconv, name)
        if name in ("conv2d_pair", "separable_conv2d"):  # of which each convolution has its own
            continue
        if inspect.isfunction(function) and "input" in inspect.signature(function).parameters:
            for operand in inspect.signature(function).parameters:
                if operand in ("input", "weight", "bias", "offset", "mask"):
                    yield name, operand


@pytest.mark.parametrize(("operator", "operand"), list(operands()))
def test_every_operand_has_a_gradient(operator: str, operand: str) -> None:
    assert f"{operator}_{operand}" in grad.__all__
    assert callable(getattr(grad, f"{operator}_{operand}"))


def test_every_public_name_is_listed() -> None:
    # Imported with all others, an adapter would stand in the place of the library of its name.
    beside = {"cuda_emulator", "onnx", "spconv", "torch"}
    assert (set(fastconv._HOME) | set(fastconv._SUBMODULES)) - beside <= set(fastconv.__all__)
    assert not beside & set(fastconv.__all__)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name: str, rng: np.random.Generator) -> None:
    case = CASES[name]
    arrays = case.draw(rng, 2)
    grads = rng.standard_normal(case.forward(arrays).shape)
    made, wanted = case.gradient(arrays, grads), differences(case, arrays, grads)
    assert made.shape == wanted.shape and made.dtype == wanted.dtype
    assert np.abs(made - wanted).max() <= 1e-7 * np.abs(wanted).max()


@pytest.mark.parametrize("name", CASES)
def test_bits_do_not_depend_on_threads(name: str, rng: np.random.Generator) -> None:
    case, threads, made = CASES[name], fastconv.get_num_threads(), []
    arrays = case.draw(rng, 120)
    grads = rng.standard_normal(case.forward(arrays).shape)
    try:
        for number in (1, 2, 2):
            fastconv.set_num_threads(number)
            made.append(bits(case.gradient(arrays, grads)))
    finally:
        fastconv.set_num_threads(threads)
    assert made[0] == made[1] == made[2]
