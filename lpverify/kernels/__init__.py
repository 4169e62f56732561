"""Numerical kernels: the same function for NumPy and torch arrays."""
