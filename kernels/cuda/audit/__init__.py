"""Machine code without a GPU: compiled for seven architectures and held against its bars."""
