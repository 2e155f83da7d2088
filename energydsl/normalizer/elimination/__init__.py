"""Exact sums over the joint states of sites that interact, by eliminating one site after another.

`tables` computes the energies of factors at every joint state of their sites; `order` searches for
an order in which to eliminate the sites; `schedule` turns an order into batches of like steps;
`passes` carries these out; `rule` offers the method to the compiler.
"""
