"""Hypothesis over all arguments at once, against the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from fastconv import dispatch
from fastconv.contract.errors import ShapeError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import ACTIVATIONS
from fastconv.kernels import reference
from helpers import DTYPES, FUNCTIONS, MODULES, assert_close, assert_exact, in_layout, refusals

MAX_MACS = 400_000
relaxed = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@st.composite
def problems(draw: st.DrawFn) -> ConvProblem:
    """Valid problems of every rank; small numbers first, so failures shrink to simple ones."""
    ndim = draw(st.integers(1, 3))

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    groups = draw(st.sampled_from((1, 1, 2, 3, 5, 16)))
    kernel, dilation = axes(1, (12, 7, 4)[ndim - 1]), axes(1, (13, 6, 3)[ndim - 1])
    padding = tuple((draw(st.integers(0, 9)), draw(st.integers(0, 9))) for _ in range(ndim))
    in_size = axes(1, (150, 70, 12)[ndim - 1])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(i + sum(p) >= r for i, p, r in zip(in_size, padding, reach, strict=True)))
    problem = ConvProblem(
        batch=draw(st.integers(0, 3)),
        in_channels=groups * draw(st.integers(1, 20)),
        out_channels=groups * draw(st.integers(1, 40)),
        in_size=in_size,
        kernel_size=kernel,
        stride=axes(1, 5),
        padding=padding,
        dilation=dilation,
        groups=groups,
        dtype=draw(st.sampled_from(("float32", "float32", "float64", "float16", "bfloat16"))),
    )
    assume(problem.macs <= MAX_MACS and math.prod(problem.x_shape) <= MAX_MACS)
    return problem


def reordered(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """The same values in a memory order of hypothesis' choice."""
    order = draw(st.permutations(range(array.ndim)))
    steps = [draw(st.sampled_from((1, 1, -1, 2, -3))) for _ in order]
    shape = [size * abs(step) for size, step in zip(array.shape, steps, strict=True)]
    memory = np.zeros([shape[axis] for axis in order], array.dtype)
    view = memory.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    view[...] = array
    if draw(st.booleans()):
        view.flags.writeable = False
    return view


@st.composite
def calls(draw: st.DrawFn) -> tuple[ConvProblem, dict[str, Any]]:
    """A problem and all the arguments of a call, filled with small integers."""
    problem = draw(problems())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = DTYPES[problem.dtype]

    def integers(shape: tuple[int, ...]) -> np.ndarray:
        return reordered(draw, rng.integers(-4, 5, shape).astype(dtype))

    x = integers(problem.x_shape)
    if draw(st.booleans()):
        x = in_layout(x, "channels_last")
    arguments: dict[str, Any] = {"input": x, "weight": integers(problem.weight_shape)}
    if draw(st.booleans()):
        arguments["bias"] = integers((problem.out_channels,))
    if draw(st.booleans()):
        arguments["residual"] = integers(problem.out_shape)
    if draw(st.booleans()):
        out = reordered(draw, np.full(problem.out_shape, np.nan, dtype))
        arguments["out"] = out if out.flags.writeable else np.array(out)
    return problem, arguments


def truth_of(problem: ConvProblem, arguments: dict[str, Any], **epilogue: Any) -> np.ndarray:
    return reference.conv(
        arguments["input"],
        arguments["weight"],
        arguments.get("bias"),
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
        residual=arguments.get("residual"),
        **epilogue,
    )


@settings(relaxed, max_examples=200)
@given(calls(), st.booleans(), st.sampled_from((None, "relu", "relu6", ("leaky_relu", 0.5))))
def test_functional_and_layer_are_exact_on_small_integers(
    call: tuple[ConvProblem, dict[str, Any]], layer: bool, activation: Any
) -> None:
    problem, arguments = call
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    truth = truth_of(problem, arguments, activation=name, alpha=alpha)
    geometry = {
        "stride": problem.stride,
        "padding": problem.padding,
        "dilation": problem.dilation,
        "groups": problem.groups,
        "activation": activation,
    }
    with dispatch.precision("exact"):
        event(dispatch.choose(problem).name)
        if layer:
            rest = {key: arguments.get(key) for key in ("residual", "out")}
            made = MODULES[problem.ndim](arguments["weight"], arguments.get("bias"), **geometry)
            actual = made(arguments["input"], **rest)
        else:
            actual = FUNCTIONS[problem.ndim](**arguments, **geometry)
    if "out" in arguments:
        assert actual is arguments["out"]
    assert actual.dtype == arguments["input"].dtype
    assert_exact(actual, truth, problem.line())


@settings(relaxed, max_examples=150)
@given(st.data(), problems())
def test_any_kernel_that_accepts_is_within_tolerance(
    data: st.DataObject, problem: ConvProblem
) -> None:
    layout = data.draw(st.sampled_from(("channels_first", "channels_last")))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = DTYPES[problem.dtype]
    arguments: dict[str, Any] = {
        "input": in_layout(rng.standard_normal(problem.x_shape).astype(dtype), layout),
        "weight": (rng.standard_normal(problem.weight_shape) / 8).astype(dtype),
        "bias": rng.standard_normal(problem.out_channels).astype(dtype),
    }
    activation = data.draw(st.sampled_from((None, *ACTIVATIONS)))
    # An array of one channel or one pixel has both layouts: only what accepts either can be forced.
    accepting = [
        spec
        for spec in dispatch.kernels(op="conv", device="cpu")
        if not any(
            refusals(spec, problem.with_(layout=each))
            for each in ("channels_first", "channels_last", "strided")
        )
    ]
    spec = data.draw(st.sampled_from(accepting))
    event(spec.name)
    with dispatch.use_kernel(spec.name):
        actual = FUNCTIONS[problem.ndim](
            **arguments,
            stride=problem.stride,
            padding=problem.padding,
            dilation=problem.dilation,
            groups=problem.groups,
            activation=activation,
        )
    sums = truth_of(problem, arguments)
    truth = reference.activate(sums, activation)
    what = f"{spec.name} {problem.line()} {activation}"
    assert_close(actual, truth, spec.tolerance[problem.dtype], what, sums)


small = st.integers(-2, 6)
sizes = st.one_of(small, st.lists(small, min_size=0, max_size=4).map(tuple))
pads = st.one_of(
    sizes,
    st.sampled_from(("same", "valid", "full")),
    st.lists(st.tuples(small, small), min_size=1, max_size=3).map(tuple),
)
shapes = st.lists(st.integers(0, 7), min_size=0, max_size=6).map(tuple)
ANYTHING = {
    "input": shapes,
    "weight": shapes,
    "stride": sizes,
    "padding": pads,
    "dilation": sizes,
    "groups": small,
}


@st.composite
def careless_calls(draw: st.DrawFn) -> tuple[int, dict[str, Any]]:
    """A good call's rank and arguments with up to two of them replaced by anything."""
    ndim, groups, channels = (draw(st.integers(1, 3)) for _ in range(3))
    spatial = tuple(draw(st.integers(3, 8)) for _ in range(ndim))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    batch = draw(st.sampled_from(((), (0,), (2,))))
    arguments: dict[str, Any] = {
        "input": (*batch, groups * channels, *spatial),
        "weight": (groups * draw(st.integers(1, 4)), channels, *kernel),
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.one_of(st.integers(0, 3), st.just("valid"))),
        "dilation": draw(st.sampled_from((1, (1,) * ndim))),
        "groups": groups,
    }
    for name in draw(st.lists(st.sampled_from(tuple(ANYTHING)), max_size=2)):
        arguments[name] = draw(ANYTHING[name])
    for name, values in (("input", 7.0), ("weight", 5.0)):
        arguments[name] = np.resize(np.arange(values), arguments[name])
    return ndim, arguments


def normal(ndim: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that fastconv has taken, as the reference wants them."""

    def per_axis(value: Any) -> tuple[Any, ...]:
        entries = value if isinstance(value, tuple) else (value,)
        return entries * ndim if len(entries) == 1 else entries

    padding, dilation = arguments["padding"], per_axis(arguments["dilation"])
    if padding == "valid":
        padding = 0
    if padding == "same":
        kernel = arguments["weight"].shape[2:]
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    return {
        "stride": per_axis(arguments["stride"]),
        "padding": tuple(p if isinstance(p, tuple) else (p, p) for p in per_axis(padding)),
        "dilation": dilation,
        "groups": arguments["groups"],
    }


@settings(relaxed, max_examples=400)
@given(careless_calls())
def test_arbitrary_arguments_are_computed_rightly_or_refused(
    call: tuple[int, dict[str, Any]],
) -> None:
    ndim, arguments = call
    try:
        with dispatch.precision("exact"):
            actual = FUNCTIONS[ndim](**arguments)
    except ShapeError as error:
        assert any(word in str(error) for word in (*ANYTHING, "kernel")), str(error)
        event("refused")
        return
    event("computed")
    x, weight = arguments["input"], arguments["weight"]
    unbatched = x.ndim == ndim + 1
    truth = reference.conv(x[None] if unbatched else x, weight, **normal(ndim, arguments))
    assert_exact(actual, truth[0] if unbatched else truth)


@settings(relaxed, max_examples=300)
@given(
    problems(), st.sampled_from(("channels_first", "channels_last")), st.from_regex(r"\A\w{0,9}\Z")
)
def test_every_problem_has_a_line_that_means_it(
    problem: ConvProblem, layout: str, name: str
) -> None:
    from fastconv.contract.problem_line import parse_line

    problem = problem.with_(layout=layout)
    line = problem.line(name)
    parsed, parsed_name = parse_line(line)
    assert parsed_name == name
    assert parsed.line(name) == line
    assert parsed.out_shape == problem.out_shape and parsed.x_shape == problem.x_shape
    # Zeros beyond the last window may be told differently; the rest is the same value.
    assert parsed.with_(padding=problem.padding) == problem
