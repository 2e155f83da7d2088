"""Models of what was there before noise was added: the noisy values and the noise are inputs."""

from __future__ import annotations

from collections.abc import Iterable

from energydsl.language.domain import Real
from energydsl.language.expression import Expression, View, substituted
from energydsl.language.model import Model, over
from energydsl.language.variable import Variable


def centre(variable: Variable) -> Variable:
    """The input with the noisy values of a variable."""
    return Variable(f"{variable.name} noisy", Real(), variable.shape, given=True)


def spread(variable: Variable) -> Variable:
    """The input with the standard deviation of the noise of each site."""
    return Variable(f"{variable.name} noise", Real(), variable.shape, given=True)


def noised(model: Model, variables: Iterable[Variable]) -> Model:
    r"""The model given noisy values $\tilde x = x + \sigma \xi$, in units of the noise.

    A real variable of the result stands for $u = (x - \tilde x) / \sigma$. Its energy is
    $E(\tilde x + \sigma u) + \lVert u \rVert^2 / 2$, so that $x = \tilde x + \sigma u$ has the
    distribution $p(x \mid \tilde x)$.
    """
    replaced: dict[str, Expression] = {}
    terms = []
    for v in variables:
        view = View.of(v)
        replaced[v.name] = View.of(centre(v)) + View.of(spread(v)) * view
        terms.append((view**2).sum() / 2)
    return over(sum(terms, substituted(model.expression, replaced)), model)
