"""The machine of grey levels: its conditionals against NumPy, and its goal."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import grey_levels as zoo
from tests.zoo.words import check_words


def test_conditionals_are_those_of_all_levels():
    rng = np.random.default_rng(0)
    share, w = rng.dirichlet(np.ones(256)), rng.normal(0.3, 0.1, 36)
    ebm = ed.compile(zoo.declare(share)).replace(w=w)
    test = zoo.patches(zoo.pictures.camera(), 3, rng)
    guess, nats = zoo.predicted(ebm, test)
    levels, given, expected = np.arange(256), [], []
    for x in test:
        for i in range(9):
            energy = -np.log(share)
            for weight, a, b in zip(w, zoo.FIRST, zoo.SECOND, strict=True):
                if i in (a, b):
                    other = x[b if a == i else a]
                    energy = energy + weight * ((levels - other) / 16) ** 2 / 2
            law = np.exp(-energy - np.logaddexp.reduce(-energy))
            given.append(-np.log(law[x[i]]))
            if i == zoo.CENTRE:
                expected.append(law @ levels)
    np.testing.assert_allclose(guess, expected, rtol=1e-3)
    assert nats == pytest.approx(np.mean(given), rel=1e-3)


@pytest.mark.slow
def test_learning_reaches_its_goal(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert numbers["given_others"] < 4.1 and numbers["alone"] > 5.4
    assert numbers["error"] < numbers["error_neighbours"]
    assert (tmp_path / "patches.png").stat().st_size > 10_000
