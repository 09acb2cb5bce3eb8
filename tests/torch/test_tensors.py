"""The plain functions take CPU tensors and return them, over the same memory."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import grad, tensors

torch = pytest.importorskip("torch", reason="package torch is not installed")

pytestmark = pytest.mark.program

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def opened() -> list[Any]:
    """Every public function of arrays."""
    names = [name for name, home in fastconv._HOME.items() if home.startswith(("functional", "op"))]
    functions = [getattr(fastconv, name) for name in names]
    return [each for each in functions if not isinstance(each, type)] + [
        getattr(grad, name) for name in grad.__all__
    ]


def test_every_public_function_of_arrays_is_open() -> None:
    assert len(opened()) > 100
    for function in opened():
        assert function.__wrapped__.__module__.startswith("fastconv."), function
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)
        assert pickle.loads(pickle.dumps(function)) is function


def arrays_of(dtype: Any, *shapes: tuple[int, ...]) -> list[Any]:
    return [torch.randn(shape).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_are_those_of_arrays_over_the_same_memory(dtype: Any) -> None:
    pytest.importorskip("ml_dtypes", reason="bfloat16 of NumPy's is that of ml_dtypes")
    x, w, b = arrays_of(dtype, (2, 4, 6, 6), (3, 4, 3, 3), (3,))
    plain = [tensors.array_of("x", each) for each in (x, w, b)]
    assert all(a.ctypes.data == t.data_ptr() for a, t in zip(plain, (x, w, b), strict=True))
    made, wanted = fastconv.conv2d(x, w, b, padding=1), fastconv.conv2d(*plain, padding=1)
    assert made.dtype == dtype
    assert tensors.array_of("made", made).tobytes() == wanted.tobytes()
    pooled, places = fastconv.max_pool2d(x, 2, return_indices=True)
    assert pooled.dtype == dtype and places.dtype == torch.int64
    back = grad.max_pool2d_input(x.shape, places, pooled)
    assert torch.equal(back[back != 0].sort().values, pooled[pooled != 0].sort().values)
    with pytest.raises(fastconv.DeviceError, match=r"^weight: got a NumPy array"):
        grad.conv2d_input(x.shape, plain[1], made, padding=1)


def test_what_is_written_into_is_the_callers() -> None:
    x, w = arrays_of(torch.float32, (1, 2, 5, 5), (3, 2, 1, 1))
    room = torch.full((1, 5, 5, 4), torch.nan)
    out = room.permute(0, 3, 1, 2)[:, :3]
    assert fastconv.conv2d(x, w, out=out) is out
    assert torch.equal(room[..., :3].permute(0, 3, 1, 2), fastconv.conv2d(x, w))
    mean, var = torch.zeros(2), torch.ones(2)
    fastconv.batch_norm(x, mean, var, training=True)
    wanted_mean, wanted_var = torch.zeros(2), torch.ones(2)
    torch.nn.functional.batch_norm(x, wanted_mean, wanted_var, training=True)
    torch.testing.assert_close((mean, var), (wanted_mean, wanted_var))


def test_memory_order_and_strides_are_kept() -> None:
    x, w = arrays_of(torch.float32, (2, 8, 6, 6), (8, 8, 3, 3))
    last = x.contiguous(memory_format=torch.channels_last)
    made = fastconv.conv2d(last, w, padding=1)
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made, fastconv.conv2d(x, w, padding=1), rtol=1e-4, atol=1e-4)
    spread = x[:1, :1].expand(2, 8, 6, 6)
    torch.testing.assert_close(
        fastconv.conv2d(spread, w), fastconv.conv2d(spread.contiguous(), w), rtol=1e-4, atol=1e-4
    )


def test_objects_take_tensors() -> None:
    x, w, b = arrays_of(torch.float32, (1, 4, 6, 6), (4, 4, 3, 3), (4,))
    layer = fastconv.Conv2d(w, b, padding=1, activation=("prelu", torch.full((4,), 0.1)))
    made = layer(x, residual=x)
    wanted = torch.nn.functional.conv2d(x, w, b, padding=1) + x
    torch.testing.assert_close(made, torch.where(wanted > 0, wanted, 0.1 * wanted))
    assert layer.prepare(x) and isinstance(layer(x.numpy()), np.ndarray)
    rows, matrix = arrays_of(torch.float32, (2, 3, 8), (5, 8))
    linear = fastconv.Linear(matrix)
    torch.testing.assert_close(linear(rows), torch.nn.functional.linear(rows, matrix))
    pair = fastconv.SeparableConv2d(torch.ones(4, 1, 3, 3), torch.ones(2, 4))
    torch.testing.assert_close(
        pair(x), fastconv.separable_conv2d(x, torch.ones(4, 1, 3, 3), torch.ones(2, 4))
    )
    deform = fastconv.DeformConv2d(w, padding=1)
    torch.testing.assert_close(
        deform(x, torch.zeros(1, 18, 6, 6)), torch.nn.functional.conv2d(x, w, padding=1)
    )
    assert fastconv.explain(layer, x).chosen and fastconv.explain(fastconv.conv2d, x, w).chosen


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: x.requires_grad_(), fastconv.DTypeError, "input: .*fastconv.torch"),
        (lambda x: x.to("meta"), fastconv.DeviceError, "input: .*meta"),
        (lambda x: x.to_sparse(), fastconv.DeviceError, "input: .*sparse_coo"),
        (lambda x: x.to_mkldnn(), fastconv.DeviceError, "input: .*mkldnn"),
        (torch._neg_view, fastconv.DeviceError, "input: .*resolve_neg"),
        (lambda x: x.to(torch.complex64), fastconv.DTypeError, "input: got complex64"),
        (lambda x: x.to(torch.float8_e5m2), fastconv.DTypeError, "input: got a tensor of"),
        (lambda x: x.numpy(), fastconv.DeviceError, "weight: .*want a NumPy array"),
    ],
)
def test_other_tensors_are_refused(change: Any, error: type[Exception], words: str) -> None:
    x, w = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 2, 2)
    with pytest.raises(error, match=words):
        fastconv.conv2d(change(x), w)


def test_gradients_are_refused_only_while_they_are_recorded() -> None:
    x, w = torch.ones(1, 2, 4, 4), torch.nn.Parameter(torch.ones(3, 2, 2, 2))
    with pytest.raises(fastconv.DTypeError, match=r"weight: .*fastconv\.torch"):
        fastconv.conv2d(x, weight=w)
    with pytest.raises(fastconv.DTypeError, match=r"weight: .*fastconv\.torch"):
        fastconv.Conv2d(w)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert not fastconv.conv2d(x, w).requires_grad


def test_import_loads_no_torch() -> None:
    code = (
        "import sys, numpy as np, fastconv\n"
        "fastconv.max_pool2d(np.ones((1, 1, 4, 4), np.float32), 2)\n"
        "assert 'torch' not in sys.modules\n"
        "import fastconv.torch\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_torch_that_is_being_imported_has_no_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    size, w, out = (1, 2, 4, 4), np.ones((3, 2, 1, 1), np.float32), np.ones((1, 3, 4, 4), "f4")
    wanted = grad.conv2d_input(size, w, out)
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    assert np.array_equal(grad.conv2d_input(size, w, out), wanted)
