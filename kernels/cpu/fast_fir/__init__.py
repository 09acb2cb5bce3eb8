"""Large kernels in phases, whose products are shorter correlations (fast FIR)."""
