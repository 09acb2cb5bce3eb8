"""Operators of `torch.library`: PyTorch's own checks of each, and the functions that call them."""

from __future__ import annotations

import doctest
import importlib
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")

from torch.nn import functional as F  # noqa: E402

import fastconv  # noqa: E402
import fastconv.torch  # noqa: E402
from fastconv.torch import norming, products, windows  # noqa: E402

pytestmark = pytest.mark.program

LAST = torch.channels_last


def draw(*shape: int, last: bool = False, dtype: Any = torch.float32) -> Any:
    made = torch.randn(*shape, dtype=dtype)
    return (made.contiguous(memory_format=LAST) if last else made).requires_grad_()


MEAN, VAR = [torch.tensor([-1.0, 0.0, 0.5, 2.0]), torch.tensor([0.5, 1.0, 2.0, 3.0])]
#: An operator's arguments by a name: what `draw` makes of shapes, the first in both memory orders.
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "conv": (products.CONV, ((2, 4, 7, 7), (6, 2, 3, 3), (6,), [2, 1], [1, 2, 0, 0], [1, 2], 2)),
    "conv, no bias": (
        products.CONV, ((1, 4, 7, 7), (1, 4, 1, 7), None, [1, 1], [0, 0, 0, 0], [1, 1], 1)
    ),
    "conv, one pixel": (
        products.CONV, ((2, 4, 1, 1), (6, 4, 3, 3), (6,), [1, 1], [1, 1, 1, 1], [1, 1], 1)
    ),
    "conv, 1 axis": (products.CONV, ((2, 4, 9), (6, 4, 3), (6,), [2], [1, 1], [1], 1)),
    "conv, 3 axes": (
        products.CONV,
        ((2, 4, 5, 5, 5), (6, 4, 3, 3, 3), (6,), [1, 1, 2], [1, 1, 1, 1, 0, 0], [1, 1, 1], 1),
    ),
    "transposed": (
        products.CONV_TRANSPOSE,
        ((2, 4, 5, 5), (4, 3, 3, 3), (6,), [2, 2], [1, 1], [1, 1], 2, [1, 1]),
    ),
    "transposed, output_padding beyond stride": (
        products.CONV_TRANSPOSE,
        ((2, 4, 5, 5), (4, 3, 3, 3), (3,), [2, 1], [0, 0], [2, 2], 1, [3, 3]),
    ),
    "linear": (products.LINEAR, ((2, 3, 4), (5, 4), (5,))),
    "linear, 4 axes": (products.LINEAR, ((2, 2, 3, 4), (5, 4), None)),
    "max": (windows.MAX_POOL_PLACES, ((2, 4, 7, 7), [3, 2], [2, 2], [1, 1], [1, 2], True)),
    "adaptive max": (windows.ADAPTIVE_MAX_POOL, ((2, 4, 7, 7), [3, 2])),
    "avg": (windows.AVG_POOL, ((2, 4, 7, 7), [3, 2], [2, 2], [1, 1], True, False, None)),
    "avg, divisor": (windows.AVG_POOL, ((2, 4, 7, 7), [3, 2], [2, 2], [1, 1], True, True, 5)),
    "avg, 1 axis": (windows.AVG_POOL, ((2, 4, 7), [3], [2], [1], False, True, None)),
    "adaptive avg": (windows.ADAPTIVE_AVG_POOL, ((2, 4, 7, 7), [1, 1])),
    "lp": (windows.LP_POOL, ((2, 4, 7, 7), 2.0, [3, 2], [2, 2], True)),
    "batch norm": (norming.BATCH_NORM, ((2, 4, 5, 5), MEAN, VAR, (4,), (4,), 1e-5)),
    "group norm": (norming.GROUP_NORM, ((2, 4, 5, 5), 2, (4,), (4,), 1e-5)),
    "instance norm": (norming.INSTANCE_NORM, ((2, 4, 5, 5), (4,), None, 1e-5)),
    "layer norm": (norming.LAYER_NORM, ((2, 4, 5, 5), [5, 5], (5, 5), (5, 5), 1e-5)),
    "layer norm, rows": (norming.LAYER_NORM, ((3, 4), [4], None, (4,), 1e-5)),
    "softmax": (norming.SOFTMAX, ((2, 4, 5, 5), 1)),
    "log softmax": (norming.LOG_SOFTMAX, ((2, 4, 5, 5), 3)),
    "interpolate": (norming.INTERPOLATE, ((2, 4, 5, 5), None, [2.0, 1.5], "bilinear", True, None)),
    "interpolate, size": (norming.INTERPOLATE, ((2, 4, 5, 5), [7, 3], None, "nearest", None, None)),
    "prelu": (norming.PRELU, ((2, 4, 5, 5), (4,))),
}  # fmt: skip


@pytest.mark.parametrize("name", ["functional", "layers", "optimizing", "patching", "pooling"])
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"fastconv.torch.{name}"))
    assert result.attempted > 0 and result.failed == 0


def arguments(given: tuple[Any, ...], last: bool = False, dtype: Any = torch.float32) -> list[Any]:
    return [
        draw(*each, last=last and number == 0 and len(each) == 4, dtype=dtype)
        if isinstance(each, tuple)
        else each.to(dtype)
        if isinstance(each, torch.Tensor)
        else each
        for number, each in enumerate(given)
    ]


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", CASES)
def test_opcheck(name: str, last: bool) -> None:
    operator, given = CASES[name]
    if last and len(given[0]) != 4:
        pytest.skip("channels_last is a memory order of four axes")
    torch.library.opcheck(operator, arguments(given, last))


def test_opcheck_without_places() -> None:
    x = draw(2, 4, 7, 7).detach()
    torch.library.opcheck(windows.MAX_POOL, (x, [3, 2], [2, 2], [1, 1], [1, 2], True))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences_twice(name: str) -> None:
    """In float64."""
    operator, given = CASES[name]
    torch.manual_seed(0)
    told = arguments(given, dtype=torch.float64)
    assert torch.autograd.gradcheck(operator, told, fast_mode=True)
    assert torch.autograd.gradgradcheck(operator, told, fast_mode=True)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_norms_of_nothing_have_the_slope_of_pytorchs(power: float) -> None:
    x = draw(1, 2, 6, 6)
    x.data[:, :, :3] = 0
    for stride, again in ((2, False), (1, False), (2, True)):
        made, wanted = (
            torch.autograd.grad(call(x, power, 2, stride).sum(), x, create_graph=again)[0]
            for call in (fastconv.torch.lp_pool2d, F.lp_pool2d)
        )
        torch.testing.assert_close(made, wanted, equal_nan=True)
        assert not made[:, :, 0].any()


def test_unusual_arguments_are_pytorchs() -> None:
    """With their gradients: rows without a batch, padding by words, and padding beyond strides."""
    x, w, b = draw(4), draw(3, 4), draw(3)
    image, filters = draw(2, 6, 6), draw(4, 2, 3, 2)
    up = draw(2, 3, 2, 2)
    for own, theirs, given, told in (
        (fastconv.torch.linear, F.linear, (x, w, b), {}),
        (fastconv.torch.conv2d, F.conv2d, (image, filters), {"padding": "same", "dilation": 2}),
        (fastconv.torch.conv2d, F.conv2d, (image, filters), {"padding": "valid", "stride": (2, 1)}),
        (
            fastconv.torch.conv_transpose2d, F.conv_transpose2d, (image, up),
            {"output_padding": 2, "dilation": 3, "stride": 2},
        ),
        (fastconv.torch.max_pool2d, F.max_pool2d, (image, 2), {"stride": ()}),
        (fastconv.torch.adaptive_avg_pool2d, F.adaptive_avg_pool2d, (image, (None, 3)), {}),
        (fastconv.torch.avg_pool2d, F.avg_pool2d, (image, 3), {"divisor_override": 7}),
    ):  # fmt: skip
        results = []
        for function in (own, theirs):
            out = function(*given, **told)
            wanting = [each for each in given if isinstance(each, torch.Tensor)]
            results.append((out, torch.autograd.grad(out.square().sum(), wanting)))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, w: fastconv.torch.max_pool2d(x, 2, stride=0), "ShapeError", "stride: got 0"),
        (lambda x, w: fastconv.torch.avg_pool2d(x, 2, (1, 0)), "ShapeError", r"stride: got \(1"),
        (lambda x, w: fastconv.torch.conv2d(x, w, stride=0), "ShapeError", "stride"),
        (lambda x, w: fastconv.torch.conv2d(x, w[0]), "ShapeError", "weight: got 3 axes"),
        (lambda x, w: fastconv.torch.conv2d(x[0, 0], w), "ShapeError", "input: got 2 axes"),
        (lambda x, w: fastconv.torch.conv2d(x, w.double()), "DTypeError", "weight: got .*float64"),
        (lambda x, w: fastconv.torch.conv2d(x.int(), w), "DTypeError", "input: got torch.int32"),
        (lambda x, w: fastconv.torch.conv2d(x.numpy(), w), "DTypeError", "input: got ndarray"),
        (lambda x, w: fastconv.torch.conv2d(x.to_sparse(), w), "DeviceError", "sparse_coo"),
        (lambda x, w: fastconv.torch.conv2d(x, w[:, :1]), "ShapeError", "groups|channels"),
        (fastconv.torch.linear, "ShapeError", "weight: got shape"),
        (lambda x, w: fastconv.torch.conv2d(x, w, padding="full"), "ShapeError", "padding"),
        (
            lambda x, w: fastconv.torch.conv2d(x, w, padding="same", stride=2),
            "ShapeError",
            "padding",
        ),
    ],
)
def test_refusals(call: Any, error: str, words: str) -> None:
    with pytest.raises(getattr(fastconv, error), match=words):
        call(torch.ones(1, 2, 6, 6), torch.ones(3, 2, 2, 2))


def network(f: Any) -> Any:
    """A few layers of a module's functions."""

    def call(x: Any, w: Any, m: Any) -> Any:
        x = torch.relu(f.conv2d(x, w, padding=1))
        x = f.max_pool2d(x, 2) + f.avg_pool2d(x, 2)
        return f.linear(torch.flatten(f.adaptive_avg_pool2d(x, 2), 1), m)

    return call


def test_compiles_without_a_break() -> None:
    x, w, m = draw(1, 3, 8, 8), draw(4, 3, 3, 3), draw(2, 16)
    eager, compiled = network(fastconv.torch), torch.compile(
        network(fastconv.torch), fullgraph=True, backend="aot_eager"
    )  # fmt: skip
    results = []
    for call in (eager, compiled, network(F)):
        out = call(x, w, m)
        results.append((out, torch.autograd.grad(out.sum(), (x, w, m))))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[0], results[2], rtol=1e-4, atol=1e-4)


def test_plain_functions_break_the_graph_and_compute() -> None:
    x, w = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)

    def call(x: Any) -> Any:
        return torch.relu(fastconv.conv2d(x * 2, w)) + 1

    assert torch.equal(torch.compile(call, backend="eager")(x), call(x))


def test_autocast_is_that_of_pytorch() -> None:
    """Each function gives PyTorch's element type under it, and so do the gradients."""
    x, w, m = draw(1, 3, 8, 8), draw(4, 3, 3, 3), draw(2, 8)
    volume = draw(1, 2, 4, 4, 4)
    calls = (
        lambda f: f.conv2d(x, w),
        lambda f: f.conv2d(x.double(), w.double()),
        lambda f: f.conv_transpose2d(x, w[:3, :2]),
        lambda f: f.linear(x, m),
        lambda f: f.max_pool2d(x, 2),
        lambda f: f.avg_pool2d(x.bfloat16(), 2),
        lambda f: f.max_pool3d(volume.bfloat16(), 2),
        lambda f: f.adaptive_avg_pool3d(volume.bfloat16(), 2),
        lambda f: f.lp_pool2d(x, 2, 2),
    )
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            for call in calls:
                made, wanted = call(fastconv.torch), call(F)
                assert made.dtype == wanted.dtype
                torch.testing.assert_close(made, wanted, rtol=0.03, atol=0.05)
    with torch.autocast("cpu"):
        out = fastconv.torch.conv2d(x, w)
    (grad,) = torch.autograd.grad(out.sum(), w)
    assert grad.dtype == torch.float32


def test_several_threads_call_at_once() -> None:
    x, w = draw(1, 3, 16, 16), draw(8, 3, 3, 3)
    wanted = torch.autograd.grad(fastconv.torch.conv2d(x, w).square().sum(), (x, w))
    results: list[Any] = []

    def work() -> None:
        for _ in range(5):
            out = fastconv.torch.conv2d(x, w)
            results.append(torch.autograd.grad(out.square().sum(), (x, w)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert all(torch.equal(a, b) for each in results for a, b in zip(each, wanted, strict=True))


class Images(torch.utils.data.Dataset[Any]):
    """Images that are filtered as they are loaded."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Any:
        x = torch.full((1, 6, 6), float(number))
        return fastconv.torch.conv2d(x, torch.ones(1, 1, 3, 3), padding=1)


def test_workers_of_a_data_loader() -> None:
    images = Images()
    here = torch.stack([images[number] for number in range(4)])
    loader = torch.utils.data.DataLoader(images, batch_size=2, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), here)


def test_memory_order_and_inference_mode() -> None:
    x, w = draw(2, 8, 6, 6, last=True), draw(8, 8, 3, 3)
    with torch.inference_mode():
        for made in (fastconv.torch.conv2d(x, w), fastconv.torch.max_pool2d(x, 2)):
            assert made.is_contiguous(memory_format=LAST) and not made.is_contiguous()
    out = fastconv.torch.conv2d(x, w)
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    assert grad.is_contiguous(memory_format=LAST)
