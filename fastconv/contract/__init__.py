"""All that kernels may know of the library.

What is computed (`problem`, `sparse_problem`, `geometry`, the data of a `rulebook`), how a kernel
says what it can do (`spec`), the machine (`cpu`, `processors`), settings, errors, and what keeps
first use, disk and memory safe. Nothing here imports a kernel, a compiler or what stands above:
kernels import this package and each other, the rest of the library imports both.

A test reads every import and fails on one against that order.
"""
