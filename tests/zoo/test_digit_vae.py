"""The autoencoder's energy against the densities that it consists of, and its goal."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st

import energydsl as ed
from models_zoo import digit_vae as zoo
from tests.zoo.words import check_words


def test_it_is_normalised_and_drawn_ancestrally():
    vae, guide = ed.compile(zoo.declare(3)), ed.compile(zoo.encoder(3))
    image, code = zoo.digits()[1][0], np.array([0.3, -1.0, 0.5])
    share = np.asarray(zoo.means(vae, code[None]))[0]
    expected = jax.nn.sigmoid(zoo.network(3, 64, 0)(jnp.asarray(code)))
    np.testing.assert_allclose(share, expected, rtol=1e-4)
    log_p = st.norm.logpdf(code).sum() + st.bernoulli.logpmf(image, share).sum()
    assert float(vae.log_prob({"x": image, "z": code})) == pytest.approx(log_p, rel=1e-4)
    found = ed.log_likelihood(vae, image[None], guide=guide, samples=50, key=jr.key(0))
    assert found.kind == "bound" and found.value < 0


@pytest.mark.slow
def test_learning_reaches_its_goal(tmp_path, optimised):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    # -17.32 by many draws and -17.66 by two with seed 0.
    assert numbers["bound"] > max(-17.6, numbers["few"])
    assert numbers["pixels"] < -25 and numbers["wrong"] < 0.07
    assert (tmp_path / "digits.png").stat().st_size > 10_000
