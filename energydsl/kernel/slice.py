"""Slice sampling of single sites, in parallel by the colours of the interaction graph."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import conditionals
from energydsl.analysis.incidence import SiteFactors, local_energies
from energydsl.analysis.structure import Structure
from energydsl.analysis.uniform import open_uniform
from energydsl.compiler.ebm import EBM
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel
from energydsl.kernel.point import check_between, check_names
from energydsl.kernel.sweeping import GibbsEnsemble, swept_alone
from energydsl.language.variable import Variable
from energydsl.sweep.base import coloured
from energydsl.sweep.gather import AbstractRule, GatherSweep, gathered

AT_END = 16.0
"""The coordinate that stands for an end of an interval, from which it is 1e-7 of the width away."""

MOST_TRIALS = 200
"""The most points that are tried in an interval, which each trial makes smaller."""


@described
class Slice(AbstractKernel):
    r"""Slice sampling of single continuous sites: no rejections, and no step size to tune.

    Each step updates every site once, given all others, whatever its conditional distribution. In
    the site's unconstrained coordinate z, with the energy g of the factors that contain it (and the
    Jacobian), it draws a height $h = g(z) + \epsilon$ with $\epsilon$ exponential, widens an
    interval around z in steps of `width` until its ends are above h, and draws points of it
    uniformly until one is below h; others shrink it. Sites that do not interact are updated at
    once.

    It is meant for sites whose conditional distribution is of no known family; `Gibbs` draws the
    others exactly.

    Args:
        width: the size of the first interval, in unconstrained coordinates.
        most: the largest size of an interval, in units of `width`.
        variables: names of the variables to move; by default every free continuous one whose
            events are single numbers.

    Source: Neal (2003), Annals of Statistics 31(3), 705-767, figures 3 and 5.
    """

    COST: ClassVar[float] = 8.0
    """The approximate number of energies of each site that one step computes."""

    width: float = 2.0
    most: int = 64
    variables: tuple[str, ...] | None = None

    def __check_init__(self) -> None:
        check_names(self)
        check_between(self, "width", math.inf, "a number above 0")
        if not isinstance(self.most, int) or self.most < 1:
            raise ValueError(
                f"Slice got most={brief(self.most)}; expected a whole number of at least 1."
            )

    def init(self, ebm: EBM, x: Configuration, *, key: Array, warmup: int) -> None:
        return None

    def step(
        self, ebm: EBM, x: Configuration, state: None, *, key: Array
    ) -> tuple[Configuration, None, dict[str, Array]]:
        return swept_alone(self._sweep(ebm), ebm, x, key=key), None, {}

    def moves(self, ebm: EBM) -> np.ndarray:
        return ebm.structure.of_variables(v.name for v in self._moved(ebm))

    def reason(self, ebm: EBM) -> str:
        if self.variables is not None:
            return f"its argument `variables` names only {', '.join(self.variables)}"
        return "it moves single real, positive and interval sites only"

    def merit(self, ebm: EBM) -> str:
        known = [
            n for n, law in conditionals(ebm.structure).items() if not isinstance(law, Refusal)
        ]
        exact = f"; Gibbs would draw {', '.join(known)} exactly" if known else ""
        return f"slice steps move every free site, with nothing to tune{exact}"

    def effort(self, ebm: EBM) -> float:
        return self.COST

    def ensemble(self, ebm: EBM) -> AbstractEnsemble:
        return GibbsEnsemble(self._sweep(ebm))

    def _sweep(self, ebm: EBM) -> GatherSweep:
        sweep = _sweep_over(ebm.structure, self._moved(ebm), SliceRule(self.width, self.most))
        if isinstance(sweep, Refusal):
            raise TypeError(f"Slice cannot update these sites: {sweep.reason}.")
        return sweep

    def _moved(self, ebm: EBM) -> tuple[Variable, ...]:
        free = {v.name: v for v in ebm.structure.skeleton.free}
        if self.variables is None:
            return tuple(v for v in free.values() if _single(v))
        for name in self.variables:
            if name not in free:
                raise ValueError(
                    f"{name!r} is no free variable; the free variables are {list(free)}."
                )
            if not _single(free[name]):
                raise TypeError(
                    f"Slice cannot move {name!r}, which is {free[name].domain}; it moves single "
                    "real, positive and interval sites only."
                )
        return tuple(free[name] for name in self.variables)


class SliceRule(AbstractRule):
    """Each site moves to a point of a slice of its conditional density."""

    width: float
    most: int

    def update(
        self,
        structure: Structure,
        block: SiteFactors,
        tables: tuple[Any, Any],
        state: dict[str, Array],
        betas: Array | None,
        *,
        key: Array,
    ) -> Array:
        name, transform = block.variable.name, block.variable.domain.transform
        old = state[name].at[block.sites].get(mode="clip")

        def potential(z: Array) -> Array:
            x = transform(z)
            new = state | {name: state[name].at[block.sites].set(x, mode="drop")}
            energy = local_energies(structure, block, tables, new)
            energy = energy if betas is None else energy * betas
            energy -= transform.log_abs_det_jacobian(z, x)
            # A value that rounding moves out of the support lies in no slice.
            inside = jnp.isfinite(transform.inv(x)) & ~jnp.isnan(energy)
            return jnp.where(inside, energy, jnp.inf)

        height_key, out_key, in_key = jr.split(key, 3)
        # A value at an end of its domain has no coordinate; it starts from a point just inside.
        z = jnp.nan_to_num(transform.inv(old), posinf=AT_END, neginf=-AT_END)
        height = potential(z) - jnp.log(open_uniform(height_key, z.shape))
        ends = self._widened(potential, z, height, out_key)
        moved, found = _shrunk(potential, z, height, ends, in_key)
        return jnp.where(found, transform(moved), old)

    def _widened(self, potential: Any, z: Array, height: Array, key: Array) -> tuple[Array, Array]:
        """The ends of an interval around z, found by stepping out."""
        place, share = jr.uniform(key, (2, *z.shape))
        below = jnp.floor(self.most * share)
        left = z - self.width * place

        def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            left, right, below, above, grow_left, grow_right = carry
            left = jnp.where(grow_left, left - self.width, left)
            right = jnp.where(grow_right, right + self.width, right)
            return look(left, right, below - grow_left, above - grow_right)

        def look(left: Array, right: Array, below: Array, above: Array) -> tuple[Array, ...]:
            grow_left = (below > 0) & (potential(left) <= height)
            grow_right = (above > 0) & (potential(right) <= height)
            return left, right, below, above, grow_left, grow_right

        start = look(left, left + self.width, below, self.most - 1 - below)
        found = lax.while_loop(lambda c: jnp.any(c[4] | c[5]), step, start)
        return found[0], found[1]


def _shrunk(
    potential: Any, z: Array, height: Array, ends: tuple[Array, Array], key: Array
) -> tuple[Array, Array]:
    """A point of the slice in an interval around z, and whether one was found."""

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        left, right, new, found, count = carry
        u = jr.uniform(jr.fold_in(key, count), z.shape)
        tried = left + u * (right - left)
        inside = potential(tried) <= height
        new = jnp.where(inside & ~found, tried, new)
        left = jnp.where(~inside & (tried < z), tried, left)
        right = jnp.where(~inside & (tried >= z), tried, right)
        return left, right, new, found | inside, count + 1

    def go_on(carry: tuple[Array, ...]) -> Array:
        return ~jnp.all(carry[3]) & (carry[4] < MOST_TRIALS)

    start = *ends, z, jnp.zeros(z.shape, bool), jnp.asarray(0)
    _, _, new, found, _ = lax.while_loop(go_on, step, start)
    return new, found


def _single(variable: Variable) -> bool:
    """Whether the events of a variable are single continuous numbers."""
    return variable.domain.event_ndim == 0 and variable.domain.transform is not None


@lru_cache(maxsize=32)
def _sweep_over(
    structure: Structure, variables: tuple[Variable, ...], rule: SliceRule
) -> GatherSweep | Refusal:
    # The sweep is cached, so it must not contain values of a trace that is in progress.
    with jax.ensure_compile_time_eval():
        blocks = coloured(structure, variables)
        build = gathered(structure, dict.fromkeys(variables), blocks, rule)
        return build if isinstance(build, Refusal) else build()
