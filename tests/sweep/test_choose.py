"""One choice among the lowerings, for the compiler and for blocks of a user's own."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl._types import Refusal
from energydsl.analysis import incidence
from energydsl.sweep import AbstractSweep, Offer
from energydsl.sweep.base import drawable
from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law

FALSE_ALARM = 1e-6  # chance that a correct sweep fails one of these tests


class Sequential(AbstractSweep):
    """One site after another, each level's energy computed whole: a lowering in one file."""

    lowering: ClassVar[str] = "sequential"
    drawn: tuple[str, ...] = eqx.field(static=True)
    note: str = eqx.field(static=True)
    sites: tuple = eqx.field(static=True)

    @classmethod
    def plan(cls, structure, blocks):
        laws = drawable(structure, blocks)
        if any(v.domain.levels is None for v in laws):
            return Refusal("some sites are not finite")
        every = [(v, int(i)) for v in laws for i in np.flatnonzero(~structure.skeleton.mask(v))]
        shown = every if blocks is None else [(b.variable, int(i)) for b in blocks for i in b.sites]
        names = tuple(v.name for v in laws)
        return Offer(1.0, partial(cls, names, f"{len(shown)} sites", tuple(shown)))

    def load(self, structure, model):
        return model

    def pack(self, x):
        return x

    def unpack(self, state):
        return state

    def sweep(self, structure, tables, state, *, key):
        for (v, i), k in zip(self.sites, jr.split(key, len(self.sites)), strict=True):

            def put(x, level, v=v, i=i):
                return x | {v.name: x[v.name].ravel().at[i].set(level).reshape(v.shape)}

            levels = jnp.asarray(v.domain.values, v.domain.dtype)
            energies = jax.vmap(
                lambda x, put=put, levels=levels: jax.vmap(lambda t: tables.energy(put(x, t)))(
                    levels
                )
            )(state)
            state = jax.vmap(put)(state, levels[jr.categorical(k, -energies)])
        return state


def test_a_lowering_is_one_class_in_the_list(monkeypatch):
    """It serves the compiler and blocks of a user's own, and `explain` names it."""
    monkeypatch.setattr("energydsl.sweep.choose.LOWERINGS", (Sequential,))
    s = ed.spin("s", 3)
    ebm = ed.compile(ed.Model(-0.6 * (s[1:] * s[:-1]).sum() + 0.3 * s.sum()))
    assert ebm.explain().as_dict()["sweep"].startswith("sequential, 3 sites")
    law = exact_law(lambda x: -0.6 * (x[:, 1:] * x[:, :-1]).sum(1) + 0.3 * x.sum(1), [(-1, 1)] * 3)
    n = 20_000
    xs = {"s": jnp.asarray(exact_draws(law.states, law.probs, n, seed=0), jnp.int8)}
    for kernel in (ed.Gibbs(), ed.Gibbs([s[2], s[::2][0], s[1]])):
        ensemble = kernel.ensemble(ebm)
        assert isinstance(ensemble.sweep, Sequential)
        carry = ensemble.start(ebm, xs, key=jr.key(0), warmup=0)
        carry, _ = ensemble.advance(ebm, ensemble.load(ebm), carry, key=jr.key(1))
        after = np.asarray(ensemble.configurations(ebm, carry)["s"]).astype(int)
        assert chisquare_pvalue(count_states(after, law.states), law.probs, n) > FALSE_ALARM


def test_explain_lists_every_lowering_with_its_cost_or_reason():
    s = ed.spin("s", (4, 4))
    said = ed.compile(ed.Model(-(s * ed.roll(s, 1, 0)).sum())).explain().as_dict()
    assert said["sweep"].startswith("packed, 2 interleaved sublattices of a 2 x 1 cell, the chains")
    assert "operations" in said["lowerings_refused"]["lattice"]
    assert "operations" in said["lowerings_refused"]["gather"]
    assert "neighbours a site" in said["lowerings_refused"]["dense"]


def test_a_users_checkerboard_is_swept_as_a_lattice_in_the_users_order():
    s = ed.spin("s", (4, 4))
    ebm = ed.compile(ed.Model(-(s * ed.roll(s, 1, 0)).sum() - 2.0 * (s * ed.roll(s, 1, 1)).sum()))
    rows, columns = np.indices((4, 4))
    odd, even = (s[(rows + columns) % 2 == k] for k in (1, 0))
    packed = ed.Gibbs([odd, even]).ensemble(ebm).sweep
    assert packed.lowering == "packed"
    sweep = packed.plain
    assert sweep.lowering == "lattice" and sweep.cell == (2, 2)
    # Residues of a 2 x 2 cell, row by row: 1 and 2 are the odd sites.
    assert sweep.steps == ((0, 1), (0, 2), (0, 0), (0, 3))


def test_other_blocks_are_gathered():
    s = ed.spin("s", 4)
    ebm = ed.compile(ed.Model(-(s[1:] * s[:-1]).sum()))
    assert ebm.sweep.lowering == "lattice"
    sweep = ed.Gibbs([s[0], s[1::2], s[2]]).ensemble(ebm).sweep
    assert (sweep.lowering, sweep.note) == ("gather", "3 blocks")


def test_sites_that_no_lowering_takes_have_a_reason(monkeypatch):
    """A table over many sites, say, has more entries than memory holds."""
    monkeypatch.setattr(incidence, "MAX_ENTRIES", 1)
    x = ed.binary("b", 3)
    ebm = ed.compile(ed.Model(ed.apply(lambda x: x.prod(), x)))
    assert ebm.sweep is None
    with pytest.raises(
        ValueError, match=r"leaves out 3 free sites, b\[0\] first: .*gather: .*budget"
    ):
        ed.sample(ebm, ed.Gibbs(), key=jr.key(0), progress=False)


def test_blocks_are_equal_where_their_sites_are():
    s, t = ed.spin("s", 6), ed.spin("t", 6)
    assert ed.Gibbs([s[::2], s[1::2]]) == ed.Gibbs([s[[4, 2, 0]], s[1::2]])
    assert hash(ed.Gibbs([s[::2], s[1::2]])) == hash(ed.Gibbs([s[::2], s[1::2]]))
    for other in ([s[1::2], s[::2]], [t[::2], t[1::2]], [(s[::2], s[1::2])], None):
        assert ed.Gibbs([s[::2], s[1::2]]) != ed.Gibbs(other)


def test_fitting_twice_with_blocks():
    """The second call compares its kernel with the first one's."""
    v = ed.spin("v", 4)
    ebm = ed.compile(ed.Model(-0.1 * (v[1:] * v[:-1]).sum() + ed.Table(np.zeros(2))(v).sum()))
    data = np.ones((4, 4), int)
    for _ in range(2):
        kernel = ed.Gibbs(blocks=[v[::2], v[1::2]])
        objective = ed.ContrastiveDivergence(kernel=kernel)
        ed.fit(ebm, objective, data, key=jr.key(0), steps=1, progress=False)
