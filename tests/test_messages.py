"""What somebody writes who knows NumPyro, PyMC or pgmpy, and the sentence that answers it.

One table: the line, its error, and the words of the message.
"""
# ruff: noqa: E501, F401 - one row is one line; the lines of the table use the imports

import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import energydsl as ed
from energydsl._types import check_key

KEY = jr.key(0)
s, x, c = ed.spin("s", 4), ed.real("x", 3), ed.categorical("c", levels=3)
J = ed.parameter("J", 0.5)
MODEL = ed.Model(-J * (s[1:] * s[:-1]).sum())
DATA = np.ones((5, 4), np.int8)
NETWORK = eqx.nn.MLP(4, "scalar", 2, 1, key=KEY)


@pytest.fixture(scope="module")
def names():
    """What the lines may use, each model compiled once."""
    return globals() | {
        "ebm": ed.compile(MODEL),
        "labels": ed.compile(ed.Model(ed.Table(log_potential=[0.0, -np.inf, 1.0])(c))),
        "forbidden": ed.compile(ed.Model(ed.Table(log_potential=np.full(3, -np.inf))(c))),
        "normal": ed.compile(ed.Model((x**2).sum() / 2)),
        "spaced": ed.compile(ed.Model(ed.positive("p") * 1.0)),
        "nothing": ed.compile(ed.Model(-(s[1:] * s[:-1]).sum())),
    }


DECLARED = [
    ("ed.categorical('c', 4, 3)", TypeError, r"too many .* categorical\(name, shape=\(\), \*, levels"),
    ("ed.categorical('c', 3)", TypeError, "missing .*'levels'.* after \\* is given by name"),
    ("ed.integer('n', 0, 5)", TypeError, r"integer\(name, shape=\(\), \*, low, high"),
    ("ed.real('x', observed=np.ones(3))", TypeError, r"'observed'.*model.condition\(x=data\)"),
    ("ed.real('x', obs=np.ones(3))", TypeError, r"'obs'.*model.condition\(x=data\)"),
    ("ed.parameter('J')", TypeError, r"missing .*'init'. Expected parameter\(name, init\)"),
    ("c == 5", ValueError, r"c == 5 never holds: c is categorical\(levels=3\).*{0, 1, 2}"),
    ("5 == c", ValueError, "never holds"),
    ("np.zeros(4) == s", ValueError, "never holds"),
    ("s[1:] != 0", ValueError, r"s == 0 never holds: s is spin; expected .*{-1, 1}"),
    ("s.reshape(2, 2).T == np.zeros((2, 2))", ValueError, "never holds"),
    ("x / 0", ValueError, "x is divided by 0, which is zero"),
    ("(x**2).sum() / (2 * 0.0)", ValueError, "divided by 0"),
    ("x / np.array([1.0, 0.0, 2.0])", ValueError, r"divided by f32\[3\], which has zeros"),
    ("ed.Neural(NETWORK)(x)", TypeError, r"Neural\[MLP\] could not .* shapes \(3,\): .*\(4,\)"),
    ("ed.apply(lambda a, b: a, x)", TypeError, r"shapes \(3,\): .*missing 1 required.*'b'"),
    ("ed.apply(lambda a: a[0] if a[0] > 0 else 0, x)", TypeError, r"<lambda> .*shapes \(3,\): Attempted bool"),
    ("ed.LogDensity(dist.Categorical)(c)", TypeError, "no parameters; expected either probs= or l"),
    ("ed.LogDensity(dist.Delta(0.0))(x)", TypeError, r"Delta, which has no density.*model.cond"),
    (
        "ed.LogDensity(dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))(x)",
        ValueError,
        r"shape \(3,\), but its events have shape \(2,\)",
    ),
    *[
        (f"ed.LogDensity(dist.{density})({view})", ValueError, f"Declare the variable by {domain}")
        for density, view, domain in (
            ("HalfNormal(1.0)", "x", "ed.positive"),
            ("Uniform(0.0, 1.0)", "x", r"ed.interval\(low=0, high=1\)"),
            ("Gamma(1.0, 1.0)", "x", "ed.positive"),
            ("Poisson(1.0)", "x", "ed.count"),
            ("Exponential(1.0)", "x", "ed.positive"),
            ("Normal(0.0, 1.0)", "c", "ed.real"),
            ("Normal(0.0, 1.0)", "s", "ed.real"),
        )
    ],
]  # fmt: skip

CONDITIONED = [
    ("MODEL.condition(s[0] == 1)", TypeError, r"got s\[0\] == 1; .*condition\({s\[0\]: 1}\)"),
    ("MODEL.condition(s)", TypeError, "expected a mapping or names"),
    ("MODEL.condition({s[0]: 1, s[:2]: -1})", ValueError, r"holds s\[0\] at 1 and at -1"),
    ("ed.compile(MODEL, 20)", TypeError, r"compile\(model, \*, budget=20"),
    ("ed.compile(MODEL, budget=-1)", ValueError, "budget=-1; .*at least 0"),
    ("ed.compile(MODEL, budget='20')", ValueError, "budget='20'; .*a whole number"),
    ("ed.compile(MODEL, memory=16e9)", ValueError, "memory=16000000000.0; .*a whole number"),
    ("forbidden.log_prob({'c': 0})", ValueError, "Every configuration has infinite energy.*A table"),
    ("ed.sample(forbidden, key=KEY, draws=1)", ValueError, "would begin at an infinite energy"),
    ("ebm.energy({'s': np.zeros(4)})", ValueError, r"'s' has a value outside spin.*{-1, 1}"),
    ("ebm.log_prob({'s': np.zeros(4)})", ValueError, "outside spin"),
    ("ebm.log_ratio({'s': np.zeros(4)}, {'s': np.ones(4)})", ValueError, "outside spin"),
    ("labels.log_prob({'c': 7})", ValueError, "outside categorical.*{0, 1, 2}"),
    ("labels.energy({'c': 0.5})", ValueError, "outside categorical"),
    ("spaced.log_prob({'p': -1.0})", ValueError, "outside positive.*numbers above 0"),
    ("normal.energy({'x': [0, np.nan, 0]})", ValueError, "'x' has NaN"),
]  # fmt: skip

SAMPLED = [
    ("ed.sample(MODEL, key=KEY)", TypeError, r"sample got Model; compile it first: ed.compile"),
    ("ed.sample(KEY, ebm)", TypeError, "missing .*'key'"),
    ("ed.sample(DATA, key=KEY)", TypeError, r"ndarray of shape \(5, 4\); .*sample\(ebm, \.\.\."),
    ("ed.sample(ebm, key=KEY, num_samples=9)", TypeError, "'num_samples'.*the number of draws is draws="),
    ("ed.sample(ebm, key=KEY, num_warmup=9)", TypeError, "warmup="),
    ("ed.sample(ebm, rng_key=KEY)", TypeError, "key=jax.random.key"),
    ("ed.sample(ebm, key=jr.split(KEY, 3))", ValueError, r"shape \(3,\) as its key; expected one key"),
    ("ed.sample(ebm, key=jr.split(jr.PRNGKey(0), 3))", ValueError, "expected one key"),
    ("ed.sample(ebm, key=3)", TypeError, "key=3; expected a key"),
    ("ed.sample(ebm, key=KEY, warmup=1.5)", ValueError, "warmup=1.5; .*at least 0"),
    ("ed.sample(ebm, key=KEY, warmup='a')", ValueError, "warmup='a'"),
    ("ed.sample(ebm, key=KEY, draws=10**12)", ValueError, r"draws=1,000,000,000,000, .* GB.* keep="),
    ("ed.sample(ebm, key=KEY, keep=['s'])", TypeError, r"keep=\['s'\]; .*keep={\"m\": lambda x"),
    ("ed.sample(ebm, key=KEY, keep='s')", TypeError, "functions by name"),
    ("ed.sample(ebm, key=KEY, keep={'m': 's'})", TypeError, r"keep\['m'\]='s'; expected functions"),
    ("ed.sample(ebm, key=KEY, keep={'m': s.sum()})", TypeError, "expected functions by name"),
    ("ed.sample(ebm, key=KEY, keep=lambda x: x['s'])", TypeError, "function <lambda>; expected func"),
    ("ed.sample(ebm, key=KEY, keep={'m': lambda a, b: a})", TypeError, "not take one configuration"),
    ("ed.sample(ebm, key=KEY, keep={'m': lambda x: x['s'][0].item()})", TypeError, "by item"),
    ("ed.sample(ebm, key=KEY, keep={'m': lambda x: float(x['s'][0])})", TypeError, "return an array"),
    ("ed.sample(ebm, key=KEY, keep={'m': lambda x: 1 if x['s'][0] > 0 else 0})", TypeError, "jnp.where"),
    ("jax.jit(lambda k: ed.sample(ebm, key=k))(KEY)", TypeError, "inside jax.jit"),
    ("ed.sample(labels, key=KEY, start={'c': 1}, draws=1)", ValueError, "infinite energy.*start="),
    ("ed.MetropolisHastings('x')", TypeError, r"proposal 'x'; expected .*proposal\(x, key=key\)"),
    ("ed.sample(ebm, ed.MetropolisHastings(lambda x: x), key=KEY)", TypeError, "cannot be called"),
    (
        "ed.sample(ebm, ed.MetropolisHastings(lambda x, *, key: x), key=KEY)",
        TypeError,
        r"returns dict; expected .*log q\(x \| x'\)",
    ),
    (
        "ed.sample(ebm, ed.MetropolisHastings(lambda x, *, key: ({}, 0.0)), key=KEY)",
        ValueError,
        r"returns {} .*expected a configuration of {'s': \(4,\)}",
    ),
    (
        "ed.sample(ebm, ed.MetropolisHastings(lambda x, *, key: (x, jnp.zeros(2))), key=KEY)",
        ValueError,
        r"a ratio of shape \(2,\); .*a scalar",
    ),
    ("ed.explain(ebm)", AttributeError, r"write ebm.explain\(\)"),
    ("ed.NUTZ", AttributeError, "it has ed.NUTS"),
    ("ed.zebra", AttributeError, "has no 'zebra'.$"),
    ("ed.sum(x)", AttributeError, r"write x.sum\(\) or np.sum\(x\)"),
]  # fmt: skip

LEARNT = [
    ("ed.log_likelihood(ebm, DATA, log_z=3.0)", TypeError, r"log_z=3.0; .*ed.LogZ.exact\(number\)"),
    ("ed.log_likelihood(ebm, DATA, 3.0)", TypeError, r"log_likelihood\(ebm, data, \*, log_z=None\)"),
    ("ed.log_likelihood(DATA, ebm)", TypeError, r"ndarray of shape \(5, 4\); expected a compiled"),
    ("ed.fit(ebm, DATA, ed.MaximumLikelihood(), key=KEY)", TypeError, r"objective ndarray of shape \(5, 4\); .*fit\(ebm, objective, data"),
    ("ed.fit(ed.MaximumLikelihood(), ebm, DATA, key=KEY)", TypeError, "compiled model first"),
    ("ed.fit(ebm, ed.MaximumLikelihood, DATA, key=KEY)", TypeError, "MaximumLikelihood; expected one"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, epochs=3)", TypeError, "is steps="),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, lr=3)", TypeError, "optax.adam"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, optimizer=optax.adam)", TypeError, "function adam; expected"),
    ("ed.fit(nothing, ed.MaximumLikelihood(), DATA, key=KEY)", ValueError, "nothing to learn"),
]  # fmt: skip

TABLE = DECLARED + CONDITIONED + SAMPLED + LEARNT


@pytest.mark.parametrize(("line", "error", "message"), TABLE, ids=[line for line, *_ in TABLE])
def test_a_mistake_is_answered_in_a_sentence(untyped, names, line, error, message):
    with pytest.raises(error, match=message) as raised:
        eval(line, names)
    assert len(str(raised.value)) < 600 or "Attempted bool" in message


def test_what_is_no_mistake_is_left_alone(names):
    assert (c == np.array([0, 1, 7])).shape == (3,)
    assert ed.Model((c == 2) * 1.0).energy({"c": 2.0}) == 1
    probabilities = names["labels"].conditional("c", {"c": 0}).probs
    np.testing.assert_allclose(probabilities, np.array([1, 0, np.e]) / (1 + np.e), rtol=1e-5)
    assert names["labels"].log_prob({"c": 1}) == -np.inf
    check_key(jr.PRNGKey(0), "sample")
    # A known value inside a transformation is checked, in the domain's own operations too.
    assert jax.jit(lambda b: b * names["spaced"].energy({"p": np.float32(2.0)}))(1.0) == 2
    # Values inside a transformation are not known, and not checked.
    assert jax.jit(names["ebm"].energy)({"s": np.zeros(4)}) == 0


def test_the_package_shows_its_public_names_only():
    assert sorted(dir(ed)) == sorted([*ed.__all__, "io"])


def test_an_older_python_is_told_which_version_is_needed(tmp_path):
    """The file must parse in Python 3.11, too, and raise before it imports anything else."""
    package = Path(ed.__file__).parent
    code = (
        "import sys\n"
        "sys.version_info = type('v', (tuple,), {'major': 3, 'minor': 11})((3, 11, 7))\n"
        "import energydsl"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=package.parent
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: energydsl needs Python 3.12 or later; this is Python 3.11."
    )
    compile((package / "__init__.py").read_text(), "energydsl", "exec", dont_inherit=True)
