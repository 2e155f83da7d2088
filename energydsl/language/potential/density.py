"""Which log-densities are known to be normalised, and over which support.

Lists, not guesses: a family counts where its support does not depend on its parameters, a flow
where it and all that it is made of are listed. What is not listed (truncated, censored, masked,
a class or function of a user's own) is not claimed. What is claimed is drawn by the object's own
``sample``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from energydsl.language.domain import AbstractDomain

FAMILIES = {
    "AsymmetricLaplace", "BernoulliLogits", "BernoulliProbs", "Beta", "BetaProportion", "Cauchy",
    "Chi2", "Dirichlet", "Exponential", "Gamma", "GammaPoisson", "GeometricLogits",
    "GeometricProbs", "Gumbel", "HalfCauchy", "HalfNormal", "InverseGamma", "Kumaraswamy",
    "Laplace", "LogNormal", "Logistic", "LowRankMultivariateNormal", "MultivariateNormal",
    "MultivariateStudentT", "NegativeBinomial2", "NegativeBinomialLogits",
    "NegativeBinomialProbs", "Normal", "Poisson", "SoftLaplace", "StudentT", "VonMises",
    "Weibull", "Wishart",
}  # fmt: skip
"""NumPyro's, each of a fixed support."""

OF_LABELS = {"CategoricalLogits", "CategoricalProbs"}
"""NumPyro's over as many levels, from 0, as they have parameters: where they are declared, their
number is compared with that of the levels."""

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
    "Reshape", "Sandwich", "Scale", "Scan", "Stack", "TriangularAffine", "Vmap", "_LeakyTanh",
}  # fmt: skip
"""flowjax's bijections of the reals onto themselves."""

LIBRARIES = {
    "builtins", "equinox", "flowjax", "functools", "inspect", "jax", "jaxlib", "numpy", "paramax",
}  # fmt: skip
"""Whose functions and containers a listed flow may hold."""


def is_density(q: Any, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
    """Whether q, arrays aside, is normalised over values of this shape and domain."""
    if isinstance(q, dist.Distribution):
        fits = _fits(q.batch_shape + q.event_shape, shape)
        return fits and all(_is_listed(type(layer)) for layer in _layers(q)) and _on(q, domain)
    if _is_own(type(q), "flowjax.distributions"):
        fits = q.cond_shape is None and _fits(q.shape, shape)
        return fits and domain.real_line and is_made_of_listed(q)
    return False


def is_density_family(family: type[dist.Distribution], domain: AbstractDomain) -> bool:
    """The same of a NumPyro family called on one event."""
    if family.__name__ in OF_LABELS and getattr(dist, family.__name__) is family:
        return counts_from_zero(domain)
    return _is_listed(family) and _on(family, domain)


def counts_from_zero(domain: AbstractDomain, levels: int | None = None) -> bool:
    """Whether the levels are 0, 1, ..., as many as given or however many."""
    if domain.levels is None or levels not in (None, domain.levels):
        return False
    return np.array_equal(domain.values, range(domain.levels))


def _is_listed(family: type) -> bool:
    name = family.__name__
    return name in FAMILIES | WRAPPERS and getattr(dist, name) is family


def _layers(q: Any) -> Iterator[Any]:
    """A distribution and what it wraps."""
    yield q
    if type(q).__name__ in WRAPPERS:
        yield from _layers(q.base_dist)


def _on(q: Any, domain: AbstractDomain) -> bool:
    """Whether the support of q, entry by entry, is the domain."""
    support = q.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support == constraints.boolean:
        return counts_from_zero(domain, 2)
    return domain.constraint is not None and support == domain.constraint


def _fits(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether log_prob of values of this shape has each of them once."""
    return len(own) <= len(shape) and all(
        a in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False)
    )


def is_made_of_listed(flow: Any) -> bool:
    """Whether flowjax's listed classes and the libraries' own functions are all that it holds.

    Looks into fields, static ones too, and into what functions have closed over.
    """
    left, seen = [flow], set()
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if not _is_known(part):
            return False
        left.extend(_parts(part))
    return True


def _is_known(part: Any) -> bool:
    kind = type(part)
    home = getattr(part, "__module__", None) or kind.__module__
    if home.partition(".")[0] not in LIBRARIES:
        return False
    if not kind.__module__.startswith("flowjax."):
        return True
    names = FLOW_BASES if kind.__module__ == "flowjax.distributions" else FLOW_STEPS
    return kind.__name__ in names and _is_own(kind, kind.__module__)


def _is_own(kind: type, module: str) -> bool:
    """Whether a class is the one that the module holds under its name."""
    return kind.__module__ == module and getattr(sys.modules[module], kind.__name__, None) is kind


def _parts(part: Any) -> Iterable[Any]:
    """What an object is made of."""
    match part:
        case dict():
            return part.values()
        case list() | tuple() | set() | frozenset():
            return part
        case functools.partial():
            return (part.func, *part.args, *part.keywords.values())
        case types.FunctionType():
            return (*inspect.getclosurevars(part).nonlocals.values(), *(part.__defaults__ or ()))
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return [getattr(part, f.name) for f in dataclasses.fields(part) if hasattr(part, f.name)]
    # Equinox's and JAX's wrappers of a function, such as of one with a derivative of its own.
    return [inner for name in ("fn", "fun", "__wrapped__") if (inner := getattr(part, name, None))]
