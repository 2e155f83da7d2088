"""Cells of an adaptive integration, judged by themselves in NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed
from energydsl.normalizer.quadrature import cubature, product
from energydsl.normalizer.quadrature.cubature import (
    GRADE,
    NEAR,
    REACH,
    RESOLVED,
    SIDE,
    Cells,
    Marks,
)
from energydsl.normalizer.quadrature.integrand import Surface
from energydsl.normalizer.quadrature.landmarks import CHUNK, landmarks, text_of, width_of

AIM, MOST = {1: 1e-9, 2: 1e-9, 3: 1e-6}, {1: 400, 2: 3000, 3: 900}
MARK = {1: [[0.0], [3.0]], 2: [[0.0, 0.0], [1.5, 2.25]], 3: [[0.0] * 3, [1.5, 2.25, -1.0]]}
WIDTH = {1: [[0.5], [1e-3]], 2: [[0.5, 0.5], [0.25, 0.125]], 3: [[1.0] * 3, [1.0, 0.75, 0.5]]}


def normals(t):
    """Two problems: a normal about 0, and a narrow one inside a broad one; bent unless alone.

    Where the first coordinate is above 9, the second is not known.
    """
    width = jnp.array([0.7, 0.1 if t.shape[1] < 3 else 0.5])
    x = t[:, 0] - jnp.array([0.0, 0.3])
    y = t[:, 1] - 0.5 * x**2 if t.shape[1] > 1 else x
    narrow = -0.5 * (y / width) ** 2 - jnp.log(width) - (0.5 * x**2 if t.shape[1] > 1 else 0.0)
    narrow -= 0.5 * t[:, 2] ** 2 if t.shape[1] > 2 else 0.0
    broad = -0.5 * jnp.sum((t / 1.25) ** 2, axis=1)
    log = jnp.where(jnp.array([True, False]), narrow, jnp.logaddexp(narrow, broad))
    known = t[:, 0] < jnp.array([jnp.inf, 9.0])
    return jnp.where(known, log, -jnp.inf), known


def right(dim):
    """log of both integrals."""
    half = 0.5 * np.log(2 * np.pi)
    return np.array([dim * half, np.logaddexp(dim * half, dim * (half + np.log(1.25)))])


@pytest.fixture(scope="module", params=[1, 2, 3])
def cells(request):
    dim = request.param
    with jax.enable_x64(True):
        place, width = (jnp.asarray(a[dim], float)[:, None] for a in (MARK, WIDTH))
        both = [jnp.broadcast_to(a, (2, 2, dim)) for a in (place, width)]
        options = {"aim": AIM[dim], "most": MOST[dim], "width": 1000}
        found = jax.jit(lambda m: cubature.refine(normals, m, lambda a: a, **options))(Marks(*both))
    return jax.tree.map(np.asarray, found)


def problem(cells, k):
    used = int(cells.used[k])
    return Cells(*(np.asarray(a)[:used, k] for a in cells[:-1]), used=used)


@pytest.mark.parametrize("k", [0, 1])
def test_cells_fill_the_box_once_and_sum_to_the_integral(cells, k):
    one = problem(cells, k)
    dim = one.low.shape[1]
    assert np.prod(one.high - one.low, axis=1).sum() == pytest.approx((2 * REACH) ** dim, rel=1e-12)
    inside = np.random.default_rng(0).uniform(-REACH, REACH, (300, 1, dim))
    holds = ((one.low < inside) & (inside < one.high)).all(axis=2)
    assert (holds.sum(axis=1) == 1).all()
    assert one.used < MOST[dim] - cubature.SPLIT[dim]
    error = np.exp(one.error - right(dim)[k]).sum()
    assert abs(np.logaddexp.reduce(one.value) - right(dim)[k]) <= error + 1e-14
    assert error <= AIM[dim]


@pytest.mark.parametrize("k", [0, 1])
def test_no_cell_is_much_larger_than_a_neighbour_with_mass_or_than_a_mark_in_it(cells, k):
    one = problem(cells, k)
    dim, side = one.low.shape[1], one.high - one.low
    touch = (one.low[:, None] <= one.high) & (one.low <= one.high[:, None])
    pairs = touch.all(axis=2) & (np.exp(one.value - right(dim)[k]) > AIM[dim] / 10)
    ratio = side[:, None] / side
    assert (ratio[pairs] <= GRADE).all() and ratio[touch.all(axis=2)].max() >= GRADE
    for place, width in zip(np.array(MARK[dim]), np.array(WIDTH[dim]), strict=True):
        near = ((one.low <= place + width) & (one.high >= place - width)).all(axis=1)
        assert near.any() and (side[near] <= RESOLVED * width).all()
    middle = ((one.low < NEAR) & (one.high > -NEAR)).all(axis=1)
    assert side[middle].max() == SIDE[dim]


def test_mass_beyond_what_is_known_is_told_where_that_ends(cells):
    first, second = problem(cells, 0), problem(cells, 1)
    dim = first.low.shape[1]
    ends = ((second.low <= -REACH) | (second.high >= REACH)).any(axis=1)
    across = (second.high[:, 0] >= 9) & (second.low[:, 0] < 9)
    assert np.isneginf(second.edge[~ends & (second.high[:, 0] < 9)]).all()
    assert np.isfinite(second.edge[across]).any()
    assert (second.error >= second.edge)[across].all()
    # The density at 9 is exp(-26), and the cells there are small.
    beyond = np.logaddexp.reduce(second.edge) - right(dim)[1]
    assert -40 < beyond < np.log(AIM[dim])
    assert np.exp(np.logaddexp.reduce(first.edge) - right(dim)[0]) < AIM[dim]


def test_cells_that_do_not_count_are_left_out_of_the_sum_and_its_slope(cells):
    dim = cells.low.shape[-1]
    with jax.enable_x64(True):
        counts = np.asarray(cells.value) > right(dim) - 30

        def total(scale):
            def log_density(t):
                # Not a number far out, in no cell that counts.
                far = jnp.sqrt(30 - jnp.abs(t[:, 0]))
                return scale * (jnp.maximum(normals(t)[0], -1e4) + 0 * far)

            put = jnp.asarray(counts), jnp.asarray(right(dim))
            return cubature.over_cells(log_density, jax.tree.map(jnp.asarray, cells), *put, 1000)

        value, slope = (np.asarray(jax.jit(f)(1.0)) for f in (total, jax.jacrev(total)))
    np.testing.assert_allclose(value, 1.0, rtol=1e-9)
    assert np.isfinite(slope).all()


def test_errors_of_both_signs_add_like_random_ones():
    rng = np.random.default_rng(1)
    error, lean = rng.uniform(0, 1e-6, (50, 2)), rng.uniform(-1, 1, (50, 2))
    lean[:, 1] = 0.9
    side = np.ones((50, 2, 1))
    fields = {"low": 0 * side, "high": side, "value": error, "axis": error, "edge": error}
    with jax.enable_x64(True):
        here = Cells(
            error=np.log(error) + 3, lean=lean, limit=side, used=np.array([50, 50]), **fields
        )
        long = here._replace(limit=side * np.array([1.0, 0.99])[:, None])
        whole = jnp.full(2, 3.0)
        found = np.asarray(cubature.error_of(here, whole, lambda a: a))
        together = float(cubature.error_of(here, whole, lambda a: a.sum()))
        refused = np.asarray(cubature.error_of(long, whole, lambda a: a))
    balanced = abs((error * lean).sum(0)) + 2 * np.sqrt((error**2).sum(0))
    np.testing.assert_allclose(found, np.minimum(error.sum(0), balanced), rtol=1e-12)
    assert found[0] < error[:, 0].sum() and found[1] == pytest.approx(error[:, 1].sum())
    balanced = abs((error * lean).sum()) + 2 * np.sqrt((error**2).sum())
    assert together == pytest.approx(min(error.sum(), balanced))
    assert np.isfinite(refused[0]) and np.isinf(refused[1])


@pytest.mark.parametrize("weights,degree", [(product.WEIGHTS, 18), (product.ROUGHER, 9)])
def test_rules_integrate_polynomials(weights, degree):
    for k in range(degree):
        assert weights @ product.AXIS**k == pytest.approx((1 + (-1) ** k) / (k + 1), abs=1e-13)


class Wide(eqx.Module):
    """An energy with many numbers between its input and its value, and a few that it holds."""

    numbers: jax.Array

    def __call__(self, y):
        inner = jax.jit(lambda x: 13.5 * x)(y)
        wide = jnp.sum(jnp.tanh(jnp.arange(1000.0) * y + 7.25))
        return wide + inner + jnp.sum(self.numbers * y**2)


def test_passes_hold_the_numbers_between_input_and_energy():
    wide = ed.Model(ed.Neural(Wide(jnp.array([2.5, 11.0])))(ed.positive("y")))
    plain = ed.Model(ed.real("y") ** 4)
    widths = []
    for model in (wide, plain):
        ebm = ed.compile(model)
        surface = Surface(ebm.structure, np.array([0]))
        text = text_of(surface, ebm.model)
        widths.append(width_of(text))
        if model is wide:
            marks = np.asarray(landmarks(surface, ebm.model, text, 48))
            assert all(
                np.isclose(marks, x).any() for x in (0.0, 2.5, 11.0, 7.25, 13.5, np.log(7.25))
            )
            assert len(landmarks(surface, ebm.model, text, 1)) == 2
    assert CHUNK / 16000 < widths[0] <= CHUNK / 1000
    assert widths[1] > 1000
