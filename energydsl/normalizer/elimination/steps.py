"""The steps of an elimination: which tables each one adds, and the sites of what it leaves."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

MOST_INPUTS = 4
"""The most tables that a step adds; more are added beforehand, by steps that sum over nothing."""

WIDE = 2**11
"""The joint states of a clique from which its step is wide: its tables are arrays with axes."""


@dataclasses.dataclass
class Step:
    """The elimination of one site, or the sum of some tables if `site` is None."""

    site: int | None
    scope: tuple[int, ...]
    """The sites of the message: all of the clique but the eliminated one."""
    inputs: list[int]
    """The numbers of the tables that are added; see `Steps`."""


class Steps:
    """All steps of an elimination. Tables are numbered: those of factors first, then messages.

    Args:
        scopes: the sites of each factor's table.
        sites: the sites in the order of their elimination.
        separators: for each of them, its neighbours at that moment.
        levels: the number of levels of each site.
    """

    def __init__(
        self,
        scopes: Sequence[Sequence[int]],
        sites: Sequence[int],
        separators: Sequence[Iterable[int]],
        levels: Sequence[int],
    ) -> None:
        self.levels, self.tables, self.wide = levels, len(scopes), WIDE
        self.scopes = [tuple(scope) for scope in scopes]
        self.steps: list[Step] = []
        self._position = {site: k for k, site in enumerate(sites)}
        waiting: dict[int, list[int]] = defaultdict(list)
        for number, scope in enumerate(self.scopes):
            waiting[min(scope, key=self._position.__getitem__)].append(number)
        for site, separator in zip(sites, separators, strict=True):
            inputs = self._few(waiting.pop(site, []))
            message = self._add(site, self._sorted(separator), inputs)
            if separator:
                waiting[self.scopes[message][-1]].append(message)

    def clique(self, step: Step) -> tuple[int, ...]:
        """The sites over whose joint states a step adds its tables."""
        return step.scope if step.site is None else (step.site, *step.scope)

    def size(self, sites: Iterable[int]) -> int:
        """The number of joint states of some sites."""
        return math.prod(self.levels[i] for i in sites)

    def _sorted(self, sites: Iterable[int]) -> tuple[int, ...]:
        """The sites of a message, that which is eliminated next at the end."""
        return tuple(sorted(sites, key=self._position.__getitem__, reverse=True))

    def _add(self, site: int | None, scope: tuple[int, ...], inputs: list[int]) -> int:
        self.steps.append(Step(site, scope, inputs))
        self.scopes.append(scope)
        return len(self.scopes) - 1

    def _few(self, inputs: list[int]) -> list[int]:
        """At most `MOST_INPUTS` tables with the same sum; the smallest are added first."""
        while len(inputs) > MOST_INPUTS:
            inputs = sorted(inputs, key=lambda i: (self.size(self.scopes[i]), i))
            first = inputs[:MOST_INPUTS]
            scope = self._sorted(set().union(*(self.scopes[i] for i in first)))
            inputs = [*inputs[MOST_INPUTS:], self._add(None, scope, first)]
        return inputs
