"""The numbers that the kernels of pools read, beside those that every record has."""

from __future__ import annotations

from ..runtime.record import as_record

__all__ = ["FIELDS", "REALS", "view"]

FIELDS = (
    "units",  # what is handed out, one behind the other
    "block",  # units of a task
    "pieces",  # of an output row, or of a pixel's channels
    "piece",  # outputs or channels of one
    "with_pads",  # whether a mean counts the padding
    "divisor",  # of every mean, 0 where it is counted
    "window",  # taps
    "exact",  # whether means divide by one power of two, whose reciprocal is `factor`
    "clipped",  # whether a window of a norm may reach beyond the padded input
    "shares_at",  # where in a worker's memory the column shares lie,
    "joined_at",  # and the columns of windows of unequal widths
    "row_pad",  # zeros on both sides of a row of shares
    "worker_bytes",
    "full_from",  # the first row of outputs whose windows have all their rows,
    "full_to",  # and the one behind the last
    "plane",  # samples of a channel
)
REALS = ("power", "factor")
view = as_record(FIELDS, REALS)
