"""The contract of a potential: a function that returns an energy and owns its parameters."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.tree_util as jtu
import paramax
from jax import Array

from energydsl.language.domain import AbstractDomain
from energydsl.language.expression import Apply, Expression, Origin, as_expression, owned


class AbstractPotential(eqx.Module):
    """An energy as a function of values; its array fields are its parameters.

    A subclass implements `energy` for one point. Calling the potential on views makes a factor, or
    a batch of factors where the views have more axes than `event_ndims`.
    """

    transparent: ClassVar[bool] = False
    """True if `energy` uses only operators that expressions have (``+ - * / ** @``, ``.sum``). The
    compiler then derives from its formula which sites interact."""

    event_ndims: ClassVar[tuple[int, ...] | None] = None
    """For each argument, the number of trailing axes that one call takes; None for all axes."""

    @abc.abstractmethod
    def energy(self, *values: Any) -> Array:
        """The energy of one point, a scalar in units of k_B T."""

    def normalised(self, domain: AbstractDomain, shape: tuple[int, ...]) -> bool:
        r"""Whether $\int e^{-E(x, \dots)}\,dx = 1$ over one event of the first argument.

        `domain` and `shape` are those of the event. The equality must hold for all values of the
        other arguments and of the parameters, so this method is called with None in place of the
        potential's arrays. If a model is a product of such conditional densities, in which every
        variable is given earlier ones only, its log Z is 0.
        """
        return False

    def draw(self, shape: tuple[int, ...], *given: Any, key: Array) -> Array | None:
        """One exact draw of an event of the first argument, if the potential is `normalised`.

        Args:
            shape: the shape of the event.
            given: the values of the other arguments.
            key: a random key.

        Returns:
            An array of this shape; None if the potential cannot be drawn from.
        """
        return None

    @property
    def reparametrised(self) -> bool:
        """Whether what `draw` returns is a differentiable function of the parameters."""
        return False

    @property
    def name(self) -> str:
        """The name in messages and in printed models."""
        return type(self).__name__

    def __call__(self, *views: object) -> Expression:
        """The energy of `views` as an expression, to be summed into a model.

        Raises:
            ValueError: `energy` does not return a scalar for one event.
        """
        if self.transparent:
            return as_expression(_with_parameters(self).energy(*views))
        factor = Apply.of(self, views, self.event_ndims)
        if factor.shape != factor.batch:
            returned = factor.shape[len(factor.batch) :]
            raise ValueError(
                f"{self.name}.energy returned an array of shape {returned}; expected a scalar. "
                "Sum inside it, or give an Equinox MLP out_size='scalar'."
            )
        return factor


def _with_parameters(potential: AbstractPotential) -> AbstractPotential:
    """The potential with a `Parameter` expression in place of each of its arrays."""
    origin = Origin.new(type(potential).__name__)
    leaves, form = jtu.tree_flatten_with_path(
        potential, is_leaf=lambda leaf: isinstance(leaf, paramax.AbstractUnwrappable)
    )
    return form.unflatten(
        owned(leaf, jtu.keystr(path, simple=True, separator="."), origin) for path, leaf in leaves
    )
