"""Implicit GEMM on CUDA: a matrix product in tiles whose right side is never built; dilated too."""
