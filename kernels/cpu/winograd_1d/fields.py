"""The geometry of plan.py in machine code: what its tasks read from the record."""

from __future__ import annotations

from ..common.epilogue import EPILOGUE_FIELDS
from ..common.padded_rows import BAND_FIELDS
from ..runtime.record import as_record

__all__ = ["FIELDS", "view"]

FIELDS = (
    *EPILOGUE_FIELDS,
    *BAND_FIELDS,  # of V: its channels, planes and rows
    "piece_step",  # bytes of V from a piece of the taps to the next
    "block_bytes",  # of V, and of U: one step
    "block_samples",  # samples from one block of tiles to the next
    "overhang",  # samples of a row beyond those of its blocks
    "band_rows",  # output rows of one task
    "bands",  # tasks along the output height
    "band_pixels",  # output pixels of a row in one task, whole blocks
    "columns",  # tasks across an output row
    "panels",  # of output channels
    "table",  # address of the steps' offsets in V
    "steps",
    "tiles",  # address of the register tile
    "split",  # address of the transform of the input
    "weight_row",  # address of the transform of the weight
    "weight_is_contiguous",  # 1: a filter's channels and taps are contiguous
    "rows_are_channels",  # 1: the rows of a tile are output channels, else pixels
    "row_step",  # bytes of the output from a row of a tile to the next, and from a lane
    "lane_step",
    "row_residual",
    "lane_residual",
    "worker_bytes",
    "row_at",  # a padded row
    "sums_at",
    "scratch_at",
    "pack_worker_bytes",
)
view = as_record(FIELDS)
