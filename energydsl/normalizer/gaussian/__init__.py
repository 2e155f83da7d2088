"""Gaussian integrals: quadratic energies of real sites, by dense and by sparse matrices."""
