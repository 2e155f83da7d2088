"""What the program that computes an energy tells before it is run.

Its text holds numbers, near which modes may lie, and it shows how much memory one evaluation takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core as jex
from numpyro.distributions.transforms import IdentityTransform

from energydsl._types import is_traced
from energydsl.language.model import Model
from energydsl.normalizer.quadrature.integrand import Surface

SMALL = 64
"""Arrays of the model with more numbers than this hold no locations."""

CHUNK = 2**17
"""The most numbers held in memory at once, over all points that are evaluated together."""


def text_of(surface: Surface, model: Model) -> Any:
    """The program that computes U at one point of each problem."""
    arrays, rest = eqx.partition(model, eqx.is_array)
    at = jnp.zeros((surface.count, surface.dim))
    return jax.make_jaxpr(lambda a, z: surface(eqx.combine(a, rest), z)[0])(arrays, at)


def width_of(text: Any) -> int:
    """How many points to evaluate at once: a power of two, so that CHUNK numbers are held."""
    outputs = [v for program in _programs(text) for e in _plain(program).eqns for v in e.outvars]
    held = max(sum(int(np.prod(getattr(v.aval, "shape", ()))) for v in outputs), 1)
    return int(2 ** np.clip(np.log2(CHUNK / held) // 1, 0, 20))


def landmarks(surface: Surface, model: Model, text: Any, most: int) -> Array:
    """Numbers near which modes may lie, in unconstrained coordinates.

    They are those in the model's small arrays, those that are written in the text of its energy,
    and 0; in domains with bounds, also the coordinates of values that are such numbers.

    Args:
        surface: of the components.
        model: whose energy it is.
        text: of that energy, see `text_of`.
        most: numbers that are taken, the first ones.
    """
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    small = [a for a in leaves if jnp.issubdtype(a.dtype, jnp.floating) and a.size <= SMALL]
    written = sorted({x for x in _written(text) if np.isfinite(x)})
    numbers = jnp.concatenate(
        [*(lax.stop_gradient(a).ravel() for a in small), jnp.asarray([*written, 0.0])]
    )[:most]
    bijections = [t for t in surface.transforms if not isinstance(t, IdentityTransform)]
    numbers = jnp.concatenate([numbers, *(t.inv(numbers) for t in bijections)])
    return jnp.where(jnp.isfinite(numbers), numbers, 0.0)


def _written(text: Any) -> Iterator[float]:
    """The numbers in the text of a program and of all that it calls."""
    for program in _programs(text):
        for constant in getattr(program, "consts", ()):
            if _is_few_known_reals(constant):
                yield from (float(x) for x in np.asarray(constant).ravel())
        for eqn in _plain(program).eqns:
            for x in eqn.invars:
                if isinstance(x, jex.Literal) and np.ndim(x.val) == 0:
                    yield float(x.val)


def _programs(text: Any) -> Iterator[Any]:
    """A program and all that it calls, each with its constants where it has any."""
    yield text
    for eqn in _plain(text).eqns:
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from _programs(inner)


def _is_program(x: Any) -> bool:
    return isinstance(x, jex.Jaxpr) or isinstance(getattr(x, "jaxpr", None), jex.Jaxpr)


def _plain(program: Any) -> jex.Jaxpr:
    """The program without its constants."""
    return program if isinstance(program, jex.Jaxpr) else program.jaxpr


def _is_few_known_reals(value: Any) -> bool:
    return (
        not is_traced(value)
        and np.size(value) <= SMALL
        and np.issubdtype(np.asarray(value).dtype, np.floating)
    )
