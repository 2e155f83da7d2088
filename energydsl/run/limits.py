"""Limits of the arguments of a run: counts, and the memory of draws."""

from __future__ import annotations

import os

import numpy as np

from energydsl._messages import brief


def check_counts(function: str, least: int, **counts: int) -> None:
    """Raise ValueError unless each is a whole number of at least `least`."""
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or count < least:
            raise ValueError(
                f"{function} got {name}={brief(count)}; expected a whole number of at least "
                f"{least}."
            )


def check_memory(draws: int, size: int) -> None:
    """Refuse draws that the memory of this machine cannot hold."""
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ValueError(
            f"sample got draws={draws:,}, which take {size / 1e9:,.3g} GB; this machine has "
            f"{memory / 1e9:,.3g} GB. Keep functions of the configurations in place of them, such "
            'as keep={"m": lambda x: x["s"].mean()}, or every k-th one by thin=k, or fewer draws.'
        )
