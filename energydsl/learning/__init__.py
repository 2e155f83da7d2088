"""Learning from data: the loop, the data, the optimizer, the likelihood, and objectives."""
