"""Vectors: the Numba type and its LLVM, functions that kernels call, register tiles by ISA."""
