"""fastconv.grad: gradients of dense convolutions, against the definition and PyTorch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv import dispatch, grad
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import KernelSpec
from fastconv.kernels import reference
from helpers import DTYPES, FUNCTIONS, assert_exact, bits, in_layout, memory_orders
from problem_matrix import problem

INPUT = {1: grad.conv1d_input, 2: grad.conv2d_input, 3: grad.conv3d_input}
WEIGHT = {1: grad.conv1d_weight, 2: grad.conv2d_weight, 3: grad.conv3d_weight}
#: Strides that pass over samples, kernels of all ranks, groups, channels that fill no tile or many.
PROBLEMS = (
    problem((6, 8), (9, 33), 3, batch=2, padding=1),
    problem((6, 8), (9, 33), 3, batch=2, padding=1, stride=2),
    problem((6, 8), (10, 8), 3, batch=2, padding=1, stride=3),
    problem((6, 9), (9, 33), 3, batch=2, dilation=3, padding=3),
    problem((6, 8), (9, 33), 2, batch=2, stride=4),
    problem((6, 8), (19, 23), 1, batch=2),
    problem((6, 8), (19, 23), 1, batch=2, stride=2),
    problem((6, 12), (9, 33), 3, batch=2, padding=1, groups=2),
    problem((6, 6), (9, 33), 3, batch=2, padding=1, groups=6),
    problem((4, 8), (9, 33), 5, batch=2, groups=4),
    problem((6, 8), (33,), 3, batch=2, padding=1),
    problem((3, 40), (700,), 9, batch=3, stride=2, padding=4),
    problem((6, 8), (4, 5, 9), 3, batch=2, padding=1),
    problem((6, 8), (4, 5, 9), (1, 3, 2), batch=2, padding=1, stride=2),
    problem((40, 70), (17, 18), 3, batch=1, padding=1),
    problem((3, 150), (40, 40), 3, batch=1, padding=1, stride=2),
    problem((130, 33), (7, 7), 3, batch=3, padding=1),
    problem((5, 10), (19, 40), 3, batch=2, padding=((1, 0), (0, 1)), stride=(3, 2), groups=5),
    problem((4, 4), (20, 50), (5, 9), batch=2, padding=6, dilation=(2, 3), stride=(1, 2), groups=4),
    problem((3, 6), (9000,), 11, padding=5, groups=3),
    problem((3, 3), (61,), 3, padding=4, stride=4, dilation=2, groups=3),
    problem((4, 4), (5, 6, 19), 3, batch=2, padding=1, stride=(2, 1, 1), groups=4),
    problem((4, 4), (3, 4, 5), 3, padding=2, dilation=2, groups=4),
    problem((4, 4), (9, 17), 3, padding=1, groups=4, layout="channels_last"),
)


def per_problem(function: Any) -> Any:
    return pytest.mark.parametrize("of", PROBLEMS, ids=lambda of: of.line())(function)


def arguments(of: ConvProblem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(of, name) for name in names}


def arrays(of: ConvProblem, rng: np.random.Generator, integers: bool = True) -> Any:
    shapes = (of.x_shape, of.weight_shape, of.out_shape)
    made = [rng.integers(-4, 5, s) if integers else rng.standard_normal(s) for s in shapes]
    return [array.astype(DTYPES[of.dtype]) for array in made]


def weight_truth(of: ConvProblem, x: np.ndarray, grad_output: np.ndarray) -> np.ndarray:
    return reference.conv_weight_grad(x, grad_output, kernel_size=of.kernel_size, **arguments(of))


@per_problem
def test_small_integers_are_exact(of: ConvProblem, rng: np.random.Generator) -> None:
    x, weight, grad_output = arrays(of, rng)
    made = WEIGHT[of.ndim](x, weight.shape, grad_output, **arguments(of))
    np.testing.assert_array_equal(made, weight_truth(of, x, grad_output))
    assert made.dtype == x.dtype and made.flags.c_contiguous
    tensors = [torch.from_numpy(array.astype(np.float64)) for array in (x, weight, grad_output)]
    for tensor in tensors[:2]:
        tensor.requires_grad_()
    if all(low == high for low, high in of.padding):
        function = getattr(torch.nn.functional, f"conv{of.ndim}d")
        pads = tuple(low for low, _ in of.padding)
        function(tensors[0], tensors[1], None, of.stride, pads, of.dilation, of.groups).backward(
            tensors[2]
        )
        np.testing.assert_array_equal(made, tensors[1].grad.numpy())
        with fastconv.precision("exact"):
            back = INPUT[of.ndim](x.shape, weight, grad_output, **arguments(of))
        np.testing.assert_array_equal(back, tensors[0].grad.numpy())


PAIRS = [
    (candidate.spec, of)
    for of in PROBLEMS
    for candidate in dispatch.list_candidates(of.with_(op="conv_weight_grad"), packed=True)
    if not candidate.reasons
]


@pytest.mark.parametrize(("spec", "of"), PAIRS, ids=lambda each: getattr(each, "name", None))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_of_a_weight(
    spec: KernelSpec, of: ConvProblem, dtype: str, rng: np.random.Generator
) -> None:
    of = of.with_(dtype=dtype)
    x, weight, grad_output = arrays(of, rng)
    x = in_layout(x, of.layout)
    with dispatch.use_kernel(spec.name):
        made = WEIGHT[of.ndim](x, weight.shape, grad_output, **arguments(of))
        wanted = weight_truth(of, x, grad_output)
        assert_exact(made, wanted)
        x, weight, grad_output = arrays(of, rng, integers=False)
        made = WEIGHT[of.ndim](in_layout(x, of.layout), weight.shape, grad_output, **arguments(of))
    made = made.astype(np.float64)
    wanted = weight_truth(of, x, grad_output)
    bound = {"float32": 2e-6, "float64": 4e-15, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    assert np.abs(made - wanted).max() <= bound * np.abs(wanted).max()


@per_problem
def test_products_with_the_gradients_are_the_derivative(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    """A convolution is linear in each operand: its change along one is exact in float64."""
    of = of.with_(dtype="float64")
    x, weight, grad_output = arrays(of, rng, integers=False)
    change = (FUNCTIONS[of.ndim](x, weight, **arguments(of)) * grad_output).sum()
    for made, operand in (
        (WEIGHT[of.ndim](x, weight.shape, grad_output, **arguments(of)), weight),
        (INPUT[of.ndim](x.shape, weight, grad_output, **arguments(of)), x),
    ):
        scale = np.abs(made * operand).sum()
        assert abs((made * operand).sum() - change) <= 1e-12 * scale


@pytest.mark.parametrize("argument", [0, 2])
def test_any_strides(argument: int, rng: np.random.Generator) -> None:
    of = PROBLEMS[1]
    given = arrays(of, rng)
    wanted = weight_truth(of, given[0], given[2])
    for name, variant in memory_orders(given[argument]).items():
        given[argument] = variant
        made = grad.conv2d_weight(given[0], of.weight_shape, given[2], **arguments(of))
        np.testing.assert_array_equal(made, wanted, name)


def test_channels_last_gradients(rng: np.random.Generator) -> None:
    of = PROBLEMS[0]
    x, _, grad_output = (in_layout(array, "channels_last") for array in arrays(of, rng))
    made = grad.conv2d_weight(x, of.weight_shape, grad_output, **arguments(of))
    np.testing.assert_array_equal(made, weight_truth(of, x, grad_output))


@per_problem
def test_same_bits_for_any_threads_and_in_every_run(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    x, weight, grad_output = arrays(of, rng, integers=False)
    results = []
    for threads in (1, 2, 2):
        fastconv.set_num_threads(threads)
        results.append(
            (
                bits(WEIGHT[of.ndim](x, weight.shape, grad_output, **arguments(of))),
                bits(INPUT[of.ndim](x.shape, weight, grad_output, **arguments(of))),
            )
        )
    for first, second in zip(results[0], results[1], strict=True):
        assert np.array_equal(first, second)
    for first, second in zip(results[1], results[2], strict=True):
        assert np.array_equal(first, second)


def test_a_kernel_whose_samples_fill_the_memory_is_refused() -> None:
    x, grad_output = np.zeros((1, 2, 1 << 19), np.float32), np.zeros((1, 1, 1), np.float32)
    with pytest.raises(fastconv.NoKernelError, match="at most 262144 taps of a channel"):
        grad.conv1d_weight(x, (1, 2, 1 << 19), grad_output)


def test_long_sums_keep_their_error() -> None:
    """A million equal products, the worst case of a running sum."""
    x, grad_output = np.full((1, 1, 1 << 20), 0.1, np.float32), np.ones((1, 1, 1 << 20), np.float32)
    made = grad.conv1d_weight(x, (1, 1, 1), grad_output)
    assert abs(made.item() / (float(np.float32(0.1)) * 2**20) - 1) < 1.5e-5


def test_an_empty_batch_has_a_gradient_of_zeros() -> None:
    x, grad_output = np.zeros((0, 3, 9, 9), np.float32), np.zeros((0, 4, 7, 7), np.float32)
    assert not grad.conv2d_weight(x, (4, 3, 3, 3), grad_output).any()
    assert (
        grad.conv2d_input(x.shape, np.ones((4, 3, 3, 3), np.float32), grad_output).shape == x.shape
    )


X, W, G = (np.zeros(s, np.float32) for s in ((2, 6, 9, 8), (4, 6, 3, 3), (2, 4, 7, 6)))
REFUSALS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "input_size_of_no_call": (grad.conv2d_input, {"input_size": (2, 6, 10, 8)}, "grad_output: got"),
    "input_size_short": (grad.conv2d_input, {"input_size": (6, 9, 8)}, "input_size: got"),
    "input_size_array": (
        grad.conv2d_input,
        {"input_size": X},
        r"got an array of shape \(2, 6, 9, 8\), want 4 whole "
        "numbers, say input.shape",
    ),
    "input_size_negative": (grad.conv2d_input, {"input_size": (2, 6, -9, 8)}, "input_size: got"),
    "input_size_float": (grad.conv2d_input, {"input_size": (2, 6, 9.5, 8)}, "input_size: got 9.5"),
    "input_channels": (grad.conv2d_input, {"input_size": (2, 5, 9, 8)}, "groups: got 1 with an"),
    "weight_axes": (grad.conv2d_input, {"weight": W[0]}, "weight: got 3 axes"),
    "grad_dtype": (
        grad.conv2d_input,
        {"grad_output": G.astype(np.float64)},
        "grad_output: got float64, want",
    ),
    "weight_size": (grad.conv2d_weight, {"weight_size": (4, 6, 4, 3)}, "grad_output: got shape"),
    "weight_groups": (grad.conv2d_weight, {"groups": 5}, "groups: got 5"),
    "weight_dtype": (grad.conv2d_weight, {"grad_output": G.astype(np.float16)}, "grad_output: got"),
    "weight_input": (grad.conv2d_weight, {"input": X[0]}, "input: got 3 axes"),
    "stride": (grad.conv2d_weight, {"stride": 0}, "stride: got"),
    "list": (grad.conv2d_weight, {"input": X.tolist()}, "input: got list"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name: str) -> None:
    function, changes, sentence = REFUSALS[name]
    given: dict[str, Any] = {"input_size": X.shape, "weight": W, "grad_output": G}
    if function is grad.conv2d_weight:
        given = {"input": X, "weight_size": W.shape, "grad_output": G}
    with pytest.raises(fastconv.FastconvError, match=sentence):
        function(**(given | changes))
