"""Operators beside the convolution, one file a family."""
