"""An energy given by a neural network."""

from __future__ import annotations

from typing import Any

from jax import Array

from energydsl._messages import described
from energydsl._pickling import Portable, rebuilt
from energydsl.language.expression import Apply, Expression
from energydsl.language.potential.base import AbstractPotential


@described
class Neural(AbstractPotential):
    r"""The output of a neural network as an expression, such as the energy $E(x) = f_\theta(x)$.

    A network with one output is an energy, and one factor over all sites of its views. The outputs
    of others are used in expressions: ``ed.LogDensity(dist.Bernoulli)(x, logits=decoder(z))`` with
    ``decoder = ed.Neural(network)``.

    Args:
        network: an Equinox module or another callable pytree, which takes the arrays of the views
            and returns an array; a scalar if it is an energy. Its arrays are the parameters.
    """

    network: Any

    def __check_init__(self) -> None:
        if not callable(self.network):
            raise TypeError(f"Neural got {type(self.network).__name__}; expected a callable.")

    @property
    def name(self) -> str:
        return f"Neural[{getattr(self.network, '__name__', type(self.network).__name__)}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (Neural, Portable(self.network))

    def energy(self, *values: Array) -> Array:
        return self.network(*values)

    def __call__(self, *views: object) -> Expression:
        """The network's output at the values of `views`, in the shape that the network returns."""
        return Apply.of(self, views)
