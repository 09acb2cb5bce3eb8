"""Sparse convolution: features at the active sites of a grid, and nothing anywhere else.

Names are loaded when they are first used.
"""
