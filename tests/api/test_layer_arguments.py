"""What a layer is made with: its arguments are checked then, and say what they want."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.contract.errors import DTypeError, ShapeError


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups"])
def test_an_object_checks_its_arguments_when_it_is_made(name: str) -> None:
    with pytest.raises(ShapeError, match=name):
        fastconv.Conv2d(array(4, 2, 3, 3), **{name: "a"})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((3, 32, 3), {}),
        ((3, 32), {"kernel_size": 3}),
        ((), {"in_channels": 3, "out_channels": 32, "kernel_size": 3}),
    ],
)
def test_a_layer_of_sizes_is_told_that_it_wants_the_filters(given: Any, named: Any) -> None:
    with pytest.raises(DTypeError, match=r"weight: got .*want the filters themselves"):
        fastconv.Conv2d(*given, **named)


def test_a_bias_that_is_a_word_for_none_is_told_what_none_is() -> None:
    with pytest.raises(
        DTypeError, match=r"bias: got False, want an array of shape \(6,\), or None"
    ):
        fastconv.Conv2d(array(6, 4, 3, 3), bias=False)  # type: ignore[arg-type]


def test_a_layers_signature_names_its_arguments() -> None:
    names = list(inspect.signature(fastconv.Conv2d).parameters)
    assert names[:3] == ["weight", "bias", "stride"] and "activation" in names


def test_a_subclass_may_take_sizes_and_make_the_weight() -> None:
    class Ones(fastconv.Conv2d):
        def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
            super().__init__(array(out_channels, in_channels, kernel_size, kernel_size))

    assert Ones(4, 6, kernel_size=3)(array(2, 4, 8, 8)).shape == (2, 6, 6, 6)
