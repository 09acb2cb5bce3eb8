"""The largest kernels: blocks of the output through SciPy's Fourier transforms."""
