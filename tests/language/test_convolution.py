"""Convolutions against SciPy, and as energies of a few sites each."""

import numpy as np
import pytest
import scipy.signal

import energydsl as ed

RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 2)).astype(np.float32)
BOUNDARIES = ("fill", "wrap", "symm")


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_convolution_of_an_image_is_scipys(mode, boundary):
    x = ed.real("x", (5, 6))
    expected = scipy.signal.convolve2d(X, KERNEL, mode, boundary)
    result = ed.conv(x, KERNEL, mode, boundary)
    assert result.shape == expected.shape
    weights = RNG.normal(size=expected.shape)
    energy = ed.Model((weights * result).sum()).energy({"x": X})
    np.testing.assert_allclose(energy, (weights * expected).sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_a_convolution_of_a_row_is_numpys(mode):
    expected = np.convolve(X[0], [1.0, -2.0, 0.5], mode)
    result = ed.conv(ed.real("x", 6), [1.0, -2.0, 0.5], mode)
    energy = ed.Model((np.arange(len(expected)) * result).sum()).energy({"x": X[0]})
    np.testing.assert_allclose(energy, (np.arange(len(expected)) * expected).sum(), rtol=1e-4)


def matrix(shape, kernel, boundary):
    """The convolution as a matrix, column by column."""
    columns = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.stack(
        [scipy.signal.convolve2d(c, kernel, "same", boundary).ravel() for c in columns], axis=1
    )


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_deblurring_is_one_line_and_exact(boundary):
    kernel, noise = np.array([[1.0, 2.0, 1.0], [0.5, 3.0, 0.5], [1.0, 1.5, 1.0]]) / 10, 0.5
    x = ed.real("x", (5, 6))
    blurred = ed.conv(x, kernel, boundary=boundary)
    ebm = ed.compile(ed.Model(((X - blurred) ** 2).sum() / (2 * noise**2) + (x**2).sum() / 20))

    a = matrix((5, 6), kernel, boundary)
    precision = a.T @ a / noise**2 + np.eye(30) / 10
    pull = a.T @ X.ravel() / noise**2
    at_zero = (X.astype(float) ** 2).sum() / (2 * noise**2)
    expected = (
        15 * np.log(2 * np.pi)
        - np.linalg.slogdet(precision)[1] / 2
        + pull @ np.linalg.solve(precision, pull) / 2
        - at_zero
    )
    # The kernel and the image are float32 numbers.
    np.testing.assert_allclose(ed.log_partition(ebm), expected, rtol=1e-5)
    coupled = np.argwhere(np.triu(a.T @ a > 0, 1))
    assert {tuple(e) for e in ebm.structure.edges.tolist()} == set(map(tuple, coupled.tolist()))


def test_a_convolution_has_the_scopes_of_its_sum_of_rolls():
    x, kernel = ed.real("x", (6, 5)), RNG.uniform(0.1, 1.0, (3, 3))
    rolls = sum(
        kernel[i, j] * ed.roll(ed.roll(x, i - 1, 0), j - 1, 1) for i in range(3) for j in range(3)
    )
    prior = (x**2).sum() / 2
    by_conv = ed.compile(ed.Model((ed.conv(x, kernel, boundary="wrap") ** 2).sum() / 2 + prior))
    by_rolls = ed.compile(ed.Model((rolls**2).sum() / 2 + prior))
    edges = [{tuple(e) for e in ebm.structure.edges.tolist()} for ebm in (by_conv, by_rolls)]
    assert edges[0] == edges[1]
    assert (by_conv.structure.colours.max()) == by_rolls.structure.colours.max()
    # Exact rules compute in float64 from the same float32 numbers.
    np.testing.assert_allclose(ed.log_partition(by_conv), ed.log_partition(by_rolls), rtol=1e-9)


def test_a_kernel_may_be_learnt():
    kernel = ed.parameter("k", KERNEL)
    model = ed.Model(ed.conv(ed.real("x", (5, 6)), kernel).sum())
    assert model.parameter_count == 6
    assert str(model).startswith("Model: E = (k.reshape(-1) * ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ed.conv(x, np.ones(3))", r"x of shape \(5, 6\) and a kernel of shape \(3,\)"),
        ("ed.conv(x[0, 0], np.ones(()))", "one at least"),
        ("ed.conv(x, np.ones((6, 2)))", "no larger than x along any axis"),
        ("ed.conv(x, np.ones((0, 2)))", "not empty"),
        ("ed.conv(x, np.ones((2, 2)), 'reflect')", r"mode='reflect'.*\('full', 'same', 'valid'\)"),
        ("ed.conv(x, np.ones((2, 2)), boundary='zero')", r"boundary='zero'.*'fill'"),
    ],
)  # fmt: skip
def test_a_wrong_convolution_is_told(line, message):
    with pytest.raises(ValueError, match=message):
        eval(line, {"ed": ed, "np": np, "x": ed.real("x", (5, 6))})
