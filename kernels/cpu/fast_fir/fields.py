"""The geometry of plan.py in machine code: what its tasks read from the record."""

from __future__ import annotations

from ..common.epilogue import EPILOGUE_FIELDS
from ..runtime.record import as_record

__all__ = ["FIELDS", "view"]

FIELDS = (
    *EPILOGUE_FIELDS,
    "m1", "m2", "n1", "n2",  # phases and products of the two axes
    "taps_h", "taps_w",  # taps of one phase
    "tile_rows", "tile_bytes",  # register tile
    "rows", "in_rows", "cols", "in_cols", "blocks_h", "blocks_w",  # see Sizes
    "split", "join", "input_1", "input_2", "output_1", "output_2", "tile",  # addresses
    "transform",  # address of the weights' transform
    "in_place",  # 1: input rows can be read where they lie
    "span",  # elements of a signal under a block
    "lines_at", "products_at", "sums_at", "row_at", "scratch_at", "signal_at", "worker_bytes",
    "pack_plane", "pack_worker_bytes",  # the weight packer's: one phase of the taps, all of them
)  # fmt: skip
view = as_record(FIELDS)
