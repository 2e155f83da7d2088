"""Benchmarks: peers and ours in one run, medians and ratios. `python -m benchmarks [NAME ...]`."""
