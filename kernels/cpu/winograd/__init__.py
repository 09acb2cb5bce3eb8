"""Winograd convolution in one to three dimensions: tiles transformed, multiplied, and back."""
