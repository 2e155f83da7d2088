"""A smaller case that fails in the same way."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from tests.fuzz.case import Algebra, Case
from tests.fuzz.recipe import Node, View, replaced, walk


def shrink(case: Case, fails: Callable[[Case], bool], seconds: float) -> Case:
    """The smallest case found in the time given, by dropping one part after another."""
    end = time.monotonic() + seconds
    found = True
    while found and time.monotonic() < end:
        found = False
        for smaller in smaller_cases(case):
            if time.monotonic() > end:
                break
            if fails(smaller):
                case, found = smaller, True
                break
    return case


def smaller_cases(case: Case) -> Iterator[Case]:
    """Cases with one part left out, the boldest first."""
    for body in smaller_models(case.body):
        yield _fitted(dataclasses.replace(case, body=body))
    for k in range(len(case.held)):
        yield dataclasses.replace(case, held=case.held[:k] + case.held[k + 1 :])
    if case.budget is not None:
        yield dataclasses.replace(case, budget=None)
    if case.view is not None and not isinstance(case.view, View):
        yield dataclasses.replace(case, view=case.view.args[0])


def _fitted(case: Case) -> Case:
    """Without what speaks of variables that are gone."""
    names = {s.name for s in case.sites}

    def known(view: Node) -> bool:
        return {n.site.name for n in walk(view) if isinstance(n, View)} <= names

    view = case.view if case.view is not None and known(case.view) else None
    held = tuple(pair for pair in case.held if known(pair[0]))
    return dataclasses.replace(case, view=view, held=held)


def smaller_models(model: Algebra) -> Iterator[Algebra]:
    if model.kind != "terms":
        yield from model.parts
        for k, part in enumerate(model.parts):
            for smaller in smaller_models(part):
                yield dataclasses.replace(
                    model, parts=(*model.parts[:k], smaller, *model.parts[k + 1 :])
                )
        return
    for k in range(len(model.parts) if len(model.parts) > 1 else 0):
        yield dataclasses.replace(model, parts=model.parts[:k] + model.parts[k + 1 :])
    for k, term in enumerate(model.parts):
        for smaller in smaller_terms(term):
            yield dataclasses.replace(
                model, parts=(*model.parts[:k], smaller, *model.parts[k + 1 :])
            )


def smaller_terms(term: Node) -> Iterator[Node]:
    """Terms with one node replaced by an operand of the same shape, from the top down."""
    for node in reversed(list(walk(term))):
        for child in node.args:
            if child.shape == node.shape and any(isinstance(n, View) for n in walk(child)):
                yield replaced(term, node, child)
