"""Convolution by a tile that reads the input in place by a table of offsets; nothing is packed."""
