"""The contract of a potential: a function that returns an energy and owns its parameters."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.tree_util as jtu
import paramax
from jax import Array

from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, Origin, owned


class AbstractPotential(eqx.Module):
    """An energy as a function of values; its array fields are its parameters.

    Write `energy` for one point. Calling the potential on views makes a factor; where the views
    have more axes than `event_ndims` says one call takes, it makes a batch of like factors.
    """

    transparent: ClassVar[bool] = False
    """True where `energy` uses only operators that expressions have (``+ - * / ** @``, ``.sum``):
    then the compiler reads its structure, and learns who interacts with whom."""

    event_ndims: ClassVar[tuple[int, ...] | None] = None
    """How many trailing axes of each argument one call takes; None for all of them."""

    @abc.abstractmethod
    def energy(self, *values: Any) -> Array:
        """The energy of one point, in units of k_B T; a scalar."""

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        r"""Whether $\int e^{-E(x, \dots)}\,dx = 1$ over one event of the first argument.

        That is its domain and shape; it must hold whatever the other arguments and the parameters
        are. Then log Z is 0 of a model in which such densities are each given earlier ones. Asked
        of the potential with None in place of its arrays; True must be certain.
        """
        return False

    def draw(self, shape: tuple[int, ...], *given: Any, key: Array) -> Array | None:
        """One exact draw of an event of the first argument, where that is `normalised`.

        Args:
            shape: of the event.
            given: the other arguments.
            key: for random numbers.

        Returns:
            An array of this shape; None where there are no draws.
        """
        return None

    @property
    def name(self) -> str:
        """What messages and printed models call it."""
        return type(self).__name__

    def __call__(self, *views: object) -> Expression:
        """The energy of `views`, as an expression to be summed into a model.

        Raises:
            ValueError: `energy` returns something other than one scalar for one event.
        """
        if self.transparent:
            return _with_parameters(self).energy(*views)  # type: ignore[return-value]
        factor = Apply.of(self, views, self.event_ndims)
        if factor.shape != factor.batch:
            returned = factor.shape[len(factor.batch) :]
            raise ValueError(
                f"{self.name}.energy returned an array of shape {returned}; expected a scalar. "
                "Sum inside it, or give an Equinox MLP out_size='scalar'."
            )
        return factor


def _with_parameters(potential: AbstractPotential) -> AbstractPotential:
    """The potential with a parameter of an expression in the place of each of its arrays."""
    origin = Origin.new(type(potential).__name__)
    leaves, form = jtu.tree_flatten_with_path(
        potential, is_leaf=lambda leaf: isinstance(leaf, paramax.AbstractUnwrappable)
    )
    return form.unflatten(
        owned(leaf, jtu.keystr(path, simple=True, separator="."), origin) for path, leaf in leaves
    )
