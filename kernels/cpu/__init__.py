"""Kernels for the CPU, written in Numba with explicit vectors."""
