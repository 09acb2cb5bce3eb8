"""The sparse operators against dense grids masked at the sites, and what they promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import dispatch, sparse
from fastconv.contract.padding import normalise_padding
from fastconv.contract.spec import ACTIVATIONS
from fastconv.kernels import reference
from fastconv.sparse import SparseTensor
from fastconv.sparse.functional import call_of
from helpers import DTYPES, assert_exact, bits, memory_orders
from sparse_helpers import (
    Array,
    at_sites,
    dense_conv,
    dense_spread,
    in_order,
    occupancy,
    random_sites,
    random_tensor,
    sites_of,
    whole,
)

KINDS = ("subm_conv", "sparse_conv", "sparse_conv_transpose", "sparse_inverse_conv")


@dataclass(frozen=True)
class Case:
    """A convolution of a kind, on random sites."""

    kind: str
    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    channels: tuple[int, int] = (5, 9)
    groups: int = 1
    dtype: str = "float32"
    share: float = 0.3

    def __str__(self) -> str:
        sizes = "-".join(
            f"{letter}{'x'.join(map(str, values))}"
            for letter, values in (("k", self.kernel), ("s", self.stride), ("d", self.dilation))
        )
        return (
            f"{self.kind}-{len(self.shape)}d-{sizes}-p{self.padding}-g{self.groups}"
            f"c{self.channels}-{self.dtype}-{self.share}".replace(" ", "")
        )


def cases() -> Iterator[Case]:
    """Every kind, vary one thing at a time around 1 to 4 axes."""
    shapes = {1: (37,), 2: (13, 11), 3: (7, 8, 6), 4: (5, 4, 5, 4)}
    for kind in KINDS:
        for ndim, shape in shapes.items():
            one = (1,) * ndim
            step = one if kind == "subm_conv" else (2,) * ndim
            yield Case(kind, shape, (3,) * ndim, step, 1, one)
            yield Case(kind, shape, (2,) * ndim, step, 0, one)
        yield from _cases_in_two_axes(kind, one_step=kind == "subm_conv")


def _cases_in_two_axes(kind: str, one_step: bool) -> Iterator[Case]:
    def case(kernel: Any, stride: Any, padding: Any, dilation: Any, **more: Any) -> Case:
        return Case(kind, (13, 11), kernel, (1, 1) if one_step else stride, padding, dilation,
                    **more)  # fmt: skip

    for kernel, stride, padding, dilation in (
        ((3, 5), (1, 2), (1, 2), (1, 1)),
        ((4, 1), (3, 1), ((2, 0), (0, 1)), (1, 1)),
        ((3, 2), (1, 1), 2, (2, 3)),
        ((1, 1), (1, 1), 0, (1, 1)),
        ((1, 1), (2, 3), 0, (1, 1)),
    ):
        yield case(kernel, stride, padding, dilation)
    for dtype in ("float64", "float16", "bfloat16"):
        yield case((3, 3), (2, 2), 1, (1, 1), dtype=dtype)
    for channels, groups in (((1, 1), 1), ((6, 4), 2), ((12, 12), 12), ((4, 8), 4), ((33, 70), 1)):
        yield case((3, 3), (2, 1), 1, (1, 1), channels=channels, groups=groups)
    for share in (0.0, 1.0, 0.01):
        yield case((3, 3), (2, 2), 1, (1, 1), share=share)


def run(
    case: Case, x: SparseTensor, w: Array, **more: Any
) -> tuple[Callable[[], SparseTensor], Any]:
    """The call of a case, and its problem. Inverse kinds run on the result of `sparse_conv`."""
    function = getattr(sparse, case.kind)
    geometry: dict[str, Any] = {"dilation": case.dilation}
    if case.kind != "subm_conv":
        geometry |= {"stride": case.stride, "padding": case.padding}
    if case.kind == "sparse_inverse_conv":
        geometry = {"indice_key": "down"}
    arguments = {"groups": case.groups, **geometry, **more}
    problem = call_of(function, x, w, **arguments).problem
    return lambda: function(x, w, **arguments), problem


def expected(case: Case, x: SparseTensor, w: Array, sites: Array | None) -> tuple[Array, Array]:
    """Features and sites that a case has; `sites` are those that an inverse goes back to."""
    ndim = len(case.shape)
    pads = normalise_padding(
        "same" if case.kind == "subm_conv" else case.padding,
        case.shape, case.kernel, case.stride, case.dilation,
    )  # fmt: skip
    here, ones = occupancy(x), np.ones((1, 1, *case.kernel))
    if case.kind == "sparse_inverse_conv":
        assert sites is not None
        dense = dense_spread(
            x.dense(), w, case.stride, pads, case.dilation, case.shape, case.groups
        )
        return at_sites(dense, sites), sites
    if case.kind == "sparse_conv_transpose":
        size = tuple(
            (n - 1) * s - low - high + d * (k - 1) + 1
            for n, s, (low, high), d, k in zip(
                case.shape, case.stride, pads, case.dilation, case.kernel, strict=True
            )
        )
        arguments = (case.stride, pads, case.dilation, size)
        found = sites_of(dense_spread(here, ones, *arguments))
        return at_sites(dense_spread(x.dense(), w, *arguments, case.groups), found), found
    dense = dense_conv(x.dense(), w, case.stride, pads, case.dilation, case.groups)
    if case.kind == "subm_conv":
        found = x.indices
    else:
        found = sites_of(dense_conv(here, ones, (case.stride), pads, case.dilation))
    assert dense.ndim == ndim + 2
    return at_sites(dense, found), found


def start_of(case: Case, rng: np.random.Generator) -> tuple[SparseTensor, Array | None]:
    """The tensor that a case reads: random sites, or what a `sparse_conv` made of them."""
    c_in = case.channels[0]
    x = random_tensor(rng, case.shape, c_in, share=case.share, dtype=case.dtype)
    if case.kind != "sparse_inverse_conv":
        return x, None
    down = sparse.sparse_conv(
        x, whole(rng, (c_in, c_in, *case.kernel), case.dtype), None, case.stride, case.padding,
        case.dilation, indice_key="down",
    )  # fmt: skip
    return down.replace(whole(rng, (len(down), c_in), case.dtype)), x.indices


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_matches_dense_convolution_at_the_sites(case: Case, rng: np.random.Generator) -> None:
    x, back = start_of(case, rng)
    w = whole(rng, (case.channels[1], case.channels[0] // case.groups, *case.kernel), case.dtype)
    b = whole(rng, (case.channels[1],), case.dtype)
    sums, sites = expected(case, x, w, back)
    truth = np.maximum(sums + b.astype(np.float64), 0)
    call, problem = run(case, x, w, bias=b, activation="relu")
    able = [each.spec.name for each in dispatch.list_candidates(problem, False) if not each.reasons]
    assert able
    for kernel in able:
        with fastconv.use_kernel(kernel):
            y = call()
        assert np.array_equal(y.indices, sites) and y.indices.dtype == np.int32
        assert_exact(y.features, truth, kernel)
        assert y.batch_size == x.batch_size
    plain, _ = run(case, x, w)
    assert_exact(plain().features, sums)


def test_every_kernel_is_reached() -> None:
    """The matrix above leaves no kernel of the operator out."""
    rng, reached = np.random.default_rng(0), set()
    for case in cases():
        x, _ = start_of(case, rng)
        w = whole(
            rng, (case.channels[1], case.channels[0] // case.groups, *case.kernel), case.dtype
        )
        candidates = dispatch.list_candidates(run(case, x, w)[1], False)
        reached |= {each.spec.name for each in candidates if not each.reasons}
    assert reached == {spec.name for spec in dispatch.kernels("sparse_conv", "cpu")}


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pools_match_dense_windows(
    ndim: int, padding: int, dtype: str, rng: np.random.Generator
) -> None:
    x = random_tensor(rng, (7, 6, 5, 5)[:ndim], 5, dtype=dtype)
    kernel, stride = (3,) * ndim, (2,) * ndim
    pads, one = ((padding, padding),) * ndim, (1,) * ndim
    ones = np.ones((1, 1, *kernel))
    counts = dense_conv(occupancy(x), ones, stride, pads, one)
    sites = sites_of(counts)
    low = x.replace(x.features.astype(np.float64) - 100).dense()  # below 0, where nothing is
    each = np.eye(3**ndim).reshape(3**ndim, 1, *kernel)
    by_tap = [dense_conv(low[:, c : c + 1], each, stride, pads, one) for c in range(5)]
    largest = np.stack([np.where(taps < 0, taps, -np.inf).max(1) for taps in by_tap], 1) + 100
    eye = np.eye(5).reshape(5, 5, *one) * ones
    means = dense_conv(x.dense(), eye, stride, pads, one) / np.maximum(counts, 1)
    for function, truth in ((sparse.sparse_max_pool, largest), (sparse.sparse_avg_pool, means)):
        y = function(x, 3, 2, padding)
        assert np.array_equal(y.indices, sites)
        error = np.abs(y.features.astype(np.float64) - at_sites(truth, sites))
        assert error.max(initial=0) <= (1e-6 if dtype == "float32" else 2e-3)
        if function is sparse.sparse_max_pool:
            assert error.max(initial=0) == 0


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_global_pools(dtype: str, rng: np.random.Generator) -> None:
    sites = random_sites(rng, (9, 8), 3, 0.4)
    sites = sites[sites[:, 0] != 1]  # a grid without a site
    features = whole(rng, (len(sites), 6), dtype)
    x = SparseTensor(features, sites, (9, 8), 3)
    largest, mean = sparse.global_max_pool(x), sparse.global_avg_pool(x)
    assert largest.shape == mean.shape == (3, 6) and largest.dtype == mean.dtype == x.dtype
    assert not largest[1].any() and not mean[1].any()
    for batch in (0, 2):
        own = features[sites[:, 0] == batch].astype(np.float64)
        assert np.array_equal(largest[batch].astype(np.float64), own.max(0))
        assert_exact(mean[batch], own.mean(0))


@pytest.mark.parametrize("activation", [*ACTIVATIONS, ("leaky_relu", 0.3), ("elu", 0.5)])
def test_activations(activation: Any, rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 9), 4)
    w = rng.standard_normal((7, 4, 3, 3)).astype(np.float32)
    sums = sparse.subm_conv(x, w).features.astype(np.float64)
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    y = sparse.subm_conv(x, w, activation=activation).features
    truth = reference.activate(sums, name, alpha)
    assert np.abs(y - truth).max() <= 1e-5 * np.abs(sums).max()
    assert not np.array_equal(y, sums.astype(np.float32))


def test_both_layouts_of_a_weight(rng: np.random.Generator) -> None:
    x, w = random_tensor(rng, (6, 7, 5), 4), whole(rng, (6, 2, 3, 3, 3))
    krsc = np.ascontiguousarray(np.moveaxis(w, 1, -1))
    for function in (sparse.subm_conv, sparse.sparse_conv, sparse.sparse_conv_transpose):
        one = function(x, w, groups=2)
        other = function(x, krsc, groups=2, weight_layout="KRSC")
        assert bits(one.features) == bits(other.features)


@pytest.mark.parametrize(
    "order", ["fortran", "sliced", "negative", "transposed", "read_only", "unaligned"]
)
def test_any_strides(order: str, rng: np.random.Generator) -> None:
    sites = random_sites(rng, (8, 9), 2, 0.4).astype(np.float64)
    given = [whole(rng, (len(sites), 4)), sites, whole(rng, (6, 4, 3, 3)), whole(rng, (6, 1))]
    y, z = (
        sparse.subm_conv(SparseTensor(rows, indices.astype(np.int32), (8, 9), 2), w, b[:, 0])
        for rows, indices, w, b in (given, [strided(array, order) for array in given])
    )
    assert bits(z.features) == bits(y.features)


def strided(array: Array, order: str) -> Array:
    return memory_orders(array[None])[order][0]


def operators(rng: np.random.Generator, c: int) -> dict[str, Callable[[SparseTensor], Any]]:
    """Calls that read one tensor, with random weights."""
    w = rng.standard_normal((40, c, 3, 3, 3)).astype(np.float32)
    back = rng.standard_normal((c, 40, 3, 3, 3)).astype(np.float32)
    own = rng.standard_normal((c, 1, 3, 3, 3)).astype(np.float32)
    b = rng.standard_normal(40).astype(np.float32)

    def there_and_back(x: SparseTensor) -> SparseTensor:
        down = sparse.sparse_conv(x, w, stride=2, padding=1, indice_key="down")
        return sparse.sparse_inverse_conv(down, back, indice_key="down")

    return {
        "subm": lambda x: sparse.subm_conv(x, w, b, activation="silu"),
        "conv": lambda x: sparse.sparse_conv(x, w, b, stride=2, padding=1),
        "transpose": lambda x: sparse.sparse_conv_transpose(x, w, b, stride=2),
        "inverse": there_and_back,
        "depthwise": lambda x: sparse.subm_conv(x, own, groups=c),
        "max": lambda x: sparse.sparse_max_pool(x, 3, 2, 1),
        "avg": lambda x: sparse.sparse_avg_pool(x, 3, 2, 1),
    }


def test_same_bits_for_any_threads_runs_and_order_of_sites(rng: np.random.Generator) -> None:
    sites = random_sites(rng, (30, 40, 20), 2, 0.08)
    features = rng.standard_normal((len(sites), 24)).astype(np.float32)
    shuffled = rng.permutation(len(sites))
    threads = fastconv.get_num_threads()
    try:
        for name, function in operators(rng, 24).items():
            seen = set()
            for run_number in range(10):
                fastconv.set_num_threads(1 + run_number % 2)
                order = shuffled if run_number % 4 > 1 else slice(None)
                y = function(SparseTensor(features[order], sites[order], (30, 40, 20)))
                seen.add(bits(in_order(y)))
            assert len(seen) == 1, name
    finally:
        fastconv.set_num_threads(threads)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_corners_of_a_wide_grid(ndim: int, rng: np.random.Generator) -> None:
    size = 1 << 20
    corners = np.stack(np.meshgrid(*[[0, size - 1]] * ndim, indexing="ij"), -1).reshape(-1, ndim)
    sites = np.concatenate([np.insert(corners, 0, batch, axis=1) for batch in (0, 1)])
    x = SparseTensor(whole(rng, (len(sites), 3)), sites, (size,) * ndim, 2)
    w = whole(rng, (4, 3, *(3,) * ndim))
    y = sparse.subm_conv(x, w)
    centre = w[(..., *(1,) * ndim)]
    assert_exact(y.features, x.features.astype(np.float64) @ centre.T)
    down = sparse.sparse_conv(x, w, stride=2, padding=1)
    assert down.spatial_shape == (size // 2,) * ndim and len(down) == len(x)
    assert np.array_equal(down.indices[:, 1:].max(0), [size // 2 - 1] * ndim)


def test_one_site_meets_only_itself(rng: np.random.Generator) -> None:
    for ndim in (1, 2, 3, 4):
        x = SparseTensor(whole(rng, (1, 3)), [[0] + [2] * ndim], (5,) * ndim)
        w = whole(rng, (4, 3, *(3,) * ndim))
        truth = x.features @ w[(..., *(1,) * ndim)].T
        assert np.array_equal(sparse.subm_conv(x, w).features, truth)
        assert len(sparse.sparse_conv(x, w, padding=1)) == 3**ndim


def test_empty_tensors_give_empty_tensors() -> None:
    x = SparseTensor(np.zeros((0, 3), np.float32), np.zeros((0, 4), np.int64), (8, 8, 8), 2)
    w = np.ones((5, 3, 3, 3, 3), np.float32)
    same = sparse.subm_conv(x, w, np.ones(5, np.float32))
    down = sparse.sparse_conv(x, w, stride=2, indice_key="down")
    up = sparse.sparse_conv_transpose(x, w, stride=2)
    back = sparse.sparse_inverse_conv(down, np.ones((3, 5, 3, 3, 3), "f4"), indice_key="down")
    pools = [sparse.sparse_max_pool(x, 2), sparse.sparse_avg_pool(x, 2)]
    for y, channels, shape in (
        (same, 5, (8, 8, 8)), (down, 5, (3, 3, 3)), (up, 5, (17, 17, 17)), (back, 3, (8, 8, 8)),
        (pools[0], 3, (4, 4, 4)), (pools[1], 3, (4, 4, 4)),
    ):  # fmt: skip
        assert y.features.shape == (0, channels) and y.indices.shape == (0, 4)
        assert y.spatial_shape == shape and y.batch_size == 2
        assert y.features.dtype == np.float32 and y.indices.dtype == np.int32
    assert sparse.global_max_pool(x).shape == (2, 3) and not sparse.global_avg_pool(x).any()
    assert same.dense().shape == (2, 5, 8, 8, 8) and not same.dense().any()


def test_sites_that_no_window_reaches_give_an_empty_output() -> None:
    x = SparseTensor(np.ones((1, 1), np.float32), [[0, 7]], (8,))
    y = sparse.sparse_conv(x, np.ones((1, 1, 1), np.float32), stride=2, indice_key="none")
    assert len(y) == 0 and y.spatial_shape == (4,)
    z = sparse.sparse_inverse_conv(
        y, np.ones((2, 1, 1), "f4"), np.float32([3, 4]), indice_key="none"
    )
    assert np.array_equal(z.features, [[3, 4]]) and np.array_equal(z.indices, x.indices)


def test_explain_tells_kernels_and_rulebook(rng: np.random.Generator) -> None:
    x, w = random_tensor(rng, (9, 9), 4), whole(rng, (6, 4, 3, 3))
    told = fastconv.explain(sparse.subm_conv, x, w, indice_key="subm")
    names = {spec.name for spec in dispatch.kernels("sparse_conv", "cpu")}
    assert {row.kernel for row in told.rows} == names and told.chosen in names
    book = x.rulebooks["subm"]
    assert told.problem.line() == (
        f"sparse_conv rows{len(x)}>{len(x)} pairs{book.pairs} k3x3 ic4oc6"
    )
    assert "rulebook: submanifold, grid 9x9 > 9x9" in str(told)
    assert "weight packed in each call" in str(told)
    for name in names:
        assert name in str(told)
    pool = fastconv.explain(sparse.sparse_max_pool, x, 2)
    assert pool.problem.op == "sparse_max_pool" and "weight" not in str(pool)
    everything = fastconv.explain(sparse.global_avg_pool, x)
    assert everything.chosen and "rulebook" not in str(everything)
    assert fastconv.explain(told.problem).chosen in names
    with pytest.raises(fastconv.ArgumentError, match="subm_conv"):
        fastconv.explain(sparse.make_rulebook, x, 3)


def test_an_unfit_forced_kernel_is_refused(rng: np.random.Generator) -> None:
    x, w = random_tensor(rng, (9, 9), 4), whole(rng, (6, 4, 3, 3))
    with (
        fastconv.use_kernel("cpu.im2col_gemm"),
        pytest.raises(fastconv.NoKernelError, match="computes conv, not sparse_conv"),
    ):
        sparse.subm_conv(x, w)


def test_exact_precision_runs(rng: np.random.Generator) -> None:
    x, w = random_tensor(rng, (9, 9), 4), whole(rng, (6, 4, 3, 3))
    with fastconv.precision("exact"):
        assert np.array_equal(sparse.subm_conv(x, w).features, sparse.subm_conv(x, w).features)
