"""NUTS compared with NumPyro, and MALA with BlackJAX, on correlated Gaussians."""

import statistics

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from numpyro.infer import MCMC, NUTS

import energydsl as ed
from benchmarks.measure import Row, in_turn

CHAINS, WARMUP, DRAWS, DIMENSIONS = 4, 500, 1000, 100
RUNS = 10
"""The number of MALA runs over which ESS is averaged: that of one run varies by a tenth."""


def rows() -> list[Row]:
    """Median times of whole runs, after one that compiles, and the ESS of the same runs."""
    return [*_nuts(), _mala()]


def _precision(dimensions: int) -> np.ndarray:
    """A precision matrix with standard deviations from 0.5 to 2 and correlated neighbours."""
    scale = np.linspace(0.5, 2.0, dimensions)
    chain = np.eye(dimensions) + 0.3 * (np.eye(dimensions, k=1) + np.eye(dimensions, k=-1))
    return chain / np.outer(scale, scale)


def _nuts() -> list[Row]:
    precision = jnp.asarray(_precision(DIMENSIONS))
    y = ed.real("y", DIMENSIONS)
    ebm = ed.compile(ed.Model(ed.Quadratic(precision)(y)))
    starts = jr.normal(jr.key(1), (CHAINS, DIMENSIONS))

    def potential(z):
        return 0.5 * z @ precision @ z

    theirs = NUTS(potential_fn=potential)
    first = jax.jit(jax.vmap(lambda k, z: theirs.init(k, WARMUP, z, (), {})))(
        jr.split(jr.key(0), CHAINS), starts
    )

    @jax.jit
    def bare(state):
        def step(state, _):
            state = jax.vmap(lambda s: theirs.sample(s, (), {}))(state)
            return state, state.z

        return lax.scan(step, state, None, length=WARMUP + DRAWS)[1][WARMUP:]

    def ours():
        return ed.sample(
            ebm, ed.NUTS(), key=jr.key(0), chains=CHAINS, warmup=WARMUP, draws=DRAWS,
            start={"y": starts}, progress=False,
        ).draws["y"]  # fmt: skip

    mcmc = MCMC(
        theirs, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip

    def library():
        mcmc.run(jr.key(0), init_params=starts)
        return mcmc.get_samples()

    seconds = in_turn({"ours": ours, "bare": lambda: bare(first)}, repeats=5)
    mine, other = (statistics.median(seconds[n]) for n in ("ours", "bare"))
    slow = statistics.median(in_turn({"library": library}, repeats=3)["library"])
    ess = {
        "ours": _ess(ours()),
        "bare": _ess(np.swapaxes(np.asarray(bare(first)), 0, 1)),
    }
    fair = (mine / ess["ours"]) / (other / ess["bare"])
    return [
        Row(
            "NUTS, 100-d Gaussian, 4 x (500 + 1,000)",
            f"{mine:.3f} s, ESS {ess['ours']:.0f}",
            f"{other:.3f} s, ESS {ess['bare']:.0f} (NumPyro's kernel, bare scan)",
            f"{fair:.2f} x the time an ESS, limit 1.1: {'ok' if fair <= 1.1 else 'MISSED'}",
        ),
        Row(
            "  and beside repeated MCMC.run",
            f"{mine:.3f} s",
            f"{slow:.3f} s (NumPyro, progress_bar=False)",
            f"{slow / mine:.1f} x faster, limit 4: {'ok' if slow / mine >= 4 else 'MISSED'}",
        ),
    ]


def _mala() -> Row:
    dimensions = 20
    precision = jnp.asarray(_precision(dimensions))
    y = ed.real("y", dimensions)
    ebm = ed.compile(ed.Model(ed.Quadratic(precision)(y)))
    starts = jr.normal(jr.key(1), (CHAINS, dimensions))
    draws = 10 * DRAWS
    kernel = ed.Langevin()

    def ours(key=0):
        return ed.sample(
            ebm, kernel, key=jr.key(key), chains=CHAINS, warmup=WARMUP, draws=draws,
            start={"y": starts}, progress=False,
        )  # fmt: skip

    # BlackJAX does not adapt the step size of MALA, so it gets the one that ours found.
    step_size = float(ours().stats["step_size"][:, -1].mean())
    algorithm = blackjax.mala(lambda z: -0.5 * z @ precision @ z, step_size)

    @jax.jit
    def theirs(key):
        def step(state, key):
            state, _ = jax.vmap(algorithm.step)(jr.split(key, CHAINS), state)
            return state, state.position

        states = jax.vmap(algorithm.init)(starts)
        return lax.scan(step, states, jr.split(key, WARMUP + draws))[1][WARMUP:]

    seconds = in_turn({"ours": lambda: ours().draws["y"], "theirs": lambda: theirs(jr.key(0))}, 9)
    runs = {
        "ours": [ours(key).draws["y"] for key in range(RUNS)],
        "theirs": [np.swapaxes(theirs(jr.key(key)), 0, 1) for key in range(RUNS)],
    }
    rate = {
        name: statistics.mean(map(_ess, draws)) / statistics.median(seconds[name])
        for name, draws in runs.items()
    }
    ratio = rate["ours"] / rate["theirs"]
    return Row(
        "MALA, 20-d Gaussian, 4 x 10,000",
        f"{rate['ours']:.0f} ESS/s",
        f"{rate['theirs']:.0f} ESS/s (BlackJAX, at our step)",
        f"{ratio:.2f} x: {'ok' if ratio >= 1 else 'MISSED'}",
    )


def _ess(draws: np.ndarray) -> float:
    """The smallest ESS over coordinates, of draws with the chains on the first axis."""
    return float(az.ess(az.from_dict({"posterior": {"y": np.asarray(draws)}}))["y"].min())
