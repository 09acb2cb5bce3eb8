"""Resizing by interpolation, and its gradient."""
