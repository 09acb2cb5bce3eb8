"""Sparse operators: rows that meet by a rulebook, gathered into products, pools, gradients."""
