"""Finite sites beside real ones in which the energy is quadratic, given the finite ones.

`blocks` finds the real sites that are connected with each other, and the finite sites about them;
`integrals` integrates the blocks in each state of these sites; `rule` sums over the finite sites.
"""
