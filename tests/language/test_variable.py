"""Variables: names, shapes, and how sites are called in messages."""

import numpy as np
import pytest

import energydsl as ed
from energydsl.language.variable import Variable


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), ()), (3, (3,)), (np.int64(3), (3,)), ([2, 3], (2, 3)), (np.zeros((4, 5)).shape, (4, 5))],
)
def test_shapes_are_tuples_of_integers(untyped, shape, expected):
    variable = ed.spin("s", shape).variable
    assert variable.shape == expected
    assert variable.size == np.prod(expected)
    assert all(type(n) is int for n in variable.shape)


@pytest.mark.parametrize("shape", [0, -1, (2, 0), 2.0, (2, 1.5), "ab", None])
def test_a_bad_shape_is_refused(untyped, shape):
    with pytest.raises(ValueError, match=r"Variable 's' got shape .*; expected positive integers"):
        ed.spin("s", shape)


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_a_bad_name_is_refused(untyped, name):
    with pytest.raises(ValueError, match="expected a non-empty string without '/'"):
        ed.spin(name)


def test_sites_are_named_as_they_are_indexed():
    variable = ed.spin("s", (2, 3)).variable
    assert [variable.describe(k) for k in (0, 2, 5)] == ["s[0, 0]", "s[0, 2]", "s[1, 2]"]
    assert ed.spin("t").variable.describe(0) == "t"


def test_variables_compare_by_what_was_declared():
    assert ed.spin("s", 3).variable == ed.spin("s", (3,)).variable
    different = [
        ed.spin("t", 3),
        ed.spin("s", 4),
        ed.binary("s", 3),
        ed.spin("s", 3, latent=True),
    ]
    assert all(view.variable != ed.spin("s", 3).variable for view in different)


def test_printing_shows_domain_shape_and_latency():
    assert str(ed.spin("s", (2, 3), latent=True).variable) == "s: spin[2, 3] latent"
    assert str(ed.interval("u", low=0, high=1).variable) == "u: interval(low=0.0, high=1.0)[]"


def test_a_value_is_checked_under_the_variables_name():
    variable: Variable = ed.binary("b", 2).variable
    with pytest.raises(ValueError, match=r"Variable 'b' has a value outside binary"):
        variable.check([0, 2])
