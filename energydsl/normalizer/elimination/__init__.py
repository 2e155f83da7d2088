"""Exact sums over the joint states of sites that interact, by eliminating one site after another.

`order` searches for an order in which to eliminate the sites; `schedule` turns it into batches of
like steps on the factors' tables; `passes` carries these out; `rule` offers the method to the
compiler.
"""
