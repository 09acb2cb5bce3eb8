"""What all CUDA kernels share: vectors, the table of steps, epilogue, plans and their launch."""
