"""Exact sums over the joint states of sites that interact, by eliminating one site after another.

`order` searches for an order in which to eliminate the sites, and `anneal` makes it better; `steps`
says which tables each elimination adds; `batches` groups like steps, and `blocks` finds those that
repeat; `layout` arranges the tables of wide steps, and `arena` the messages between them;
`schedule` turns all of this into index arrays; `passes` carries these out, with `narrow` and `wide`
for the two sorts of steps, in numbers where `spread` shows that these suffice; `search` finds the
orders of all components and their costs; `finite_sum` is the sum over finite sites whatever their
tables come from, and `slices` the same for each joint state of the sites that `cut` holds, where
memory is short; `rule` offers the method to the compiler.
"""
