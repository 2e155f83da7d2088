"""Identity by content: copies have one digest in every process, what differs has another."""

import functools
import math
import os
import subprocess
import sys
import textwrap
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import energydsl as ed
from energydsl._identity import content, digest
from energydsl.compiler.conclusions import Conclusions
from energydsl.run.quantities import Program

TABLE = np.arange(3.0)


def times(c):
    return lambda x: (x * c).sum()


def nested(c):
    """An array inside a jit inside a function."""
    w = np.full(4, c, np.float32)
    return lambda x: jax.jit(lambda z: (z * w).sum())(x)


def with_default(c):
    def scaled(x, c=c):
        return x * c

    return scaled


def with_keyword(c):
    def scaled(x, *, c=c):
        return x * c

    return scaled


def reads_a_global(x):
    return x * TABLE


def calls_a_global(x):
    return reads_a_global(x)


def derived(c):
    """A function with a derivative of its own."""

    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda primals, tangents: (primals[0], c * tangents[0]))
    return f


class Net(eqx.Module):
    weight: object
    activation: object = eqx.field(static=True, default=jnp.tanh)

    def __call__(self, x):
        return self.activation(self.weight * x)


class Other(eqx.Module):
    weight: object
    activation: object = eqx.field(static=True, default=jnp.tanh)

    def __call__(self, x):
        return self.activation(self.weight + x)


def blocks(*starts):
    s = ed.spin("s", 4)
    return ed.Gibbs(blocks=[s[i::2] for i in starts])


PAIRS = {
    "numbers": lambda: (1.0, 2.0),
    "types of numbers": lambda: (1, 1.0),
    "signs of zero": lambda: (0.0, -0.0),
    "texts": lambda: ("ab", "a"),
    "where texts end": lambda: (("ab", "c"), ("a", "bc")),
    "arrays": lambda: (np.ones(3), np.array([1.0, 1.0, 2.0])),
    "dtypes": lambda: (np.ones(3), np.ones(3, np.float32)),
    "shapes": lambda: (np.ones((2, 3)), np.ones((3, 2))),
    "keys": lambda: (jax.random.key(0), jax.random.key(1)),
    "implementations of a key": lambda: (jax.random.key(0, impl="rbg"),
                                         jax.random.key(0, impl="unsafe_rbg")),
    "closures": lambda: (times(1.0), times(2.0)),
    "captured arrays": lambda: (times(np.ones(2)), times(np.zeros(2))),
    "arrays in a nested jit": lambda: (nested(1.0), nested(2.0)),
    "defaults": lambda: (with_default(1.0), with_default(2.0)),
    "keyword defaults": lambda: (with_keyword(1.0), with_keyword(2.0)),
    "constants": lambda: (lambda x: x + 1, lambda x: x + 2),
    "names": lambda: (lambda x: x.sum(), lambda x: x.max()),
    "operations": lambda: (lambda x, y: x + y, lambda x, y: x - y),
    "code inside": lambda: (lambda x: (lambda y: y + 1), lambda x: (lambda y: y + 2)),
    "partials": lambda: (functools.partial(max, 1), functools.partial(max, 2)),
    "bound methods": lambda: (Net(1.0).__call__, Net(2.0).__call__),
    "jitted functions": lambda: (jax.jit(times(1.0)), jax.jit(times(2.0))),
    "derivatives of one's own": lambda: (derived(1.0), derived(2.0)),
    "functions of libraries": lambda: (jnp.tanh, jnp.sin),
    "functions written in C": lambda: (math.sin, math.cos),
    "universal functions": lambda: (np.sin, np.cos),
    "static fields": lambda: (Net(1.0), Net(1.0, jnp.sin)),
    "arrays of a network": lambda: (Net(jnp.ones(2)), Net(jnp.zeros(2))),
    "classes of one's own": lambda: (Net(1.0), Other(1.0)),
    "methods of one's own": lambda: (Net.__call__, Other.__call__),
    "densities with the same numbers": lambda: (dist.Normal(0.0, 1.0), dist.Cauchy(0.0, 1.0)),
    "which number is which": lambda: (dist.Normal(1.0, 2.0), dist.Normal(2.0, 1.0)),
    "settings of a kernel": lambda: (ed.Langevin(step_size=0.1), ed.Langevin(step_size=0.2)),
    "proposals": lambda: (ed.MetropolisHastings(times(1.0)), ed.MetropolisHastings(times(2.0))),
    "the order of blocks": lambda: (blocks(0, 1), blocks(1, 0)),
    "kernels in a cycle": lambda: (ed.Cycle(ed.Gibbs(), ed.NUTS()),
                                   ed.Cycle(ed.NUTS(), ed.Gibbs())),
    "sets": lambda: ({"a", "b"}, {"a", "c"}),
    "values by name": lambda: ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    "generators of numbers": lambda: (np.random.default_rng(0), np.random.default_rng(1)),
}  # fmt: skip


@pytest.mark.parametrize("make", list(PAIRS.values()), ids=list(PAIRS))
def test_copies_have_one_digest_and_what_differs_has_another(make):
    one, other = make()
    again, _ = make()
    assert content(one) == content(again)
    assert content(one) != content(other)
    assert not content(one).opaque and digest(one, "it") == digest(again, "it")


def test_globals_that_a_function_reads_are_part_of_it(monkeypatch):
    before = content(reads_a_global), content(calls_a_global)
    monkeypatch.setitem(globals(), "TABLE", np.arange(4.0))
    assert content(reads_a_global) != before[0] and content(calls_a_global) != before[1]
    monkeypatch.setitem(globals(), "TABLE", np.arange(3.0))
    assert (content(reads_a_global), content(calls_a_global)) == before


def test_a_function_that_calls_itself_ends():
    def down(n):
        return down(n - 1) if n else 0

    assert content(down) == content(down)


def test_order_of_names_and_of_sets_is_none():
    assert content({"a": 1, "b": 2}) == content({"b": 2, "a": 1})


def test_what_cannot_be_read_is_equal_to_itself_alone_and_refused():
    lock = threading.Lock()
    assert content(lock) == content(lock)
    assert content(lock) != content(threading.Lock())
    with pytest.raises(TypeError, match=r"cannot tell the kernel from another: it holds .*lock"):
        digest(lambda: lock, "the kernel")


SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, numpyro.distributions as dist, equinox as eqx
import energydsl as ed
from energydsl._identity import digest
w = np.ones(3)
class Net(eqx.Module):
    f: object = eqx.field(static=True, default=jnp.tanh)
    def __call__(self, x): return self.f(x * w).sum()
s = ed.spin("s", 3)
things = (
    lambda x: {"a", "b", "c", x}, Net(), dist.Normal(0.0, 1.0), jax.random.key(0), jax.nn.relu,
    ed.Gibbs(blocks=[s[::2], s[1::2]]), ed.Model(ed.Neural(Net())(s)), {"b", "a", "c"},
    eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0)),
)
print([digest(thing, "it") for thing in things])
"""


def test_digests_are_the_same_in_every_process():
    def run(seed):
        env = os.environ | {"PYTHONHASHSEED": seed}
        code = textwrap.dedent(SCRIPT)
        return subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, check=True
        )

    assert run("1").stdout == run("2").stdout


def test_traced_functions_are_told_apart_by_the_arrays_of_nested_jits():
    x = jnp.ones(4)
    one, again, other = (Program.trace(nested(c), x)[0] for c in (1.0, 1.0, 2.0))
    assert one == again and one != other


def test_numbers_of_a_traced_function_are_arguments():
    (one, numbers, _), (other, others, _) = (
        Program.trace(times(c), jnp.ones(4)) for c in (2.0, 3.0)
    )
    assert one == other and one(numbers, jnp.ones(4)) == 8.0 and one(others, jnp.ones(4)) == 12.0


def test_models_with_functions_of_one_text_are_the_same_model():
    y = ed.real("y")

    def model(power):
        return ed.Model(ed.apply(lambda y: y**power, y))

    assert model(2) == model(2) and hash(model(2)) == hash(model(2))
    assert model(2) != model(4) and model(2).skeleton.digest != model(4).skeleton.digest


def test_rules_with_settings_are_known_by_them():
    class Scaled(ed.AbstractRule):
        name = "scaled"

        def __init__(self, factor):
            self.factor = factor

    # Its methods do not matter here.
    Scaled.__abstractmethods__ = frozenset()
    plain = ed.compile(ed.Model(ed.spin("s", 2).sum() * 0.1)).conclusions

    def concluded(factor):
        return Conclusions(plain.structure, plain.budget, (Scaled(factor),), ())

    assert concluded(1.0) == concluded(1.0) != concluded(2.0)
