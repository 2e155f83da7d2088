"""Gibbs sampling of a periodic Ising model, compared with thrml with the same colouring."""

import statistics

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import thrml
from jax import lax
from thrml.models.ising import IsingEBM, IsingSamplingProgram, hinton_init

import energydsl as ed
from benchmarks.measure import Row, in_turn

SIDE, COUPLING = 256, 0.44


def rows() -> list[Row]:
    """Site updates per nanosecond, for the same number of sweeps in one compiled call."""
    return [_compare(chains, sweeps) for chains, sweeps in ((1, 200), (4, 50), (32, 8))]


def _compare(chains: int, sweeps: int) -> Row:
    updates = chains * sweeps * SIDE**2
    seconds = in_turn({"ours": _ours(chains, sweeps), "thrml": _thrml(chains, sweeps)})
    rate = {name: updates / statistics.median(s) / 1e9 for name, s in seconds.items()}
    ratio = rate["ours"] / rate["thrml"]
    return Row(
        f"Gibbs, Ising 256 x 256, {chains} chains",
        f"{rate['ours']:.3f} updates/ns",
        f"{rate['thrml']:.3f} updates/ns (thrml)",
        f"{ratio:.1f} x: {'ok' if ratio >= 1 else 'MISSED'}",
    )


def _ours(chains: int, sweeps: int):
    s = ed.spin("s", (SIDE, SIDE))
    bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
    ebm = ed.compile(ed.Model(-COUPLING * bonds))
    ensemble = ed.Gibbs().ensemble(ebm)
    xs = jax.vmap(lambda k: ebm.start(key=k))(jr.split(jr.key(0), chains))

    @eqx.filter_jit
    def run(ebm, ensemble, xs, key):
        tables = ensemble.load(ebm)
        carry = ensemble.start(ebm, xs, key=key, warmup=0)

        def step(t, carry):
            return ensemble.advance(ebm, tables, carry, key=jr.fold_in(key, t))[0]

        return ensemble.configurations(ebm, lax.fori_loop(0, sweeps, step, carry))

    return lambda: run(ebm, ensemble, xs, jr.key(1))


def _thrml(chains: int, sweeps: int):
    grid = [[thrml.SpinNode() for _ in range(SIDE)] for _ in range(SIDE)]
    nodes = [node for row in grid for node in row]
    edges = [
        (grid[i][j], grid[(i + a) % SIDE][(j + b) % SIDE])
        for i in range(SIDE)
        for j in range(SIDE)
        for a, b in ((1, 0), (0, 1))
    ]
    blocks = [
        thrml.Block([grid[i][j] for i in range(SIDE) for j in range(SIDE) if (i + j) % 2 == c])
        for c in (0, 1)
    ]
    model = IsingEBM(
        nodes, edges, jnp.zeros(len(nodes)), COUPLING * jnp.ones(len(edges)), jnp.array(1.0)
    )
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    schedule = thrml.SamplingSchedule(n_warmup=sweeps - 1, n_samples=1, steps_per_sample=1)
    state = hinton_init(jr.key(0), model, blocks, (chains,))

    @eqx.filter_jit
    def run(program, state, keys):
        def one(key, start):
            return thrml.sample_states(key, program, schedule, start, [], [thrml.Block(nodes)])

        return jax.vmap(one)(keys, state)

    keys = jr.split(jr.key(1), chains)
    return lambda: run(program, state, keys)
