"""The log-densities that are known to be normalised, and their supports.

They are listed by name: families whose support does not depend on their parameters, and the
building blocks of flows. A flow is accepted if it consists of listed parts only. Everything else
(truncated, censored or masked distributions, classes and functions defined by the user) is treated
as unnormalised. Draws of a normalised density come from the object's own ``sample``.
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
"""NumPyro families with a fixed support."""

OF_LABELS = {"CategoricalLogits", "CategoricalProbs"}
"""NumPyro families over the levels 0, 1, ..., as many as their parameter vector has entries; that
number is compared with the variable's number of levels when the factor is made."""

WRAPPERS = {"ExpandedDistribution", "Independent"}
"""NumPyro wrappers, which are normalised if the wrapped distribution is."""

FLOW_BASES = {
    "Cauchy", "Gumbel", "Laplace", "Logistic", "MultivariateNormal", "Normal", "StandardNormal",
    "StudentT", "Transformed",
}  # fmt: skip
"""flowjax distributions over all real vectors."""

FLOW_STEPS = {
    "Affine", "BlockAutoregressiveNetwork", "Chain", "Concatenate", "Coupling", "DiscreteCosine",
    "Flip", "Householder", "Identity", "Indexed", "Invert", "LeakyTanh", "Loc",
    "MaskedAutoregressive", "NumericalInverse", "Permute", "Planar", "RationalQuadraticSpline",
    "Reshape", "Sandwich", "Scale", "Scan", "Stack", "TriangularAffine", "Vmap", "_LeakyTanh",
}  # fmt: skip
"""flowjax bijections of real space onto itself."""

LIBRARIES = {
    "builtins", "equinox", "flowjax", "functools", "inspect", "jax", "jaxlib", "numpy", "paramax",
}  # fmt: skip
"""The libraries whose functions and containers a listed flow may contain."""


def is_density(q: Any, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
    """Whether q is normalised over values of this shape and domain, whatever its arrays are."""
    if isinstance(q, dist.Distribution):
        fits = _fits(q.batch_shape + q.event_shape, shape)
        return fits and all(_is_listed(type(layer)) for layer in _layers(q)) and _on(q, domain)
    if _is_own(type(q), "flowjax.distributions"):
        fits = q.cond_shape is None and _fits(q.shape, shape)
        return fits and domain.real_line and is_made_of_listed(q)
    return False


def is_density_family(family: type[dist.Distribution], domain: AbstractDomain) -> bool:
    """Whether a NumPyro family, called on one event, is normalised over values of the domain."""
    if family.__name__ in OF_LABELS and getattr(dist, family.__name__) is family:
        return counts_from_zero(domain)
    return _is_listed(family) and _on(family, domain)


def counts_from_zero(domain: AbstractDomain, levels: int | None = None) -> bool:
    """Whether the domain's levels are 0, 1, 2, ..., and their number is `levels` if given."""
    if domain.levels is None or levels not in (None, domain.levels):
        return False
    return np.array_equal(domain.values, range(domain.levels))


def _is_listed(family: type) -> bool:
    name = family.__name__
    return name in FAMILIES | WRAPPERS and getattr(dist, name) is family


def _layers(q: Any) -> Iterator[Any]:
    """A distribution, and the distributions inside its wrappers."""
    yield q
    if type(q).__name__ in WRAPPERS:
        yield from _layers(q.base_dist)


def _on(q: Any, domain: AbstractDomain) -> bool:
    """Whether each entry of a value of q has the domain as its support."""
    support = q.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support == constraints.boolean:
        return counts_from_zero(domain, 2)
    return domain.constraint is not None and support == domain.constraint


def _fits(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether log_prob of a value of this shape includes each of its events exactly once."""
    return len(own) <= len(shape) and all(
        a in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False)
    )


def is_made_of_listed(flow: Any) -> bool:
    """Whether a flow consists only of listed flowjax classes and of functions of the libraries.

    This examines all fields, including static ones, and the values that functions close over.
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
    """Whether the class is the one that its module defines under its name."""
    return kind.__module__ == module and getattr(sys.modules[module], kind.__name__, None) is kind


def _parts(part: Any) -> Iterable[Any]:
    """The parts of an object."""
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
    # Equinox and JAX wrap functions, such as those with a custom derivative.
    return [inner for name in ("fn", "fun", "__wrapped__") if (inner := getattr(part, name, None))]
