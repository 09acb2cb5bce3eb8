"""Pools over windows of dense arrays."""
