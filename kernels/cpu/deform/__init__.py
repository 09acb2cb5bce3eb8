"""Deformable convolution of dense arrays."""
