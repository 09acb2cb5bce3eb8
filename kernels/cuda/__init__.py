"""Kernels for CUDA devices, written in Numba-CUDA; `specs` lists them without importing Numba."""
