"""Exact sums over the joint states of sites that interact, by eliminating one site after another.

`order` searches for an order in which to eliminate the sites; `steps` says which tables each
elimination adds; `batches` groups like steps; `schedule` turns them into index arrays; `passes`
carries these out; `rule` offers the method to the compiler.
"""
