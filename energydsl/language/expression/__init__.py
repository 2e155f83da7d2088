"""Expressions: the tree that an energy is written as, its vocabulary, the range of its values."""
