"""CUDA: kernels in Numba-CUDA, and the emulator that runs them on machines that have no GPU."""
