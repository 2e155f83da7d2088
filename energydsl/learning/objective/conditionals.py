"""The conditional distributions of all sites that data show, for a batch of examples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from energydsl._types import Configuration, Refusal
from energydsl.analysis.conditional import AbstractConditional, conditional_for, conditionals
from energydsl.analysis.incidence import SiteFactors, measures, no_law, site_factors
from energydsl.compiler.ebm import EBM
from energydsl.language.variable import Variable
from energydsl.learning.latent import latent, visible
from energydsl.learning.objective.base import DoesNotFit


def check_conditionals(objective: str, ebm: EBM, data: Configuration) -> None:
    """Raise DoesNotFit or ValueError unless every site has a conditional that is known."""
    hidden = [w.name for w in latent(ebm)]
    if hidden:
        raise DoesNotFit(
            f"{objective} predicts each site from all others, and data does not show {hidden}."
        )
    for name, law in conditionals(ebm.structure).items():
        if isinstance(law, Refusal):
            raise DoesNotFit(
                f"{objective} needs the conditional of every site, and {name!r} has none of a "
                f"known family ({law.reason})."
            )
    blocks_of(ebm)
    wrong = no_law(ebm.structure, ebm.model, jax.tree.map(lambda a: a[0], data))
    if wrong is not None:
        raise ValueError(
            f"{objective} needs the conditional of every site, but at the first example {wrong}. "
            "Start from parameters for which it exists."
        )


def blocks_of(ebm: EBM) -> dict[str, SiteFactors]:
    """The site factors of the variables whose conditionals do not follow from one gradient.

    Raises:
        DoesNotFit: they would not fit in memory.
    """
    blocks = {}
    for v in visible(ebm):
        law = law_of(ebm, v)
        if law.derivatives == 1:
            continue
        every = np.arange(v.size, dtype=np.int32).reshape(1, -1)
        block = site_factors(ebm.structure, v, law, every)
        if isinstance(block, Refusal):
            raise DoesNotFit(f"The conditionals of all sites are out of reach: {block.reason}.")
        blocks[v.name] = block
    return blocks


def law_of(ebm: EBM, v: Variable) -> AbstractConditional:
    """The conditional of the sites of a variable, which is known to have one."""
    law = conditional_for(ebm.structure, v)
    assert isinstance(law, AbstractConditional)
    return law


def measured(ebm: EBM, batch: Configuration, blocks: dict[str, SiteFactors]) -> dict[str, Array]:
    """The numbers that determine every conditional, (number, example, site), by variable."""
    return _slopes(ebm, batch) | _gathered(ebm, batch, blocks)


def levels_of(v: Variable, batch: Configuration) -> Array:
    """The values of a variable's sites, (example, site); of a finite one, which level each is."""
    values = batch[v.name].reshape(-1, v.size)
    if v.domain.levels is None:
        return values
    return jnp.searchsorted(jnp.asarray(v.domain.values), values)


def free_sites(ebm: EBM, v: Variable) -> np.ndarray:
    """True at the sites of a variable that are not clamped."""
    return ~ebm.structure.skeleton.mask(v).ravel()


def _slopes(ebm: EBM, batch: Configuration) -> dict[str, Array]:
    """The measures of sites in which the energy is linear.

    For these, dE/dx_i does not depend on x_i, so one gradient gives the measures of all sites.
    """
    linear = [v for v in visible(ebm) if law_of(ebm, v).derivatives == 1]
    if not linear:
        return {}

    def slopes(x: Configuration) -> dict[str, Array]:
        moving = {v.name: x[v.name].astype(v.domain.energy_dtype) for v in linear}
        slope = jax.grad(lambda m: ebm.energy({**x, **m}))(moving)
        return {n: s.ravel() for n, s in slope.items()}

    return {n: s[None] for n, s in jax.vmap(slopes)(batch).items()}


def _gathered(ebm: EBM, batch: Configuration, blocks: dict[str, SiteFactors]) -> dict[str, Array]:
    """Measures of the other sites, from the factors that contain them."""
    return {
        name: jnp.swapaxes(measures(ebm.structure, ebm.model, block, batch), 1, 2)
        for name, block in blocks.items()
    }
