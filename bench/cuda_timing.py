"""Time of a call on a GPU: events around it, the L2 cache flushed before it.

    host     flush  record  call: launch, launch  record  wait
    device   [ writes a buffer larger than the L2 ][ kernel ][ kernel ]
                                                   ^ start           ^ end

A call only queues work. The device must still be busy with the flush when the last of that work
is queued, else the time between the events would hold its waiting for the host; so the flush is
repeated until it outlasts the host's part. What is told is the device's time: a program that
queues work ahead sees it, and one that waits for each call sees the host's part too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from .peer import Call

__all__ = ["CudaTimer", "CupyEvents", "Events", "TorchEvents"]

#: The buffer that is written to flush the cache is so many times as large.
_CACHES = 2
_LEAST_BYTES = 64 << 20
#: Where a call waits for the device itself, no flush outlasts it.
_MOST_FLUSHES = 64


class Events(Protocol):
    """What timing needs of a library, all of it on the library's current stream."""

    def flush(self) -> None:
        """Queue the writing of a buffer larger than the L2 cache."""

    def record(self) -> Any:
        """Queue an event and return it."""

    def seconds(self, start: Any, end: Any) -> float:
        """Return the time between two events that have passed."""

    def synchronize(self) -> None:
        """Wait for all that was queued."""


class CudaTimer:
    """Time calls on a GPU.

    Parameters
    ----------
    events : Events
        The library whose current stream the calls go to.
    clock : callable
        The host's clock, in seconds.
    """

    def __init__(self, events: Events, clock: Callable[[], float] = time.perf_counter) -> None:
        self._events = events
        self._clock = clock
        self._flushes = 1

    def seconds(self, call: Call) -> float:
        """Run a call with a cold cache and return the device's time, in seconds."""
        events = self._events
        while True:
            begin = events.record()
            for _ in range(self._flushes):
                events.flush()
            start = events.record()
            before = self._clock()
            call()
            host = self._clock() - before
            end = events.record()
            events.synchronize()
            if events.seconds(begin, start) > host or self._flushes >= _MOST_FLUSHES:
                return events.seconds(start, end)
            self._flushes *= 2


def _buffer_bytes(cache: int) -> int:
    return max(_CACHES * cache, _LEAST_BYTES)


class CupyEvents:
    """CuPy's events on its current stream."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        cache = cupy.cuda.Device().attributes["L2CacheSize"]
        self._buffer = cupy.empty(_buffer_bytes(cache), "uint8")

    def flush(self) -> None:
        """Queue the writing of a buffer larger than the L2 cache."""
        self._buffer.data.memset_async(0, self._buffer.nbytes)

    def record(self) -> Any:
        """Queue an event and return it."""
        event = self._cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Return the time between two events that have passed."""
        return float(self._cupy.cuda.get_elapsed_time(start, end)) / 1e3

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._cupy.cuda.get_current_stream().synchronize()


class TorchEvents:
    """PyTorch's events on its current stream."""

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._buffer = torch.empty(_buffer_bytes(cache), dtype=torch.uint8, device="cuda")

    def flush(self) -> None:
        """Queue the writing of a buffer larger than the L2 cache."""
        self._buffer.zero_()

    def record(self) -> Any:
        """Queue an event and return it."""
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Return the time between two events that have passed."""
        return float(start.elapsed_time(end)) / 1e3

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._torch.cuda.current_stream().synchronize()
