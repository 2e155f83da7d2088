"""What is found in a model: its factors, their graph and degrees, its structure, its conditionals.

Here, too, is what several later stages need of it: the evaluation of factors, joint states, layers
that are summed out, and unconstrained coordinates.
"""
