"""Rulebooks on a GPU: hashes, sorts and scans with the same bits in any order of threads."""
