"""Models, EBMs, kernels and chains pass through pickle, copies and joblib's processes."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import joblib
import numpy as np
import pytest

import energydsl as ed
from energydsl import _pickling

X = {"s": np.array([1, -1, 1])}
s = ed.spin("s", 3)
NETWORK = eqx.nn.MLP(3, "scalar", 2, 1, key=jr.key(0))


def cubes(values):
    return (values**3).sum()


MODELS = {
    "expression": lambda: ed.Model(-ed.parameter("J", 0.5) * (s[1:] * s[:-1]).sum()),
    "clamped": lambda: ed.Model((s[1:] * s[:-1]).sum()).condition({s[2]: 1}),
    "network": lambda: ed.Model(ed.Neural(NETWORK)(s)),
    "function of JAX": lambda: ed.Model(ed.apply(jnp.sum, s)),
    "function of a module": lambda: ed.Model(ed.apply(cubes, s)),
    "lambda": lambda: ed.Model(ed.apply(lambda v: v[0] * v[1] * v[2], s)),
}
WAYS = {"pickle": lambda a: pickle.loads(pickle.dumps(a)), "copy": copy.copy,
        "deepcopy": copy.deepcopy}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_an_ebm_comes_back_as_it_was(kind, way):
    ebm = ed.compile(MODELS[kind]())
    again = WAYS[way](ebm)
    values = {v.name: X[v.name] for v in ebm.structure.skeleton.free}
    assert again.energy(values) == ebm.energy(values)
    assert again.normalizer.kind == ebm.normalizer.kind
    assert list(again.parameters) == list(ebm.parameters)


def test_chains_come_back_with_their_draws():
    ebm = ed.compile(MODELS["expression"]())
    flip = ed.MetropolisHastings(lambda x, *, key: ({"s": -x["s"]}, 0.0))
    chains = ed.sample(ebm, flip, key=jr.key(1), chains=1, warmup=0, draws=3, progress=False)
    for way in WAYS.values():
        again = way(chains)
        np.testing.assert_array_equal(again.draws["s"], chains.draws["s"])
        assert again.ebm.energy(X) == ebm.energy(X)
        assert again.kernel.scale == flip.scale and again.kernel.proposal(X, key=None)[1] == 0.0


def test_a_function_without_a_name_is_told_where_nothing_stores_its_code(monkeypatch):
    monkeypatch.setattr(_pickling, "CLOUD", ("no_such_module",))
    model = MODELS["lambda"]()
    with pytest.raises(pickle.PicklingError, match=r"no name in a module.*by def.*cloudpickle"):
        pickle.dumps(model)
    assert copy.deepcopy(model).energy(X) == model.energy(X)


def test_functions_of_jax_are_pickled_by_their_names():
    for function in (jax.nn.relu, jnp.tanh, jax.nn.silu):
        assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.slow
def test_joblib_passes_an_ebm_to_its_processes():
    ebm = ed.compile(MODELS["lambda"]())
    energies = joblib.Parallel(n_jobs=2)(joblib.delayed(ebm.energy)(X) for _ in range(2))
    assert [float(e) for e in energies] == [-1.0, -1.0]
