"""Chains that begin at entries of a buffer, to which their ends are returned."""

from __future__ import annotations

from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import Array, lax

from energydsl._messages import brief, described
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM
from energydsl.learning.start.base import AbstractStart, Walkers


@described
class Buffer(AbstractStart):
    """A replay buffer: chains begin at random entries, and their ends take the entries' places.

    The buffer holds configurations, at first random ones. At each step of learning, as many
    different entries are drawn as there are chains. With probability `renew` a chain begins at a
    random configuration instead of its entry. Compared with persistent chains, more configurations
    are in play than chains are moved, and the renewed ones find modes that the old ones have not.

    Args:
        size: the number of entries, not less than the number of chains.
        renew: the probability that a chain begins at a random configuration, from 0 to 1.

    Source: Du & Mordatch (2019), NeurIPS 32, section 3.2 and algorithm 1, where it is 0.05.
    """

    size: int = 2000
    renew: float = eqx.field(default=0.05, converter=float)

    def __check_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(
                f"Buffer got size={brief(self.size)}; expected a whole number of at least 1."
            )
        if not 0 <= self.renew <= 1:
            raise ValueError(
                f"Buffer got renew={self.renew}; expected a probability from 0 to 1, such as 0.05."
            )

    def of_one_example(self) -> NoReturn:
        raise TypeError(
            "ContrastiveDivergence got start=Buffer(...) and data with inputs: an entry would pass "
            "from the distribution of one example to that of another. Use start='data' or 'noise'."
        )

    def check(self, ebm: EBM, chains: int) -> None:
        if chains > self.size:
            raise ValueError(
                f"ContrastiveDivergence has {chains} chains, more than the {self.size} entries of "
                f"its buffer; give chains={self.size} at most, or a larger Buffer(size=...)."
            )

    def init(self, walkers: Walkers, *, key: Array) -> Configuration:
        return walkers.random(self.size, key=key)

    def begin(
        self, walkers: Walkers, state: Configuration, examples: Configuration, *, key: Array
    ) -> tuple[Any, Array]:
        row_key, renew_key, place_key, start_key = jr.split(key, 4)
        # The places of the largest of random words are distinct, at less than a permutation's cost.
        _, rows = lax.top_k(jr.bits(row_key, (self.size,)), walkers.count)
        renewed = jr.bernoulli(renew_key, self.renew, (walkers.count,))

        def chosen(fresh: Array, entries: Array) -> Array:
            drawn = renewed.reshape(-1, *(1,) * (entries.ndim - 1))
            return jnp.where(drawn, fresh, entries[rows])

        fresh = walkers.random(walkers.count, key=place_key)
        return walkers.at(jax.tree.map(chosen, fresh, state), key=start_key), rows

    def keep(
        self, walkers: Walkers, state: Configuration, begun: Array, carry: Any
    ) -> Configuration:
        ends = walkers.configurations(carry)
        return {n: a.at[begun].set(ends[n].astype(a.dtype)) for n, a in state.items()}
