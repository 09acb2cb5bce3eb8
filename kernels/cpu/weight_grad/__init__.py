"""Gradient of a dense convolution for its weight."""
