"""Merging of like terms: a sum written term by term, in a Python loop, becomes a batch.

The form of a term is the term without positions and numbers: its operations, shapes and functions,
and the variables and parameters that it uses. Terms of one form differ only in some of the nodes of
their trees; the nodes of all terms at one place of the form are a *column*. A column of elements
picked from one array becomes one pick, a column of numbers one array, and a column of arrays a
stack; the operations are applied along a new first axis. A value that several terms share remains
one value and is never copied, so parameters that were tied remain tied.
"""

from energydsl.language.merge.terms import FEW, merge_like_terms

__all__ = ["FEW", "merge_like_terms"]
