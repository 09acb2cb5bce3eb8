"""Convolution as a matrix product over packed panels: im2col, pixels as rows, dilated."""
