"""Four starts of one objective: what they need, and what the whole run teaches."""

import numpy as np
import pytest

import energydsl as ed
from models_zoo import four_starts as zoo
from tests.zoo.words import check_words


def test_each_start_suits_a_model_of_exact_likelihood():
    ebm = ed.compile(zoo.declare(hidden=2))
    assert isinstance(ebm.normalizer, ed.Exact)
    train, test = zoo.digits()
    assert np.isfinite(ed.log_likelihood(ebm, test).value)
    for start, chains in zoo.STARTS.values():
        ed.ContrastiveDivergence(start=start, chains=chains).check(ebm, {"x": train})


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_old_chains_reach_the_highest_likelihood(tmp_path):
    numbers = zoo.main(out=tmp_path)
    check_words(zoo, numbers)
    assert (tmp_path / "likelihood.png").exists()
    assert numbers["persistent"]["log_likelihood"] > numbers["noise"]["log_likelihood"] + 1
    assert numbers["buffer"]["log_likelihood"] > numbers["noise"]["log_likelihood"] + 1
