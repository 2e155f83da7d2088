"""Exact answers in NumPy and SciPy, sharing no code with the package they judge."""
