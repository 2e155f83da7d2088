"""Which log-densities are known to be normalised, and over which support.

Lists, not guesses: a family counts where its support does not depend on its parameters, and what
is not listed (truncated, censored, masked, user-made) is not claimed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import numpyro.distributions as dist

from energydsl.language.domain import AbstractDomain, Binary, Categorical

FAMILIES = {
    "AsymmetricLaplace", "Beta", "BetaProportion", "Cauchy", "Chi2", "Dirichlet", "Exponential",
    "Gamma", "Gumbel", "HalfCauchy", "HalfNormal", "InverseGamma", "Kumaraswamy", "Laplace",
    "LogNormal", "Logistic", "LowRankMultivariateNormal", "MultivariateNormal",
    "MultivariateStudentT", "Normal", "SoftLaplace", "StudentT", "VonMises", "Weibull",
}  # fmt: skip
"""NumPyro's, each of a fixed support."""

DISCRETE: dict[str, type[AbstractDomain]] = {
    "BernoulliLogits": Binary,
    "BernoulliProbs": Binary,
    "CategoricalLogits": Categorical,
    "CategoricalProbs": Categorical,
}
"""NumPyro's whose support is a finite domain, of as many levels as they have parameters."""

WRAPPERS = {"ExpandedDistribution", "Independent"}
"""NumPyro's, which stay normalised if what they wrap is."""

FLOW_BASES = {
    "Cauchy", "Gumbel", "Laplace", "Logistic", "MultivariateNormal", "Normal", "StandardNormal",
    "StudentT", "Transformed",
}  # fmt: skip
"""flowjax's distributions over all reals."""

FLOW_STEPS = {
    "Affine", "BlockAutoregressiveNetwork", "Chain", "Concatenate", "Coupling", "DiscreteCosine",
    "Flip", "Householder", "Identity", "Indexed", "Invert", "LeakyTanh", "Loc",
    "MaskedAutoregressive", "NumericalInverse", "Permute", "Planar", "RationalQuadraticSpline",
    "Reshape", "Sandwich", "Scale", "Scan", "Stack", "TriangularAffine", "Vmap",
}  # fmt: skip
"""flowjax's bijections of the reals onto themselves."""


def is_density(q: Any, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
    """Whether q, arrays aside, is normalised over values of this shape and domain."""
    if domain.discrete:
        return False
    if isinstance(q, dist.Distribution):
        fits = _fits(q.batch_shape + q.event_shape, shape)
        return fits and all(_is_listed(type(layer)) for layer in _layers(q)) and _on(q, domain)
    if type(q).__module__ == "flowjax.distributions":
        fits = q.cond_shape is None and _fits(q.shape, shape)
        return fits and domain.real_line and all(map(_is_real_flow, _modules(q)))
    return False


def is_density_family(family: type[dist.Distribution], domain: AbstractDomain) -> bool:
    """The same of a NumPyro family called on one event."""
    name = family.__name__
    if domain.discrete:
        return DISCRETE.get(name) is type(domain) and getattr(dist, name) is family
    return _is_listed(family) and _on(family, domain)


def _is_listed(family: type) -> bool:
    name = family.__name__
    return name in FAMILIES | WRAPPERS and getattr(dist, name) is family


def _layers(q: Any) -> Iterator[Any]:
    """A distribution and what it wraps."""
    yield q
    if type(q).__name__ in WRAPPERS:
        yield from _layers(q.base_dist)


def _on(q: Any, domain: Any) -> bool:
    """Whether the support of q, entry by entry, is the domain."""
    support = q.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support == domain.constraint


def _fits(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether log_prob of values of this shape has each of them once."""
    return len(own) <= len(shape) and all(
        a in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False)
    )


def _modules(tree: Any) -> Iterator[Any]:
    """Every flowjax object inside one; those that a network's output fills, too."""
    mine = type(tree).__module__.startswith("flowjax.")
    if mine:
        yield tree
    constructor = getattr(tree, "transformer_constructor", None)
    if mine and constructor is not None:
        yield from _modules(inspect.getclosurevars(constructor).nonlocals.get("static"))
    for child in jax.tree.leaves(tree, is_leaf=lambda node: node is not tree):
        if child is not tree:
            yield from _modules(child)


def _is_real_flow(module: Any) -> bool:
    known = {"flowjax.distributions": FLOW_BASES}
    kind = type(module)
    return kind.__name__ in known.get(kind.__module__, FLOW_STEPS)
