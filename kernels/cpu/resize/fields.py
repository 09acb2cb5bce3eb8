"""What the machine code of resizing reads of a problem, and how it takes a task apart."""

from __future__ import annotations

from ..runtime.record import as_record

__all__ = ["FIELDS", "REALS", "view"]

#: Sizes of the record are those of the array that is read (i) and of the one that is written (o).
FIELDS = (
    "planes",  # of an image: channels, or one where these are interleaved
    "xp",  # bytes between planes
    "yp",
    "interleaved",  # channels that lie side by side in a row or in a pixel
    "align",  # whether corners are aligned
    "span",  # elements of a segment of a row
    "segments",
    "plane_block",  # of a task; then how many blocks there are
    "plane_blocks",
    "row_block",
    "row_blocks",
    "segment_block",
    "segment_blocks",
    "column_table",  # addresses of tables that the plan holds, 0 where there is none
    "row_table",
    "depth_table",
    "segment_bytes",  # of a segment's table of columns
    "record_bytes",  # of a vector of columns
    "column_entry",  # bytes of an axis' entries
    "row_entry",
    "depth_entry",
    "worker_bytes",  # then places in a worker's memory
    "buffers_at",  # blended rows
    "buffer_bytes",
    "list_at",  # rows to be blended
    "row_at",  # entries that no table has
    "depth_at",
    "columns_at",
    "entries_at",
    "result_at",  # what is written at a stride, or summed up in parts
)
#: Samples of the resized array from one output to the next.
REALS = ("step_d", "step_h", "step_w")
view = as_record(FIELDS, REALS)
