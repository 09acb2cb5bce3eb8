"""Where things lie in the memory that the checks share: a worker's table, and the shadow.

All words are int64; offsets are in bytes.
"""

from __future__ import annotations

# A worker's table.
(LOG, FLAGS, SHARED_BEGIN, SHARED_END, SHARED_COUNT, SHARED_TABLE, GLOBAL_COUNT, GLOBAL_TABLE,
 SHADOW, GRANULE, PHASE, BLOCK_PHASE, SCRATCH, COUNTERS, FLIGHT) = range(0, 15 * 8, 8)  # fmt: skip
TABLE_WORDS = 16

#: Bits of FLAGS.
RACES, UNINIT, BOUNDS, COUNTS = 1, 2, 4, 8
#: Bits above the size of an access.
WRITE, ATOMIC, COPY = 1 << 16, 1 << 17, 1 << 18

#: A granule's shadow: phases, and who it was (thread, warp phase and site in one word).
(WRITE_PHASE, WRITER, READ_PHASE, READER, OTHER_READER, ATOMIC_PHASE, CHANGER,
 IN_FLIGHT) = range(0, 64, 8)  # fmt: skip
SHADOW_BYTES = 64
