"""The spin glass: its tiles, its bound, and the ground state that replica exchange finds."""

import itertools

import numpy as np
import pytest

import energydsl as ed
from models_zoo import spin_glass as zoo
from tests.zoo.words import check_words


@pytest.mark.parametrize("side", [4, 6])
def test_the_cubes_tile_the_periodic_lattice(side):
    """Each bond between neighbours is there once; by a side of 4, no two sites are joined twice."""
    first, last = (ends.ravel() for ends in zoo.couplings(side).ends)
    found = {frozenset(pair) for pair in zip(first.tolist(), last.tolist(), strict=True)}
    grid = np.arange(side**3).reshape(side, side, side)
    expected = {
        frozenset(pair)
        for axis in range(3)
        for pair in zip(grid.ravel().tolist(), np.roll(grid, 1, axis).ravel().tolist(), strict=True)
    }
    assert found == expected and len(first) == 3 * side**3


@pytest.mark.parametrize(("count", "faces"), [(2, 4), (3, 6)])
def test_negative_bonds_frustrate_faces_of_their_own(count, faces):
    """A cube's faces, and the minimum over all its states, by NumPy."""
    states = np.array(list(itertools.product((-1, 1), repeat=8)))
    first, last = np.array(zoo.EDGES).T
    squares = [
        [k for k, (a, b) in enumerate(zoo.EDGES)
         if zoo.CORNERS[a][axis] == end == zoo.CORNERS[b][axis]]
        for axis in range(3) for end in (0, 1)
    ]  # fmt: skip
    for chosen in zoo.frustrated(count):
        weights = np.where(np.isin(np.arange(12), chosen), -1, 1)
        assert sum(weights[square].prod() < 0 for square in squares) == faces
        assert -(weights * states[:, first] * states[:, last]).sum(1).max() == 2 * count - 12
    assert len(zoo.frustrated(3)) == 8


def test_the_energy_and_the_bound_are_those_of_the_bonds():
    bonds = zoo.couplings(4, 0.5, 3)
    first, last = bonds.ends
    s = np.random.default_rng(0).choice([-1, 1], 64)
    expected = -(bonds.weights * s[first] * s[last]).sum()
    assert float(ed.compile(zoo.declare(4, 0.5, 3)).energy({"s": s})) == pytest.approx(expected)
    # A fully frustrated cube has the minimum -6, and one with four frustrated faces -8.
    faces = zoo.bound(bonds)
    assert len(bonds.sites) == 16 and -8 * 16 < faces < -6 * 16
    assert zoo.bound(zoo.couplings(4, 1.0)) == -96 and zoo.bound(zoo.couplings(4, 0.0)) == -128


def test_an_odd_side_is_refused():
    with pytest.raises(ValueError, match="side=5; cubes tile lattices of even sides"):
        zoo.couplings(5)


def test_replica_exchange_finds_the_ground_state(tmp_path):
    numbers = zoo.main(out=tmp_path, side=4, share=0.6, replicas=6, chains=2, draws=300)
    check_words(zoo, numbers)
    assert numbers["proven"] and numbers["found"] == numbers["bound"] <= numbers["gibbs"]
    assert numbers["reached"] == 2 and 0 < numbers["swap_rate"] < 1
    assert (tmp_path / "spin_glass.png").stat().st_size > 10_000
