"""Nodes that the library does not know, and operations written as such: nothing is claimed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import energydsl as ed
from energydsl.analysis.structure import Structure
from energydsl.language.expression import Expression, energy_dtype, sites_of
from energydsl.language.expression.range import lies_in


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Product(Expression):
    """The product of all elements of its operands, plus a number: as a user would write a node."""

    offset: float

    def combine(self, *values):
        return self.offset + sum(v.sum() for v in values) * values[0].prod()


def product(*operands, offset=0.5):
    return Product(operands, (), offset)


S, C = ed.spin("s", (2, 2)), ed.categorical("c", 2, levels=3)
Y = ed.real("y", 3)


def enumerated(model, ebm, name, x):
    """The conditional of every site, from the energies of its levels."""
    domain = next(v.domain for v in model.variables if v.name == name)
    laws = np.zeros((*x[name].shape, len(domain.values)))
    for at in np.ndindex(x[name].shape):
        for k, level in enumerate(domain.values):
            moved = x[name].copy()
            moved[at] = level
            laws[(*at, k)] = np.exp(-float(model.energy(x | {name: moved})))
    return laws / laws.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("energy", "factors"),
    [
        (product(S, 1.0 * C), [(1, 6)]),
        (product(S[0] * S[1]) ** 2 + S.sum(), [(1, 4), (4, 1)]),
        (0.7 * (S + C).max(1).sum(), [(2, 4)]),
        (ed.logsumexp(0.3 * S * C, 0) @ np.array([0.5, -1.0], np.float32), [(2, 4)]),
        (C.min() * ed.cumsum(S, 0)[1].max(), [(1, 6)]),
    ],
    ids=range(5),
)
def test_conditionals_are_exact_level_by_level(energy, factors):
    model = ed.Model(energy + 0.0 * C.sum())
    structure = Structure(model)
    found = [(f.size, structure.scope_size(f)) for f in structure.factors]
    assert sorted(found[: len(factors)]) == sorted(factors)
    ebm = ed.compile(model)
    x = {"s": np.array([[1, -1], [1, 1]]), "c": np.array([2, 0])}
    for name in x:
        law = np.asarray(ebm.conditional(name, x).probs)
        np.testing.assert_allclose(law, enumerated(model, ebm, name, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("energy", [product(1.0 * Y), Y.max(), ed.logsumexp(Y)], ids=range(3))
def test_nothing_is_claimed_of_an_unknown_node(energy):
    structure = Structure(ed.Model(energy))
    (bound,) = structure.degrees
    assert bound.total == np.inf and not structure.quadratic
    spins = Structure(ed.Model(product(S) + (S.max(1) ** 2).sum()))
    assert not spins.multilinear and not spins.pairwise
    assert energy_dtype(energy) == np.float32
    with pytest.raises(TypeError, match="Expected a variable or a view of one"):
        sites_of(energy)


def test_a_running_sum_is_linear_and_a_gaussian_of_differences_is_quadratic():
    structure = Structure(ed.Model((ed.cumsum(Y) ** 2).sum() + (ed.diff(Y) ** 2).sum()))
    assert structure.quadratic
    assert len(structure.edges) == 3


def test_the_range_of_an_unknown_node_is_unknown():
    real, positive = dist.constraints.real, dist.constraints.positive
    for node in (product(Y), product(1.0 + 0.0 * ed.exp(Y)), product(ed.exp(Y)) + 1.0):
        assert not lies_in(node, real) and not lies_in(node, positive)
    assert lies_in(ed.logsumexp(Y), real) and lies_in(ed.cumsum(Y), real)
    assert not lies_in(ed.exp(Y).max(), positive)
    # Without variables too: what a node makes of numbers is not known.
    numbers = product(Expression.__add__(Y, 1.0).children[1])
    assert not lies_in(numbers, positive)


def test_an_unknown_node_is_printed_told_apart_and_explained():
    one, other = ed.Model(product(S)), ed.Model(product(S, offset=0.25))
    assert str(one.expression) == "product(s)"
    assert one != other and one == ed.Model(product(S))
    assert "1 in 1 batch" in str(ed.compile(one).explain())


def test_energies_of_smooth_operations_have_the_slopes_of_finite_differences():
    model = ed.Model(ed.logsumexp(Y[:, None] * Y, 0).sum() + (ed.cumsum(Y) ** 2).sum() + Y.max())
    y, step = jnp.array([0.3, -1.2, 0.8]), 1e-5
    with jax.enable_x64(True):
        y = y.astype(jnp.float64)
        slope = jax.grad(lambda y: model.energy({"y": y}))(y)
        moved = y + step * jnp.eye(3), y - step * jnp.eye(3)
        up, down = (np.asarray(jax.vmap(lambda y: model.energy({"y": y}))(m)) for m in moved)
    # Central differences of third derivatives below 100.
    np.testing.assert_allclose(slope, (up - down) / (2 * step), atol=100 * step**2 + 1e-9)
