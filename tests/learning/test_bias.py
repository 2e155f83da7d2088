"""Initial biases: a model of them alone has the means of the data."""

import jax.numpy as jnp
import numpy as np
import pytest

import energydsl as ed

RNG = np.random.default_rng(0)
BITS = (RNG.random((30, 4)) < [0.0, 0.1, 0.5, 1.0]).astype(int)


def shares(data, values):
    """The share of each level at each site, with one more example of each, by counting."""
    data = np.asarray(data)
    return np.array(
        [
            [(sum(v == k for v in column) + 1) / (len(column) + len(values)) for k in values]
            for column in data.T
        ]
    )


def test_bits_and_spins_have_the_means_of_the_data():
    x, s = ed.binary("x", 4), ed.spin("s", 4)
    b, c = ed.bias_from(x, BITS), ed.bias_from(s, 2 * BITS - 1)
    ebm = ed.compile(ed.Model(-ed.parameter("b", b) @ x - ed.parameter("c", c) @ s))
    law, expected = ed.marginals(ebm), shares(BITS, (0, 1))
    for name in "xs":
        np.testing.assert_allclose(law[name].probabilities, expected, rtol=1e-5)


def test_labels_and_integers_have_the_shares_of_the_data():
    labels, numbers = RNG.integers(0, 3, (20, 2)), RNG.integers(-1, 3, (20, 2))
    c, n = ed.categorical("c", 2, levels=3), ed.integer("n", 2, low=-1, high=2)
    b, d = ed.bias_from(c, labels), ed.bias_from(n, numbers)
    ebm = ed.compile(ed.Model(ed.Table(-b)(c).sum() + ed.Table(-ed.parameter("d", d))(n).sum()))
    law = ed.marginals(ebm)
    np.testing.assert_allclose(law["c"].probabilities, shares(labels, range(3)), rtol=1e-5)
    np.testing.assert_allclose(law["n"].probabilities, shares(numbers, range(-1, 3)), rtol=1e-5)
    assert float(ed.log_partition(ebm)) == pytest.approx(0.0, abs=1e-6)


def test_real_sites_have_the_means_of_the_data():
    y, data = ed.real("y", (2, 3)), RNG.normal(3.0, 1.0, (10, 2, 3))
    np.testing.assert_allclose(ed.bias_from(y, data), data.mean(axis=0), rtol=1e-6)


def test_missing_entries_are_left_out():
    mask = RNG.random(BITS.shape) < 0.3
    x, y = ed.binary("x", 4), ed.real("y", 4)
    found = ed.bias_from(x, np.ma.array(BITS, mask=mask))
    for k in range(4):
        there = BITS[~mask[:, k], k]
        odds = (there.sum() + 1) / (len(there) - there.sum() + 1)
        assert float(found[k]) == pytest.approx(np.log(odds), rel=1e-5)
    holes = np.where(mask, np.nan, BITS)
    np.testing.assert_allclose(ed.bias_from(y, holes), np.nanmean(holes, axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match=r"No example of the data shows y\[2\]"):
        ed.bias_from(y, np.where(np.arange(4) == 2, np.nan, holes))
    # A finite site that is never shown has no preference.
    unseen = np.ma.array(BITS, mask=np.broadcast_to(np.arange(4) == 3, BITS.shape))
    assert float(ed.bias_from(x, unseen)[3]) == 0.0


def test_what_has_no_bias_is_told(untyped):
    x = ed.binary("x", 4)
    with pytest.raises(TypeError, match=r"bias_from got x\[:2\]; expected a variable as it was"):
        ed.bias_from(x[:2], BITS[:, :2])
    with pytest.raises(TypeError, match=r"'h', which no data show. Biases of hidden units start"):
        ed.bias_from(ed.binary("h", 4, latent=True), BITS)
    with pytest.raises(TypeError, match=r"'u', which the model is no distribution of"):
        ed.bias_from(ed.binary("u", 4, given=True), BITS)
    with pytest.raises(TypeError, match=r"'p' of the domain positive; .*ed.LogDensity"):
        ed.bias_from(ed.positive("p", 4), 1.0 + BITS)
    with pytest.raises(TypeError, match=r"bias_from got ndarray of shape .*before the data"):
        ed.bias_from(BITS, x)
    with pytest.raises(ValueError, match=r"has shape \(30, 3\); expected \(examples, 4\)"):
        ed.bias_from(x, BITS[:, :3])
    with pytest.raises(ValueError, match=r"no examples"):
        ed.bias_from(x, BITS[:0])
    with pytest.raises(ValueError, match=r"The data of 'x'.*2"):
        ed.bias_from(x, BITS + 1)
    with pytest.raises(TypeError, match=r"float"):
        ed.bias_from(x, jnp.asarray(BITS, float))
