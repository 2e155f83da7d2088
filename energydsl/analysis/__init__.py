"""Analysis of models: factors, their interaction graph and degrees, and conditional distributions.

This folder also has what several later stages use: the evaluation of factors, enumeration of joint
states, layers that are summed out, and unconstrained coordinates.
"""
