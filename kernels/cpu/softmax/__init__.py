"""Softmax and its logarithm, along any axis."""
