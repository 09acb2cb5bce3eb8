"""Sparse operators on CUDA: masked implicit GEMM, depthwise, pools and gradients."""
