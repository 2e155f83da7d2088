"""What somebody writes who knows NumPyro, PyMC or pgmpy, and the sentence that answers it.

One table: the line, its error, and the words of the message.
"""
# ruff: noqa: E501, F401 - one row is one line; the lines of the table use the imports

import copy
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
import pandas as pd
import pytest
import scipy.sparse as sp

import energydsl as ed
from energydsl._types import check_key

KEY, x0 = jr.key(0), np.ones(3)
s, x, c = ed.spin("s", 4), ed.real("x", 3), ed.categorical("c", levels=3)
p, image = ed.positive("p", 3), ed.spin("image", (6, 6))
J = ed.parameter("J", 0.5)
MODEL = ed.Model(-J * (s[1:] * s[:-1]).sum())
DATA = np.ones((5, 4), np.int8)
OPPOSED = np.array([[0, np.inf, np.inf], [np.inf, 0, 0]])
NETWORK = eqx.nn.MLP(4, "scalar", 2, 1, key=KEY)


@pytest.fixture(scope="module")
def names():
    """What the lines may use, each model compiled once."""
    ebm = ed.compile(MODEL)
    learnt = ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, steps=1, progress=False)
    return globals() | {
        "ebm": ebm,
        "history": learnt[1],
        "labels": ed.compile(ed.Model(ed.Table(log_potential=[0.0, -np.inf, 1.0])(c))),
        "forbidden": ed.compile(ed.Model(*(ed.Table(a)(c) for a in OPPOSED))),
        "normal": ed.compile(ed.Model((x**2).sum() / 2)),
        "spaced": ed.compile(ed.Model(ed.positive("p") * 1.0)),
        "chains": ed.sample(ebm, key=KEY, chains=2, draws=4, warmup=0, progress=False),
        "nothing": ed.compile(ed.Model(-(s[1:] * s[:-1]).sum())),
    }


DECLARED = [
    ("ed.categorical('c', 4, 3)", TypeError, r"too many .* categorical\(name, shape=\(\), \*, levels"),
    ("ed.categorical('c', 3)", TypeError, "missing .*'levels'.* after \\* is given by name"),
    ("ed.integer('n', 0, 5)", TypeError, r"integer\(name, shape=\(\), \*, low, high"),
    ("ed.real('x', observed=np.ones(3))", TypeError, r"'observed'.*model.condition\(x=data\)"),
    ("ed.real('x', obs=np.ones(3))", TypeError, r"'obs'.*model.condition\(x=data\)"),
    ("ed.parameter('J')", TypeError, r"missing .*'init'. Expected parameter\(name, init, "),
    ("c == 5", ValueError, r"c == 5 never holds: c is categorical\(levels=3\).*{0, 1, 2}"),
    ("5 == c", ValueError, "never holds"),
    ("np.zeros(4) == s", ValueError, "never holds"),
    ("s[1:] != 0", ValueError, r"s != 0 always holds: s is spin; expected .*{-1, 1}"),
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
    ("ed.log_likelihood(ebm, DATA, 3.0)", TypeError, r"log_likelihood\(ebm, data, \*, log_z=None"),
    ("ed.log_likelihood(DATA, ebm)", TypeError, r"ndarray of shape \(5, 4\); expected a compiled"),
    ("ed.fit(ebm, DATA, ed.MaximumLikelihood(), key=KEY)", TypeError, r"objective ndarray of shape \(5, 4\); .*fit\(ebm, objective, data"),
    ("ed.fit(ed.MaximumLikelihood(), ebm, DATA, key=KEY)", TypeError, "compiled model first"),
    ("ed.fit(ebm, ed.MaximumLikelihood, DATA, key=KEY)", TypeError, r"an instance of it is MaximumLikelihood\(\)"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, num_epochs=3)", TypeError, "is epochs="),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, lr=3)", TypeError, "optax.adam"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, optimizer=optax.adam)", TypeError, "function adam; expected"),
    ("ed.fit(nothing, ed.MaximumLikelihood(), DATA, key=KEY)", ValueError, "nothing to learn"),
]  # fmt: skip

WRITTEN = [
    ("x % 2", TypeError, r"remainder \(%\) .*ed.apply\(lambda a: jnp.remainder\(a, 2\), x\)"),
    ("2 % x", TypeError, r"jnp.remainder\(2, a\)"),
    ("x // 2", TypeError, r"floor_divide \(//\) .*jnp.floor_divide\(a, 2\)"),
    ("5 // x", TypeError, r"jnp.floor_divide\(5, a\)"),
    ("divmod(x, 2)", TypeError, r"jnp.divmod\(a, 2\)"),
    ("x << 1", TypeError, r"left_shift \(<<\)"),
    ("x >> 1", TypeError, r"right_shift \(>>\)"),
    ("s * [1, 2, 3, 4]", TypeError, r"got \[1, 2, 3, 4\]; .*Write np.array"),
    ("s * sp.eye_array(4)", TypeError, r"dia_array of shape \(4, 4\).*S @ x, or x @ S @ y"),
    ("s * pd.Series(range(4))", TypeError, r"Series of shape \(4,\); .*np.asarray"),
    ("pd.Series(range(4)) * s", TypeError, r"pandas enters as an array: table.to_numpy\(\)"),
    ("s * (lambda a: a)", TypeError, r"function <lambda>; .*ed.apply\(function, x\)"),
    ("s * None", TypeError, "An energy got None; expected a view, an array or a number"),
    ("s.exp()", AttributeError, r"no attribute 'exp': write np.exp\(x\)"),
    ("s.dot(s)", AttributeError, "write a @ b"),
    ("s.flatten()", AttributeError, r"write x.reshape\(-1\)"),
    ("s.prod()", AttributeError, r"ed.apply\(jnp.prod, x\)"),
    ("s.astype(float)", AttributeError, "leave it out"),
    ("s.item()", AttributeError, "its values are not known yet"),
    ("s.zebra", AttributeError, "'View' has no attribute 'zebra'$"),
    ("s.sum('a')", TypeError, "Got axis='a'; expected a whole number"),
    ("image.reshape(5, 5)", ValueError, r"reshape got \(5, 5\) for an expression of shape \(6, 6\)"),
    ("image.reshape('a')", TypeError, r"reshape got \('a',\).*whole numbers whose product is its 36"),
    ("ed.roll(s, 1.5)", TypeError, "shift=1.5; expected a whole number"),
    ("ed.apply(jnp.sum, s, axis=0)", TypeError, r"'axis'. Expected apply\(function, \*views\)"),
    ("ed.spin('s', dims=3)", TypeError, r"'s' got dims=3; expected the names of its axes"),
    ("ed.parameter('J', [[1, 2], [3]])", ValueError, r"Parameter 'J' got \[\[1, 2\], \[3\]\], which is no array"),
    ("ed.Model(energy=s.sum())", TypeError, r"without a name: ed.Model\(energy\)"),
    ("ed.Table(np.ones(2), s[0])", TypeError, r"Expected Table\(energy=None, .*ed.Table\(...\)\(x\)"),
    ("ed.Table(log_potential=np.full(3, -np.inf))(c)", ValueError, r"shape \(3,\) forbids every combination: "),
    ("ed.Table(np.array([[0.0, 0.0], [np.inf, np.inf]]))(s[:2])", ValueError, r"combination, at \(1,\) of its"),
    ("ed.LogDensity(dist.Normal, 0, 1)(x)", TypeError, r"ed.LogDensity\(dist.Normal\)\(x, mean, deviation\)"),
    ("ed.LogDensity(dist.Normal)('x', 0, 1)", TypeError, "An energy got 'x'"),
    ("ed.LogDensity(dist.HalfNormal(1.0))(2 * x)", ValueError, r"2 \* x for HalfNormal, whose support is .*it can be -"),
    ("ed.LogDensity(dist.HalfNormal(1.0))(p - 1)", ValueError, "it can be -"),
    ("ed.LogDensity(dist.Beta(1.0, 1.0))(p / 2)", ValueError, r"support is \[0, 1\]; it can be 1"),
    ("ed.LogDensity(dist.Uniform(0.0, 1.0))(x**2)", ValueError, "it can be"),
    ("ed.LogDensity(dist.Poisson)(np.array([1, -2]), p[:2])", ValueError, "it can be -2"),
    ("ed.LogDensity(dist.Poisson(1.0))(0.5 * s)", ValueError, "it can be -?0.5"),
    ("ed.LogDensity(dist.Normal)(x, 0, 2 * x)", ValueError, r"2 \* x for Normal's scale; .*it can be -"),
    ("ed.LogDensity(dist.Normal)(x, 0, -J)", ValueError, "-J for Normal's scale; .*it can be -0.5"),
    ("ed.LogDensity(dist.TruncatedNormal(low=0.0))(x)", ValueError, "all numbers above 0"),
]  # fmt: skip

ASKED = [
    ("ebm.sample(key=KEY)", AttributeError, r"write ed.sample\(ebm, ...\)"),
    ("ebm.fit(DATA)", AttributeError, r"write ed.fit\(ebm, ...\)"),
    ("ebm.logZ", AttributeError, r"ed.log_partition\(ebm\), which is exact, or ed.estimate"),
    ("ebm.condition(s=1)", AttributeError, "the model's: ebm.model.condition"),
    ("ebm.zebra", AttributeError, "'EBM' has no attribute 'zebra'$"),
    ("MODEL.sample(key=KEY)", AttributeError, r"ebm = ed.compile\(model\), ed.sample\(ebm, ...\)"),
    ("MODEL.log_prob({'s': s})", AttributeError, r"ed.compile\(model\), ebm.log_prob"),
    ("MODEL.compile()", AttributeError, r"write ed.compile\(model\)"),
    ("MODEL.add_factors(s)", AttributeError, "energies add"),
    ("chains.get_samples()", AttributeError, r'chains.draws\["name"\]'),
    ("chains.summary()", AttributeError, r"ed.diagnose\(chains\)"),
    ("chains['s']", TypeError, r"write chains.draws\['s'\]"),
    ("history.loss", AttributeError, r'write history\["loss"\]'),
    ("history['los']", KeyError, "no 'los'; it has loss"),
    ("ed.plot_energy(ebm)", TypeError, r"got EBM; .*chains = ed.sample\(ebm, key=key\), ed.plot_energy"),
    ("ed.plot_samples(ebm)", TypeError, "got EBM; expected the chains that ed.sample returns, or an"),
    ("ed.diagnose(chains.draws)", TypeError, "diagnose got dict; expected the chains"),
    ("ed.marginals(ebm)['t']", KeyError, r"no marginals of 't'; there are of \['s'\]"),
    ("ed.marginals(ebm, 's')", TypeError, "method 's'"),
    ("ed.log_partition(ebm, key=KEY)", TypeError, r"Expected log_partition\(ebm\)"),
    ("ed.estimate_log_partition(ebm)", TypeError, "missing a required argument: 'key'"),
    ("ed.estimate_log_partition(ebm, ed.AIS, key=KEY)", TypeError, r"an instance of it is AIS\(\)"),
    ("ed.AIS(1000)", TypeError, "AIS got the kernel 1000; expected one"),
    ("ed.SMC(num_particles=9)", TypeError, "is particles="),
    ("ed.predictive(ebm, chains)", TypeError, r"Expected predictive\(chains, \*, key\)"),
    ("ed.to_netcdf(chains)", TypeError, "missing a required argument: 'path'"),
    ("ed.report(ebm, 'run.html')", TypeError, r"got 'run.html'; .*ed.report\(ebm, path='run.html'\)"),
    ("ed.hmc()", AttributeError, r"write ed.HMC\(\) or ed.NUTS\(\)"),
    ("ed.Ising(4)", AttributeError, "write the energy"),
    ("ed.compile(ebm)", TypeError, "got EBM; it is compiled already"),
    ("ed.compile(MODEL, rules=3)", TypeError, "rules=3; expected a list"),
    ("ed.mixture([MODEL, MODEL])", TypeError, "got list; expected models, each an argument"),
    ("ed.mixture(ebm, ebm)", TypeError, "got EBM; expected models"),
    ("ebm.replace(0.3)", TypeError, r"replace got 0.3; .*replace\(W=array\)"),
    ("ebm.energy({'s': 'up'})", TypeError, "'s' got 'up'; expected an array of numbers"),
    ("ebm.energy({'s': [1, 1, [1], 1]})", TypeError, "expected an array of numbers"),
    ("ebm.conditional('s', {'s': np.zeros(4)})", ValueError, r"'s' has a value outside spin"),
    ("labels.conditional('c', {'c': 7})", ValueError, "outside categorical"),
    ("normal.score({'x': [0, np.nan, 0]})", ValueError, "'x' has NaN"),
    ("spaced.score({'p': -1.0})", ValueError, "outside positive"),
    ("normal.score({'y': 0})", ValueError, r"lacks \['x'\] and has the unknown \['y'\]"),
    ("ed.sample(ebm, ed.NUTS, key=KEY)", TypeError, r"NUTS \(the class; an instance of it is NUTS\(\)\)"),
    ("ed.Cycle(ed.Gibbs, ed.Gibbs)", TypeError, r"an instance of it is Gibbs\(\)"),
    ("ed.NUTS(0.1)", TypeError, "variables=0.1; expected names.*step_size=0.1"),
    ("ed.NUTS(variables='x')", TypeError, "variables='x'; expected names"),
    ("ed.NUTS(step_size='a')", ValueError, "step_size='a'; expected a number above 0"),
    ("ed.NUTS(max_tree_depth=2.5)", ValueError, "max_tree_depth=2.5; expected a whole number"),
    ("ed.NUTS(target_accept_prob=0.9)", TypeError, "the acceptance rate is target="),
    ("ed.Langevin(target=1.0)", ValueError, "target=1.0; expected a rate between 0 and 1"),
    ("ed.Gibbs(['s'])", TypeError, r"got 's' among its blocks; .*ed.Gibbs\(\[s\[::2\], s\[1::2\]\]\)"),
    ("ed.Gibbs(3)", TypeError, "got 3 among its blocks"),
    ("ed.sample(ebm, key=KEY, keep={1: lambda x: x['s']})", TypeError, "the name 1 in keep="),
    ("ed.sample(ebm, key=KEY, checkpoint=3)", TypeError, "checkpoint=3; expected the path of a folder"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA, key=KEY, checkpoint=3)", TypeError, "checkpoint=3"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), 'data.csv', key=KEY)", TypeError, "is 'data.csv', no array of numbers"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), [[1, 1], [1]], key=KEY)", ValueError, "is a list that is no array"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), sp.csr_array(DATA), key=KEY)", TypeError, r"array.toarray\(\)"),
    ("ed.fit(ebm, ed.MaximumLikelihood(), DATA.astype(str), key=KEY)", TypeError, "numpy.unique"),
]  # fmt: skip

TABLE = DECLARED + CONDITIONED + SAMPLED + LEARNT + WRITTEN + ASKED


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


def test_densities_over_expressions_inside_their_support_are_left_alone():
    half, spread = ed.LogDensity(dist.HalfNormal(1.0)), ed.LogDensity(dist.Normal)
    for inside in (np.exp(x), p * 2, x**2 + 1, p[0] + p[1:], np.where(x > 0, 1.0, 2.0)):
        assert half(inside).shape == spread(x, 0, inside.sum()).shape == ()
    u = ed.interval("u", low=0.0, high=1.0)
    ed.LogDensity(dist.Beta(1.0, 1.0))(1 - u)
    ed.LogDensity(dist.Poisson(1.0))(c + 2 * (c == 1))
    spread(np.ones(3), x, 1.0)
    # Inside a transformation, values are not known.
    assert jax.jit(lambda a: ed.Model(spread(x, 0, a * p)).energy({"x": x0, "p": x0}))(1.0) > 0


def test_a_missing_attribute_is_answered_where_copies_and_pickles_look_for_one(names):
    for one in (names["ebm"], MODEL, names["chains"], names["history"], s):
        assert not hasattr(one, "__nothing__")
        with pytest.raises(AttributeError) as raised:
            str(one.sampel)
        # With these Python itself suggests a name that is spelt alike.
        assert raised.value.name == "sampel" and raised.value.obj is one
    copied = copy.deepcopy(names["chains"])
    np.testing.assert_array_equal(copied.draws["s"], names["chains"].draws["s"])


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
