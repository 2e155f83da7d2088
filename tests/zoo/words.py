"""The check that the words of a zoo model are about the numbers that it returns."""

from energydsl.cli.terminal import plain
from energydsl.cli.words import told


def check_words(model, numbers, *, without=()):
    """Assert that each word of a model is printed, but for those that this run does not have."""
    said = told(plain(numbers), model.WORDS)
    printed = said.keys() | {w for case in said.values() if isinstance(case, dict) for w in case}
    assert model.WORDS.keys() - printed == set(without)
