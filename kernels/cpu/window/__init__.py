"""Depthwise and direct convolution: sums stay in registers while input rows or pixels pass by."""
