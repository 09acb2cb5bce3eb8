"""An exception that comes in the midst of a call, wherever a signal handler can raise one.

CPython runs handlers when a call of a function ends and at jumps backward. What follows must find
every lock free and every cache right: the next call computes the same bits.
"""

from __future__ import annotations

import ctypes
import dis
import functools
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import calls, dispatch, tuning
from fastconv.contract import first_use, recycling
from fastconv.kernels.cpu.runtime import jobs, pool, scratch
from fastconv.sparse import SparseTensor, make_rulebook, nn
from fastconv.sparse import calls as sparse_calls
from helpers import bits

RNG = np.random.default_rng(3)
#: Places that are all tried; of those that follow every seventh is.
ALL, STEP = 150, 7


#: What stands before the call of `__exit__` behind a with block, which itself is not cut short.
LEAVES_A_BLOCK = (
    (("LOAD_CONST", None),) * 3,
    (("LOAD_CONST", None), ("DUP_TOP", None), ("DUP_TOP", None)),
)


#: A context variable is set in C: a handler runs when that has been done, in no frame before it.
SETS_A_VARIABLE = {("LOAD_METHOD", "set"), ("LOAD_ATTR", "set")}


class Interruption(Exception):
    """What is raised."""


@functools.cache
def places(code: CodeType) -> frozenset[int]:
    """Bytecodes before which to raise: those that run handlers when they end, and those behind.

    A table tells what an exception of a bytecode unwinds. The one behind may stand under another
    entry, say because a lock is already being released there, where no handler's exception comes.
    """
    parse = getattr(dis, "_parse_exception_table", None)  # Python 3.10 has no such table
    table = parse(code) if parse else []

    def unwinds(offset: int) -> int | None:
        return next((each.target for each in table if each.start <= offset < each.end), None)

    found, before = set(), None
    seen: list[tuple[str, Any]] = []
    for each in dis.get_instructions(code):
        if parse and before is not None and unwinds(before) == unwinds(each.offset):
            found.add(each.offset)
        before = None
        if each.opname.startswith("CALL") or "JUMP_BACKWARD" in each.opname:
            before = each.offset
            if tuple(seen[-3:]) not in LEAVES_A_BLOCK and SETS_A_VARIABLE.isdisjoint(seen[-3:]):
                found.add(each.offset)
        if each.opname != "PRECALL":
            seen.append((each.opname, each.argval))
    return frozenset(found)


def interrupt(call: Callable[[], Any], at: int) -> bool:
    """Make a call and raise at one of its places, by number; tell whether it has so many."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        module = frame.f_globals.get("__name__", "")
        keeps = recycling._keep.__code__ in (frame.f_code, frame.f_back and frame.f_back.f_code)
        if not module.startswith("fastconv") or keeps:
            return None  # of what a finaliser raises nobody hears
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in places(frame.f_code):
            seen += 1
            if seen == at:
                raise Interruption
        return trace

    sys.settrace(trace)
    try:
        call()
    except Interruption:
        return True
    finally:
        sys.settrace(None)
    return False


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def dense(kernel: str, x: np.ndarray, weight: np.ndarray, **words: int) -> Callable[[], bytes]:
    """A call that packs its weight and is planned anew."""

    def call() -> bytes:
        with dispatch.use_kernel(kernel):
            return bits(fastconv.conv2d(x, weight, padding=1, **words))

    return call


def sparse() -> Callable[[], bytes]:
    """A layer over new sites: rulebook, schedule and sums."""
    features = array(40, 16)
    sites = np.argwhere(np.ones((1, 5, 8), bool)).astype(np.int32)[RNG.permutation(40)]
    layer = nn.SubMConv2d(16, 24, 3).load(array(24, 3, 3, 16), array(24))

    def call() -> bytes:
        x = SparseTensor(features, sites, (5, 8), 1)
        return bits(layer(x).features) + bits(make_rulebook(x, 3).pair_lists.pair_input)

    return call


def large() -> Callable[[], bytes]:
    """An output that lies in recycled memory."""
    x, weight = array(1, 4, 40, 40), array(8, 4, 3, 3)

    def call() -> bytes:
        return bits(fastconv.conv2d(x, weight) + 0)

    return call


X, W, H = array(1, 24, 20, 30), array(40, 24, 3, 3), np.hanning(13)[1:-1].astype(np.float32)
OUTER = np.stack([np.outer(H, H)[None]] * 2)
CALLS = {
    "winograd": dense("cpu.winograd_f4", X, W),
    "fft": dense("cpu.fft", array(1, 2, 30, 40), array(2, 2, 9, 9)),
    "separable": dense("cpu.fft", array(1, 2, 30, 40), OUTER, groups=2),
    "sparse": sparse(),
    "large": large(),
}


def assert_free(settings: tuple[Any, ...]) -> None:
    """No lock is held by this thread, and the pool serves the next caller."""
    assert dispatch.settings() == settings
    assert not first_use.is_amid()
    assert not tuning.must_not_race()
    assert len(scratch._store.free) <= 2
    started = pool._pool
    assert started is None or not busy(started)


def busy(of: pool.Pool) -> bool:
    return bool(ctypes.c_int64.from_address(of.state + 8 * jobs._BUSY).value)


@pytest.mark.parametrize("name", CALLS)
def test_the_next_call_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycling, "LARGE", 40_000)
    call = CALLS[name]
    truth = call()

    def check() -> None:
        assert call() == truth

    def planned_anew() -> None:
        calls._prepared.clear()
        sparse_calls._plans.clear()
        call()

    settings, at = dispatch.settings(), 1
    while interrupt(planned_anew if at % 2 else call, at):
        assert_free(settings)
        check()
        at += 1 if at < ALL else STEP
    assert at > 100


def test_starting_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers are started and woken by an interrupted call; none gets another's number."""
    x, weight = array(1, 32, 40, 40), array(32, 32, 3, 3)
    monkeypatch.setattr(fastconv.contract.settings.config, "num_threads", 3)
    with dispatch.use_kernel("cpu.winograd_f2"):
        truth = bits(fastconv.conv2d(x, weight))
        made = pool.Pool()
        monkeypatch.setattr(pool, "_pool", made)

        def fresh() -> None:
            made.reset()
            fastconv.conv2d(x, weight)

        settings, at = dispatch.settings(), 1
        while interrupt(fresh, at):
            assert_free(settings)
            assert bits(fastconv.conv2d(x, weight)) == truth
            at += 1 if at < ALL else STEP
    assert at > 100


def test_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = array(1, 3, 9, 9), array(4, 3, 3, 3)
    truth = bits(fastconv.conv2d(x, weight))
    monkeypatch.setattr(tuning, "_BUDGET", 0.0)

    def call() -> Any:
        monkeypatch.setattr(tuning, "_memory", tuning.Memory(None))
        calls._prepared.clear()
        return fastconv.conv2d(x, weight, tune=True)

    call()
    settings, at = dispatch.settings(), 1
    while interrupt(call, at):
        assert_free(settings)
        at += 1 if at < ALL else 10 * STEP
    assert at > 100
    np.testing.assert_allclose(call(), np.frombuffer(truth, np.float32).reshape(1, 4, 7, 7), 1e-4)
    other = threading.Thread(target=call, daemon=True)
    other.start()
    other.join(60)
    assert not other.is_alive()
