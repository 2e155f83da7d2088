"""Moves of many sites at once, compared by effective draws of a quantity per second."""

import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import NUTS as NumPyroNUTS
from numpyro.infer.util import initialize_model

import energydsl as ed
from benchmarks.measure import Row

SIDE = 64

CHAINS, WARMUP, DRAWS = 4, 1000, 4000
POINTS, CENTRES = 300, np.array([-4.5, -1.5, 1.5, 4.5])


def rows() -> list[Row]:
    """Trees on critical lattices of equal and of unequal couplings; labels of a mixture."""
    equal = float(np.log(1 + np.sqrt(2)) / 2)
    # The critical line is sinh(2 a) sinh(2 b) = 1.
    along = 1.5
    across = float(np.arcsinh(1 / np.sinh(2 * along)) / 2)
    return [
        _trees("equal couplings", equal, equal),
        _trees("couplings 1.5, 0.05", along, across),
        *_mixture(),
    ]


def rate(ebm, kernel, keep, **options) -> float:
    """The least effective draws per second of any quantity, in a run that is compiled already."""
    options = {"chains": 4, "warmup": 1000, "draws": 20_000, "progress": False} | options
    ed.sample(ebm, kernel, key=jax.random.key(0), keep=keep, **options)
    chains = ed.sample(ebm, kernel, key=jax.random.key(1), keep=keep, **options)
    return least_effective(chains.draws) / chains.seconds


def least_effective(draws: dict[str, np.ndarray]) -> float:
    """The least effective number of draws of any quantity."""
    return min(float(np.min(effective_sample_size(x.astype(float)))) for x in draws.values())


def _trees(name: str, along: float, across: float) -> Row:
    s = ed.spin("s", (SIDE, SIDE))
    bonds = along * (s[:, 1:] * s[:, :-1]).sum() + across * (s[1:] * s[:-1]).sum()
    ebm, keep = ed.compile(ed.Model(-bonds)), {"size": lambda x: jnp.abs(x["s"].mean())}
    ours, single = (rate(ebm, kernel, keep) for kernel in (ed.Gibbs(blocks="trees"), ed.Gibbs()))
    return Row(
        f"Trees, critical Ising 64 x 64, {name}",
        f"{ours:.3g} draws of |m| a second",
        f"{single:.3g} (single sites), 5 x",
        f"{ours / single:.2f} x: {'ok' if ours >= 5 * single else 'MISSED'}",
    )


def _mixture() -> list[Row]:
    """Labels summed out under NUTS, in a Cycle with Gibbs, and by NumPyro's enumeration."""
    rng = np.random.default_rng(0)
    data = CENTRES[rng.integers(0, 4, POINTS)] + rng.normal(size=POINTS)
    ebm, options = ed.compile(_declared(data)), {"warmup": WARMUP, "draws": DRAWS}
    keep = {name: lambda x, name=name: x[name] for name in ("mu", "sigma", "w")}
    ours = rate(ebm, ed.NUTS(summed=True), keep, **options)
    cycle = rate(ebm, ed.Cycle(ed.Gibbs(), ed.NUTS()), keep, **options)
    theirs = _numpyro(data)
    name, mine = "NUTS, mixture of four normals", f"{ours:.3g} effective draws a second"
    return [
        Row(name, mine, f"{other:.3g} ({who}), {goal} x",
            f"{ours / other:.1f} x: {'ok' if ours >= goal * other else 'MISSED'}")
        for who, other, goal in (("Cycle(Gibbs, NUTS)", cycle, 10), ("NumPyro", theirs, 1))
    ]  # fmt: skip


def _declared(data: np.ndarray) -> ed.Model:
    k, v = ed.categorical("k", POINTS, levels=4), ed.real("v", POINTS)
    mu, sigma, w = ed.real("mu", 4), ed.positive("sigma", 4), ed.simplex("w", 4)
    normal = ed.LogDensity(dist.Normal)
    return ed.Model(
        ed.LogDensity(dist.Dirichlet)(w, np.full(4, 5.0))
        + normal(mu, CENTRES, 0.5)
        + ed.LogDensity(dist.Gamma)(sigma, 5.0, 5.0)
        + ed.LogDensity(dist.Categorical)(k, w)
        + normal(v, mu[k], sigma[k])
    ).condition(v=data)


def _in_numpyro(data: np.ndarray) -> None:
    """The same mixture as a NumPyro program."""
    w = numpyro.sample("w", dist.Dirichlet(np.full(4, 5.0)))
    mu = numpyro.sample("mu", dist.Normal(CENTRES, 0.5).to_event(1))
    sigma = numpyro.sample("sigma", dist.Gamma(np.full(4, 5.0), 5.0).to_event(1))
    with numpyro.plate("point", POINTS):
        k = numpyro.sample("k", dist.Categorical(w), infer={"enumerate": "parallel"})
        numpyro.sample("v", dist.Normal(mu[k], sigma[k]), obs=data)


def _numpyro(data: np.ndarray) -> float:
    """NumPyro's kernel in one compiled scan, which `MCMC` would compile anew in every call.

    Its labels are not drawn.
    """
    info = initialize_model(jr.key(0), _in_numpyro, model_args=(data,))
    kernel = NumPyroNUTS(potential_fn=info.potential_fn)
    begin = jax.vmap(lambda k, z: kernel.init(k, WARMUP, z, (), {}))
    step = jax.vmap(lambda state: kernel.sample(state, (), {}))

    @jax.jit
    def run(key):
        keys = jr.split(key, CHAINS)
        spread = jax.tree.map(
            lambda a: a + 0.1 * jr.normal(key, (CHAINS, *a.shape)), info.param_info.z
        )
        state = begin(keys, spread)

        def body(state, _):
            state = step(state)
            return state, state.z

        return lax.scan(body, state, None, length=WARMUP + DRAWS)[1]

    jax.block_until_ready(run(jr.key(1)))
    began = time.perf_counter()
    unconstrained = jax.block_until_ready(run(jr.key(2)))
    seconds = time.perf_counter() - began
    found = jax.vmap(jax.vmap(info.postprocess_fn))(unconstrained)
    draws = {n: np.moveaxis(np.asarray(found[n][WARMUP:]), 0, 1) for n in ("mu", "sigma", "w")}
    return least_effective(draws) / seconds
