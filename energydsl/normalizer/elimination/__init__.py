"""Exact sums over the joint states of sites that interact, by eliminating one site after another.

`order` searches for an order in which to eliminate the sites; `steps` says which tables each
elimination adds; `batches` groups like steps; `schedule` turns them into index arrays; `passes`
carries these out; `search` finds the orders of all components and their costs; `finite_sum` is the
sum over finite sites whatever their tables come from; `rule` offers the method to the compiler.
"""
