"""Log-densities of other libraries as potentials."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from energydsl._messages import described
from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Expression, Origin, as_expression, owned
from energydsl.language.potential.base import AbstractPotential
from energydsl.language.potential.density import is_density
from energydsl.language.potential.family import bound_parameters, minus_log_density
from energydsl.language.potential.support import check_support


@described
class LogDensity(AbstractPotential):
    r"""Minus a log-density: $E(x) = -\log q(x)$, or $-\log q(x \mid \theta)$.

    A plain NumPyro distribution makes one factor for each event of the view (for a Normal, each
    site), and its parameters broadcast against the view; any other object makes one factor over the
    whole view. The arrays of a distribution are parameters that learning updates; its numbers are
    constants, unless NumPyro has turned them into arrays to match another parameter's shape.

    A NumPyro family is called on the view and its parameters, given by position or name as in
    NumPyro. They are expressions: ``ed.LogDensity(dist.Normal)(x, mu, tau)`` and
    ``ed.LogDensity(dist.Bernoulli)(y, logits=X @ beta)``. Arrays among them are data.

    Args:
        distribution: a NumPyro distribution or family, or any object with a method ``log_prob``,
            such as a flowjax flow.

    Raises:
        TypeError: `distribution` has no ``log_prob``, a family is given parameters that it does not
            have, or a distribution is given parameters.
        ValueError: a parameter, or a variable used as a parameter, can be outside the family's
            constraint, or the variable has values outside the density's support.
    """

    distribution: Any

    def __check_init__(self) -> None:
        q = self.distribution
        if not callable(getattr(q, "log_prob", None)) and not _is_either(q):
            given = getattr(q, "__name__", type(q).__name__)
            raise TypeError(
                f"LogDensity got {given}, which has no log_prob; expected a NumPyro distribution "
                "or family, a flowjax flow or the like."
            )

    @property
    def name(self) -> str:
        kind = self.distribution
        named = isinstance(kind, type) or _is_either(kind)
        return f"LogDensity[{(kind if named else type(kind)).__name__}]"

    @property
    def reparametrised(self) -> bool:
        """Whether draws are differentiable functions of the parameters, as those of flows are."""
        return bool(getattr(self.distribution, "has_rsample", True))

    def energy(self, x: Array) -> Array:
        return -jnp.sum(self.distribution.log_prob(x))

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        return is_density(self.distribution, domain, shape)

    def draw(self, shape: tuple[int, ...], *given: Any, key: Array) -> Array | None:
        q = self.distribution
        if isinstance(q, dist.Distribution):
            event, batch = q.event_shape, shape[: len(shape) - len(q.event_shape)]
            return jnp.asarray(q.expand(batch).sample(key)) if batch + event == shape else None
        if not callable(getattr(q, "sample", None)):
            return None
        return q.sample(key, shape[: len(shape) - len(q.shape)])

    def __call__(self, view: Expression, *parameters: object, **named: object) -> Expression:
        q = self.distribution
        if _is_either(q):
            q, parameters, named = _parametrised(q, parameters, named)
        if isinstance(q, type):
            return minus_log_density(q, view, bound_parameters(q, parameters, named))
        if parameters or named:
            raise TypeError(
                f"{self.name} has its parameters already. To give parameters as expressions, use "
                "the family: ed.LogDensity(dist.Normal)(x, mu, tau)."
            )
        if not _is_plain(q):
            check_support(type(q).__name__, getattr(q, "support", None), as_expression(view))
            self._check_event(as_expression(view))
            return super().__call__(view)
        origin = Origin.new(type(q).__name__)
        own = {n: owned(getattr(q, n), n, origin) for n in q.get_args()}
        return minus_log_density(type(q), view, own)

    def _check_event(self, view: Expression) -> None:
        """Refuse a view whose last axes are not an event of the distribution."""
        event = getattr(self.distribution, "event_shape", ())
        if event and view.shape[-len(event) :] != event:
            raise ValueError(
                f"{self.name} got {view!s:.80}, of shape {view.shape}, but its events have shape "
                f"{event}; expected a view whose last axes have that shape."
            )


def _is_either(q: Any) -> bool:
    """Whether it is one of NumPyro's functions that make one of two families, by what is given."""
    name = getattr(q, "__name__", "")
    return isinstance(q, FunctionType) and q is getattr(dist, name, None) and name in _EITHER


_EITHER = {name.removesuffix("Logits") for name in dir(dist) if name.endswith("Logits")}


def _parametrised(q: Any, parameters: tuple, named: dict[str, Any]) -> tuple:
    """The family of probabilities or of logits, with the parameters by name."""
    signature = inspect.signature(q)
    try:
        given = {n: v for n, v in signature.bind(*parameters, **named).arguments.items()
                 if v is not None}  # fmt: skip
    except TypeError as error:
        raise TypeError(
            f"LogDensity[{q.__name__}] could not take its parameters: {error}."
        ) from None
    if ("probs" in given) == ("logits" in given):
        raise TypeError(
            f"LogDensity[{q.__name__}] got {', '.join(given) or 'no parameters'}; expected either "
            "probs= or logits=, one of the two, after the view."
        )
    family = getattr(dist, q.__name__ + ("Logits" if "logits" in given else "Probs"), None)
    if family is None:
        raise TypeError(f"LogDensity[{q.__name__}] has no probs=; expected logits=.")
    return family, (), given


def _is_plain(q: Any) -> bool:
    """Whether q is determined by its family and its parameters, without a wrapper."""
    wrapped = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution,
               dist.TransformedDistribution)  # fmt: skip
    if not isinstance(q, dist.Distribution) or isinstance(q, wrapped):
        return False
    # A family with several parametrisations (MultivariateNormal) cannot be called on all its
    # parameters at once, and a truncated family also needs a distribution.
    taken = inspect.signature(type(q).__init__).parameters.values()
    required = {p.name for p in taken if p.default is p.empty and p.name != "self"}
    return required <= set(q.get_args()) == set(type(q).arg_constraints)
