"""Examples with missing entries, beside sums over them in NumPy."""

import itertools
from functools import cache

import jax.random as jr
import numpy as np
import numpy.ma as ma
import optax
import pytest
from scipy.stats import multivariate_normal

import energydsl as ed

LENGTH, LEVELS = 4, 3


@cache
def tables():
    rng = np.random.default_rng(6)
    return (
        rng.normal(size=(LENGTH, LEVELS)).astype(np.float32),
        rng.normal(size=(LENGTH - 1, LEVELS, LEVELS)).astype(np.float32),
    )


@cache
def chain(clamped=False):
    """A chain of labels with a table of its own at every site and pair."""
    own, pair = tables()
    y = ed.categorical("y", LENGTH, levels=LEVELS)
    energy = ed.Table(ed.parameter("own", own))(y).sum()
    energy += ed.Table(ed.parameter("pair", pair))(y[:-1], y[1:]).sum()
    model = ed.Model(energy)
    return ed.compile(model.condition({y[1]: 2}) if clamped else model)


def states():
    return np.array(list(itertools.product(range(LEVELS), repeat=LENGTH)))


def law(x=None):
    own, pair = tables()
    t = np.arange(LENGTH)
    energy = own[t, states()].astype(float).sum(axis=1)
    energy += pair[t[:-1], states()[:, :-1], states()[:, 1:]].sum(axis=1)
    return np.exp(-energy) / np.exp(-energy).sum()


def examples(count=6):
    """Labels, of which some are masked: none in the first, all in the second."""
    rng = np.random.default_rng(9)
    mask = rng.random((count, LENGTH)) < 0.5
    mask[0], mask[1] = False, True
    return ma.array(rng.integers(0, LEVELS, (count, LENGTH)), mask=mask)


def agreeing(example):
    """True at the states that agree with what an example shows."""
    return (np.ma.getmaskarray(example) | (states() == np.ma.getdata(example))).all(axis=1)


def test_missing_labels_are_summed_out():
    data = examples()
    expected = np.log([law()[agreeing(row)].sum() for row in data])
    found = ed.log_likelihood(chain(), data)
    np.testing.assert_allclose(found.examples, expected, atol=2e-6)
    assert found.kind == "exact" and abs(found.examples[1]) < 2e-6


def test_what_lies_under_a_mask_does_not_matter():
    data = examples()
    other = ma.array(np.where(data.mask, 99, data.data), mask=data.mask)
    a, b = (ed.log_likelihood(chain(), d).examples for d in (data, other))
    np.testing.assert_array_equal(a, b)
    whole = examples().data
    plain = ed.log_likelihood(chain(), whole).examples
    np.testing.assert_allclose(
        ed.log_likelihood(chain(), ma.array(whole)).examples, plain, atol=2e-6
    )


def test_the_gradient_is_the_difference_of_two_means():
    data = examples()
    hot = np.eye(LEVELS)[states()]
    pairs = hot[:, :-1, :, None] * hot[:, 1:, None, :]
    weights = [law() * agreeing(row) / law()[agreeing(row)].sum() for row in data]
    shift = np.mean(weights, axis=0) - law()
    learnt, history = ed.fit(
        chain(), ed.MaximumLikelihood(), data, key=jr.key(0), steps=1, optimizer=optax.sgd(1.0)
    )
    for name, features in (("own", hot), ("pair", pairs)):
        change = np.asarray(chain().parameters[name] - learnt.parameters[name])
        np.testing.assert_allclose(change, np.tensordot(shift, features, 1), atol=2e-6)
    expected = -np.mean([np.log(law()[agreeing(row)].sum()) for row in data])
    assert history["loss"][0] == pytest.approx(expected, abs=2e-6)


@pytest.mark.slow
def test_divergence_draws_missing_entries_from_their_law():
    """With exact draws of both terms, the mean gradient is that of the likelihood.

    36 numbers, each within 6 standard errors: a false alarm of 7e-8.
    """
    data = examples()
    many = ma.concatenate([data] * 400)
    objective = ed.ContrastiveDivergence(
        kernel=ed.ExactDraws(), start="noise", settle=1, chains=2400
    )
    hot = np.eye(LEVELS)[states()]
    weights = [law() * agreeing(row) / law()[agreeing(row)].sum() for row in data]
    expected = np.tensordot(np.mean(weights, axis=0) - law(), hot, 1)
    each = []
    for k in range(10):
        learnt, _ = ed.fit(
            chain(), objective, many, key=jr.key(k), steps=1, optimizer=optax.sgd(1.0)
        )
        each.append(np.asarray(chain().parameters["own"] - learnt.parameters["own"]))
    spread = np.sqrt(2 * 0.25 / 2400 / len(each))
    assert np.abs(np.mean(each, axis=0) - expected).max() < 6 * spread


def test_clamped_sites_stay_clamped_under_a_mask():
    """Whether data show the clamped site or not, and whatever they show, it is held at 2."""
    data = examples()
    held = law() * (states()[:, 1] == 2)
    held /= held.sum()
    free = np.delete(np.arange(LENGTH), 1)
    expected = []
    for row in data:
        same = np.ma.getmaskarray(row) | (states() == np.ma.getdata(row))
        expected.append(np.log(held[same[:, free].all(axis=1)].sum()))
    found = ed.log_likelihood(chain(clamped=True), data).examples
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_nan_is_a_missing_number():
    """Any part of a normal vector is normal."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=(3, 3))
    precision, h = (a @ a.T + np.eye(3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    y = ed.real("y", 3)
    ebm = ed.compile(ed.Model(y @ precision @ y / 2 - h @ y))
    data = rng.normal(size=(4, 3))
    for row, column in ((0, 1), (1, 0), (1, 2), (3, 0), (3, 1), (3, 2)):
        data[row, column] = np.nan
    cov = np.linalg.inv(precision.astype(float))
    mean, expected = cov @ h, []
    for row in data:
        at = np.flatnonzero(~np.isnan(row))
        part = multivariate_normal(mean[at], cov[np.ix_(at, at)]) if len(at) else None
        expected.append(part.logpdf(row[at]) if part else 0.0)
    np.testing.assert_allclose(ed.log_likelihood(ebm, data).examples, expected, atol=5e-6)
    masked = ma.masked_invalid(data)
    np.testing.assert_allclose(ed.log_likelihood(ebm, masked).examples, expected, atol=5e-6)
    both = ma.array(data, mask=[[0, 0, 0]] * 3 + [[0, 0, 1]])
    both.data[3, 2] = 1.5
    np.testing.assert_allclose(ed.log_likelihood(ebm, both).examples, expected, atol=5e-6)


def test_labels_and_numbers_may_both_be_missing():
    """A mixture of two normals over two numbers, with a label that is shown at times."""
    k, y = ed.spin("k"), ed.real("y", 2)
    ebm = ed.compile(ed.Model(-0.4 * k + ((y - 1.5 * k) ** 2).sum() / 2))
    ks = ma.array([1, -1, 1, -1], mask=[0, 1, 0, 1])
    ys = np.array([[0.3, np.nan], [1.0, -0.2], [np.nan, np.nan], [np.nan, 0.7]])
    prior = np.exp(0.4 * np.array([-1, 1]))
    prior /= prior.sum()
    expected = []
    for label, row in zip(ks, ys, strict=True):
        total = 0.0
        for p, level in zip(prior, (-1, 1), strict=True):
            if label is not ma.masked and label != level:
                continue
            gaps = (row - 1.5 * level)[~np.isnan(row)]
            total += p * np.prod(np.exp(-(gaps**2) / 2) / np.sqrt(2 * np.pi))
        expected.append(np.log(total))
    found = ed.log_likelihood(ebm, {"k": ks, "y": ys})
    np.testing.assert_allclose(found.examples, expected, atol=2e-6)
    # A variable without missing entries beside one with some is shown whole.
    whole = ed.log_likelihood(ebm, {"k": np.array([1, -1]), "y": np.array([[0.3, np.nan], [1, 2]])})
    normal = -(np.array([[0.3 - 1.5, 0], [2.5, 3.5]]) ** 2).sum(axis=1) / 2
    logs = np.log(prior[[1, 0]]) + normal - np.array([1, 2]) * np.log(2 * np.pi) / 2
    np.testing.assert_allclose(whole.examples, logs, atol=2e-6)


def test_latents_are_summed_out_with_what_is_missing():
    rng = np.random.default_rng(1)
    w = rng.normal(size=(4, 3)).astype(np.float32)
    x, h = ed.binary("x", 4), ed.binary("h", 3, latent=True)
    ebm = ed.compile(ed.Model(-(x @ w @ h) + 0.3 * x.sum()))
    every = np.array(list(itertools.product([0, 1], repeat=4)))
    free = np.logaddexp(0, every @ w.astype(float)).sum(axis=1) - 0.3 * every.sum(axis=1)
    joint = np.exp(free - np.logaddexp.reduce(free))
    data = ma.array(rng.integers(0, 2, (5, 4)), mask=rng.random((5, 4)) < 0.4)
    same = [(np.ma.getmaskarray(r) | (every == np.ma.getdata(r))).all(axis=1) for r in data]
    expected = np.log([joint[s].sum() for s in same])
    np.testing.assert_allclose(ed.log_likelihood(ebm, data).examples, expected, atol=3e-6)


def test_labels_may_be_missing_beside_inputs():
    """A sequence shorter than the model: its last labels are masked, and its pairs weigh 0."""
    rng = np.random.default_rng(3)
    x, m = ed.real("x", (4, 2), given=True), ed.binary("m", 3, given=True)
    y = ed.spin("y", 4)
    w = rng.normal(size=2).astype(np.float32)
    ebm = ed.compile(ed.Model(-(x @ w) @ y - 0.7 * (m * y[1:] * y[:-1]).sum()))
    xs, ys = rng.normal(size=(2, 4, 2)).astype(np.float32), rng.choice([-1, 1], size=(2, 4))
    mask = np.array([[0, 0, 0, 0], [0, 0, 1, 1]], bool)
    pairs = np.array([[1, 1, 1], [1, 0, 0]])
    expected = []
    for row, labels, length in zip(xs, ys, (4, 2), strict=True):
        every = np.array(list(itertools.product([-1, 1], repeat=length)))
        field = row[:length].astype(float) @ w
        score = every @ field + 0.7 * (every[:, 1:] * every[:, :-1]).sum(axis=1)
        own = labels[:length] @ field + 0.7 * (labels[1:length] * labels[: length - 1]).sum()
        expected.append(own - np.logaddexp.reduce(score))
    data = {"x": xs, "m": pairs, "y": ma.array(ys, mask=mask)}
    np.testing.assert_allclose(ed.log_likelihood(ebm, data).examples, expected, atol=2e-6)


def test_new_patterns_compile_nothing(compilations):
    rng = np.random.default_rng(0)

    def run(k):
        mask = rng.random((8, LENGTH)) < 0.3 + 0.4 * k
        data = ma.array(rng.integers(0, LEVELS, mask.shape), mask=mask)
        ed.fit(chain(), ed.MaximumLikelihood(), data, key=jr.key(k), steps=3, batch=4)
        ed.log_likelihood(chain(), data)

    run(0)
    before = len(compilations)
    run(1)
    assert before and len(compilations) == before


def test_a_shown_level_that_is_forbidden_has_probability_0():
    y = ed.categorical("y", 3, levels=2)
    ban = np.array([[0, 0], [0, np.inf]])
    ebm = ed.compile(ed.Model(ed.Table(ban)(y[:-1], y[1:]).sum()))
    data = ma.array([[1, 1, 0], [1, 0, 1], [1, 0, 0]], mask=[[0, 0, 1], [0, 1, 0], [1, 1, 1]])
    found = ed.log_likelihood(ebm, data).examples
    np.testing.assert_allclose(found, [-np.inf, np.log(1 / 5), 0], atol=1e-6)


def test_what_cannot_be_missing_is_told():
    data = examples()
    with pytest.raises(TypeError, match=r"PseudoLikelihood needs every entry.*12 of 'y'"):
        ed.fit(chain(), ed.PseudoLikelihood(), data, key=jr.key(0))
    whole = ed.fit(chain(), ed.PseudoLikelihood(), ma.array(data.data), key=jr.key(0), steps=1)
    assert np.isfinite(whole[1]["loss"]).all()
    g, x = ed.positive("g", 2), ed.real("x", 2, given=True)
    ebm = ed.compile(ed.Model((g + x * g).sum()))
    hidden = ma.array(np.ones((3, 2)), mask=[[1, 0], [0, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"'g' lack 2 of 6 entries.*domain positive"):
        ed.log_likelihood(ebm, {"g": hidden, "x": np.ones((3, 2))})
    with pytest.raises(ValueError, match=r"'x' lack 2 of 6 entries.*is an input"):
        ed.log_likelihood(ebm, {"g": np.ones((3, 2)), "x": hidden})
    s = ed.spin("s", (6, 6))
    bonds = ed.Model(-(s[1:] * s[:-1]).sum() - (s[:, 1:] * s[:, :-1]).sum() - 0.1 * s.sum())
    wide = ed.compile(bonds, budget=3)
    some = ma.array(np.ones((2, 6, 6), int), mask=np.arange(72).reshape(2, 6, 6) % 3 == 0)
    with pytest.raises(ed.IntractableError, match="What data do not show cannot be summed out"):
        ed.log_likelihood(wide, some, log_z=ed.LogZ.exact(0.0))
    with pytest.raises(TypeError, match="MaximumLikelihood needs"):
        ed.fit(wide, ed.MaximumLikelihood(), some, key=jr.key(0))


def test_batches_of_an_iterator_agree_in_what_may_be_missing():
    parts = [examples(), examples().data]
    with pytest.warns(UserWarning, match="masked arrays"):
        _, history = ed.fit(chain(), ed.MaximumLikelihood(), iter(parts), key=jr.key(0))
    assert len(history["loss"]) == 1
    both = [examples(), ma.array(examples().data)]
    _, history = ed.fit(chain(), ed.MaximumLikelihood(), iter(both), key=jr.key(0), steps=2)
    assert len(history["loss"]) == 2 and history.stopped is None
