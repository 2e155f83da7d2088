"""Numerical integration over one to three real coordinates.

An integral is found in this order: the integrand (`integrand`), where to look (`landmarks`), its
modes (`modes`), the sum over cells about them (`cubature`), and the value with its error (`rule`).
"""
