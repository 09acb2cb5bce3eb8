"""Chains of element-wise operations, in one pass."""
