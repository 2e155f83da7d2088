"""Random energies, drawn by Hypothesis from a grammar of what users can write."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from hypothesis import strategies as st

import energydsl as ed

RNG = np.random.default_rng(17)

NAMES = {
    "ed": ed,
    "jnp": jnp,
    "dist": dist,
    "s": ed.spin("s", 3),
    "b": ed.binary("b", 3),
    "c": ed.categorical("c", 3, levels=3),
    "x": ed.real("x", 3),
    "VECTOR": np.float32(RNG.normal(size=3)),
    "MATRIX": jnp.asarray(RNG.normal(size=(3, 3)), jnp.float32),
    "PAIRS": np.float32(RNG.normal(size=(3, 3, 2))),
    "NETWORK": ed.Neural(eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jr.key(0))),
    "SHORT": np.array([2, 0, 2]),
    "MASK": np.array([True, False, True]),
}
FINITE = [
    "s",
    "b",
    "(c == 0)",
    "(c * 0.5)",
    "ed.Table(PAIRS)(c, b)",
    "ed.Table(PAIRS)(c[::-1], s[SHORT])",
]
LEAVES = [*FINITE, "x", "x"]

VECTORS = [
    "({a} + {b})",
    "({a} - {b})",
    "({a} * {b})",
    "({a} / (2 + {b}**2))",
    "ed.where({a} > {b}, {a}, 0.5)",
    "({a}.sum() * {b})",
    "ed.apply(lambda u, v: u[::-1] * v.sum(), {a}, {b})",
    "(-{a})",
    "({a}**2)",
    "ed.tanh({a})",
    "ed.softplus({a})",
    "({a} == 1)",
    "(0.5 * {a} + 1.0)",
    "(VECTOR * {a})",
    "({a} @ MATRIX)",
    "({a}[:, None] * MATRIX).sum(0)",
    "({a}[:, None] - {a}).mean(1)",
    "{a}[::-1]",
    "ed.roll({a}, 1)",
    "{a}[SHORT]",
    "({a}[MASK].sum() + {a})",
    "{a}.reshape(1, 3).T.reshape(-1)",
]
SCALARS = [
    "{a}.sum()",
    "({a} @ {b})",
    "({a} @ MATRIX @ {b})",
    "ed.exp(0.1 * ed.tanh({a}).sum())",
    "NETWORK(ed.tanh({a}))",
    "ed.LogDensity(dist.Normal(VECTOR, 2.0))(ed.tanh({a}))",
    "ed.apply(jnp.max, 1.0 * {a})",
]


def _fill(rules, inner):
    return st.builds(lambda rule, a, b: rule.format(a=a, b=b), st.sampled_from(rules), inner, inner)


def energies(leaves=LEAVES):
    """Texts of energies over s, b, c and x, in which each of these stands."""
    vectors = st.recursive(
        st.sampled_from(leaves), lambda inner: _fill(VECTORS, inner), max_leaves=5
    )
    anchor = "0.1 * (s * b).sum() + 0.2 * (c == 1).sum()"
    anchor += " + (x**2).sum()" if "x" in leaves else ""
    scalars = _fill(SCALARS, vectors)
    return st.builds(lambda a, b: f"{a} + 0.3 * {b} + {anchor}", scalars, scalars)


def model_of(text):
    return ed.Model(eval(text, dict(NAMES)))


def configuration(model, key):
    """A random configuration in float64, where that is on."""
    keys = jr.split(key, len(model.skeleton.free))
    drawn = {}
    for v, k in zip(model.skeleton.free, keys, strict=True):
        if v.domain.discrete:
            drawn[v.name] = v.domain.start(v.shape, key=k)
        else:
            drawn[v.name] = jr.normal(k, v.shape)
    return drawn


def replaced(model, x, other, site):
    """`x` with one site, in the common numbering, taken from `other`."""
    result, start = dict(x), 0
    for v in model.variables:
        at = site - start
        mask = (jnp.arange(v.size) == at).reshape(v.shape)
        result[v.name] = jnp.where(mask, other[v.name], x[v.name])
        start += v.size
    return result
