"""The oracles against each other: closed forms, enumeration, transfer matrices, asymptotics."""

import numpy as np
import pytest
from scipy.stats import kstest

from tests.oracles.enumerate import chisquare_pvalue, count_states, exact_draws, exact_law
from tests.oracles.ising import (
    CRITICAL_COUPLING,
    kaufman,
    onsager_energy,
    yang_magnetisation,
)

COUPLINGS = [0.05, 0.3, CRITICAL_COUPLING, 0.6, 1.5]


def bonds(states, rows, columns):
    """Sum of s_i s_j over the bonds of the torus, each site to its right and lower neighbour."""
    s = states.reshape(-1, rows, columns)
    return (s * np.roll(s, 1, 1) + s * np.roll(s, 1, 2)).sum((1, 2))


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 3), (3, 4), (4, 4)])
def test_kaufman_is_the_sum_over_all_states(rows, columns, coupling):
    sites = rows * columns
    law = exact_law(lambda s: -coupling * bonds(s, rows, columns), [(-1, 1)] * sites)
    agreement = bonds(law.states, rows, columns)
    mean = law.probs @ agreement
    variance = law.probs @ (agreement - mean) ** 2

    torus = kaufman(rows, columns, coupling)
    np.testing.assert_allclose(torus.log_z, law.log_z, rtol=1e-13)
    np.testing.assert_allclose(torus.energy, -mean / sites, rtol=1e-11)
    np.testing.assert_allclose(torus.heat_capacity, coupling**2 * variance / sites, rtol=1e-8)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_kaufman_is_the_trace_of_the_transfer_matrix(coupling):
    width, length = 6, 64
    rows = exact_law(lambda s: np.zeros(len(s)), [(-1, 1)] * width).states
    within = (rows * np.roll(rows, 1, 1)).sum(1)
    log_step = coupling * (rows @ rows.T + (within[:, None] + within) / 2)
    top = log_step.max()
    eigenvalues = np.linalg.eigvalsh(np.exp(log_step - top))
    log_z = length * top + np.log((eigenvalues**length).sum())

    np.testing.assert_allclose(kaufman(width, length, coupling).log_z, log_z, rtol=1e-12)
    np.testing.assert_allclose(kaufman(length, width, coupling).log_z, log_z, rtol=1e-12)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_kaufman_turned_by_a_right_angle_is_the_same(coupling):
    np.testing.assert_allclose(
        kaufman(48, 64, coupling), kaufman(64, 48, coupling), rtol=1e-10, atol=1e-8
    )


@pytest.mark.parametrize("coupling", [0.1, 0.3, 0.35, 0.55, 0.8, 2.0])
def test_kaufman_tends_to_onsager_away_from_the_critical_point(coupling):
    # The gap falls as exp(-side / correlation length): below 1e-8 at side 256.
    np.testing.assert_allclose(kaufman(256, 256, coupling).energy, onsager_energy(coupling), 1e-8)


def test_kaufman_at_the_critical_point_has_the_known_finite_size_shift():
    # Ferdinand & Fisher (1969): energy = -sqrt(2) - shift / side, from theta functions at
    # nome exp(-pi); the next term is of order side^-3.
    q, k = np.exp(-np.pi), np.arange(8)
    theta2 = 2 * (q ** ((k + 0.5) ** 2)).sum()
    theta3 = 1 + 2 * (q ** (k[1:] ** 2)).sum()
    theta4 = 1 + 2 * ((-1.0) ** k[1:] * q ** (k[1:] ** 2)).sum()
    shift = 2 * theta2 * theta3 * theta4 / (theta2 + theta3 + theta4)

    energy = kaufman(64, 64, CRITICAL_COUPLING).energy
    np.testing.assert_allclose(energy, -np.sqrt(2) - shift / 64, atol=1e-5)
    np.testing.assert_allclose(onsager_energy(CRITICAL_COUPLING), -np.sqrt(2), atol=1e-12)


def test_yang_vanishes_at_the_critical_point_and_saturates_in_the_cold():
    assert yang_magnetisation(0.999 * CRITICAL_COUPLING) == 0
    np.testing.assert_allclose(yang_magnetisation(0.5), 0.911319377877496, rtol=1e-12)
    np.testing.assert_allclose(yang_magnetisation(5.0), 1, atol=1e-8)


def test_exact_law_of_independent_sites_is_their_product():
    levels = [(-1, 1), (0, 1, 2), (0, 1)]
    field = np.array([0.3, -0.7, 1.1])
    law = exact_law(lambda s: s @ field, levels)
    marginals = [np.exp(-h * np.array(values)) for h, values in zip(field, levels, strict=True)]

    assert law.states[[0, 1, 2, -1]].tolist() == [[-1, 0, 0], [-1, 0, 1], [-1, 1, 0], [1, 2, 1]]
    np.testing.assert_allclose(law.log_z, sum(np.log(m.sum()) for m in marginals))
    product = np.einsum("i,j,k->ijk", *(m / m.sum() for m in marginals)).ravel()
    np.testing.assert_allclose(law.probs, product)


def test_exact_law_gives_a_forbidden_state_no_probability():
    law = exact_law(lambda s: np.where(s.sum(1) == 2, np.inf, 0.0), [(0, 1)] * 2)
    np.testing.assert_allclose(law.probs, [1 / 3, 1 / 3, 1 / 3, 0])


def test_exact_law_refuses_what_it_cannot_enumerate():
    with pytest.raises(ValueError, match="enumerates up to"):
        exact_law(lambda s: s.sum(1), [(0, 1)] * 40)


def test_chisquare_accepts_the_law_and_at_its_stated_rate():
    law = exact_law(lambda s: 0.5 * s.sum(1) + 0.4 * s[:, 0] * s[:, 1], [(-1, 1)] * 6)
    n = 4_000
    pvalues = [
        chisquare_pvalue(count_states(exact_draws(*law[:2], n, seed), law.states), law.probs, n)
        for seed in range(300)
    ]
    assert kstest(pvalues, "uniform").pvalue > 1e-6


def test_chisquare_rejects_a_slightly_wrong_law():
    law = exact_law(lambda s: -0.3 * s[:, 0] * s[:, 1], [(-1, 1)] * 2)
    wrong = exact_law(lambda s: -0.33 * s[:, 0] * s[:, 1], [(-1, 1)] * 2)
    n = 100_000
    counts = count_states(exact_draws(*wrong[:2], n, seed=0), law.states)
    assert chisquare_pvalue(counts, law.probs, n) < 1e-6


def test_chisquare_pools_rare_states_but_forgives_no_impossible_one():
    probs = np.array([0.5, 0.4999, 1e-4, 0.0])
    assert chisquare_pvalue([500, 500, 0, 0], probs, 1000) > 0.5
    assert chisquare_pvalue([500, 499, 0, 1], probs, 1000) == 0


def test_chisquare_refuses_too_few_draws_and_lost_ones():
    with pytest.raises(ValueError, match="too few"):
        chisquare_pvalue([6, 4], [0.5, 0.5], 10)
    with pytest.raises(ValueError, match="999 counts for 1000 draws"):
        chisquare_pvalue([500, 499], [0.5, 0.5], 1000)


def test_count_states_refuses_a_draw_outside_the_law():
    with pytest.raises(ValueError, match="no states of the law"):
        count_states(np.array([[0, 3]]), np.array([[0, 1], [1, 0]]))
