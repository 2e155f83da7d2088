"""Learning: contrastive divergence compared with hand-written loops, and an RBM of digits."""

import statistics
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax import lax

import energydsl as ed
from benchmarks.measure import Row, in_turn, limit, process

VISIBLE, HIDDEN, CHAINS, BATCH, EXAMPLES, STEPS = 64, 16, 100, 100, 1437, 2000
RATE, LANGEVIN, NOISE = 0.1, 10, 0.01

DIGITS = """
import time
began = time.perf_counter()
import jax, numpy as np, optax
import energydsl as ed
from sklearn.datasets import load_digits

digits = (load_digits().data >= 8).astype(np.int8)
order = np.random.default_rng(0).permutation(len(digits))
train, test = digits[order[:1437]], digits[order[1437:]]

rng, steps = np.random.default_rng(0), 4000
means = train.mean(0).clip(0.01, 0.99)
weight = rng.normal(0.0, 0.1, (64, 16)).astype(np.float32)
bias = np.log(means / (1 - means)).astype(np.float32)
start = time.perf_counter()
x, h = ed.binary("x", 64), ed.binary("h", 16, latent=True)
W, b = ed.parameter("W", weight), ed.parameter("b", bias)
c = ed.parameter("c", np.zeros(16, np.float32))
ebm = ed.compile(ed.Model(-(x @ W @ h) - b @ x - c @ h))
ebm, _ = ed.fit(
    ebm, ed.ContrastiveDivergence(start="persistent", chains=200), train, key=jax.random.key(0),
    optimizer=optax.sgd(optax.linear_schedule(0.5, 0.0, steps)), steps=steps, batch=100,
    progress=False,
)
seconds = time.perf_counter() - start

w, b, c = (np.asarray(ebm.parameters[name], float) for name in "Wbc")
hs = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
log_z = np.logaddexp.reduce(hs @ c + np.logaddexp(0, hs @ w.T + b).sum(1))
score = (test @ b + np.logaddexp(0, test @ w + c).sum(1)).mean() - log_z
print(seconds, score, file=open(OUT, "w"))
"""


def rows() -> list[Row]:
    """Times per step, for the same number of the same steps in one compiled call."""
    data = np.random.default_rng(1).integers(0, 2, (EXAMPLES, VISIBLE)).astype(np.int8)
    points = np.random.default_rng(1).normal(size=(EXAMPLES, 2)).astype(np.float32)
    mlp = eqx.nn.MLP(2, "scalar", 64, 2, jax.nn.silu, key=jr.key(3))
    return [
        _compare(f"persistent CD step, RBM {VISIBLE} x {HIDDEN}", _ours(data), _by_hand(data)),
        _compare(
            f"CD step, MLP 2-64-64-1, {LANGEVIN} Langevin steps",
            _neural(mlp, points),
            _neural_by_hand(mlp, points),
            most=1.1,
        ),
        _large(),
        _digits(),
    ]


def _compare(
    name: str,
    ours_run: Callable[[], object],
    hand_run: Callable[[], object],
    *,
    most: float = 1.5,
    steps: int = STEPS,
    what: str = "JAX by hand",
) -> Row:
    seconds = in_turn({"ours": ours_run, "by hand": hand_run})
    ours, hand = (statistics.median(s) / steps * 1e6 for s in seconds.values())
    return Row(
        name,
        f"{ours:.0f} us",
        f"{hand:.0f} us ({what})",
        f"{ours / hand:.2f} x, limit {most}: {limit(ours / hand, most)}",
    )


def _large() -> Row:
    """A persistent step of a large RBM, against its products and random numbers alone."""
    visible, hidden, steps = 784, 500, 500
    rng = np.random.default_rng(0)
    weight = 0.01 * rng.normal(size=(visible, hidden)).astype(np.float32)
    data = rng.integers(0, 2, (2000, visible)).astype(np.int8)
    x, h = ed.binary("x", visible), ed.binary("h", hidden, latent=True)
    b, c = (ed.parameter(n, np.zeros(k, np.float32)) for n, k in (("b", visible), ("c", hidden)))
    ebm = ed.compile(ed.Model(-(x @ ed.parameter("W", weight) @ h) - b @ x - c @ h))
    objective = ed.ContrastiveDivergence(start="persistent", chains=CHAINS)

    def ours():
        fitted, _ = ed.fit(
            ebm, objective, data, key=jr.key(0), optimizer=optax.sgd(1e-3), steps=steps,
            batch=BATCH, progress=False,
        )  # fmt: skip
        return jax.tree.leaves(fitted.parameters)

    @jax.jit
    def floor(w, x, v, key):
        def step(t, carry):
            w, x = carry
            hidden_key, visible_key = jr.split(jr.fold_in(key, t))
            on = jr.uniform(hidden_key, (CHAINS, hidden)) < jax.nn.sigmoid(x @ w)
            back = jax.nn.sigmoid(on.astype(jnp.float32) @ w.T)
            x = (jr.uniform(visible_key, (CHAINS, visible)) < back).astype(jnp.float32)
            return w + 1e-9 * (v.T @ (v @ w) - x.T @ (x @ w)), x

        return lax.fori_loop(0, steps, step, (w, x))

    v = jnp.asarray(data[:BATCH], jnp.float32)
    return _compare(
        f"persistent CD step, RBM {visible} x {hidden}",
        ours,
        lambda: floor(jnp.asarray(weight), v, v, jr.key(0)),
        most=1.15,
        steps=steps,
        what="its products and random numbers",
    )


def _digits() -> Row:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures"
        process(f"OUT = {str(out)!r}\n{DIGITS}")
        seconds, score = map(float, out.read_text().split())
    kept = "ok" if seconds <= 4.0 and score >= -18.6 else "MISSED"
    return Row(
        "RBM on digits, persistent CD, compile included",
        f"{score:.2f} nats in {seconds:.2f} s",
        "-18.6 nats in 4 s (BernoulliRBM: -19.54)",
        kept,
    )


def _weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = np.random.default_rng(0).normal(0.0, 0.1, (VISIBLE, HIDDEN)).astype(np.float32)
    return weight, np.zeros(VISIBLE, np.float32), np.zeros(HIDDEN, np.float32)


def _ours(data: np.ndarray):
    """A run of `ed.fit`, including its checks, chunks and history."""
    W, b, c = (ed.parameter(name, init) for name, init in zip("Wbc", _weights(), strict=True))
    x, h = ed.binary("x", VISIBLE), ed.binary("h", HIDDEN, latent=True)
    ebm = ed.compile(ed.Model(-(x @ W @ h) - b @ x - c @ h))
    objective, optimizer = ed.ContrastiveDivergence(start="persistent", chains=CHAINS), _optimizer()

    def run():
        fitted, _ = ed.fit(
            ebm, objective, data, key=jr.key(0), optimizer=optimizer, steps=STEPS, batch=BATCH,
            progress=False,
        )  # fmt: skip
        return jax.tree.leaves(fitted.parameters)

    return run


def _optimizer():
    return optax.sgd(optax.linear_schedule(RATE, 0.0, STEPS))


def _free(v, bias, inside):
    """Minus the mean free energy."""
    return jnp.mean(v @ bias + jax.nn.softplus(inside).sum(1))


def _by_hand(data: np.ndarray):
    """The same sweeps, minibatches and updates, with gradients written by hand."""
    optimizer = _optimizer()

    @jax.jit
    def run(data, parameters, x, key):
        size, per_epoch = len(data), len(data) // BATCH

        def step(t, carry):
            (w, b, c), optimum, x, order, losses = carry
            key_t = jr.fold_in(key, t)
            place = t % per_epoch
            order = lax.cond(place == 0, lambda: jr.permutation(key_t, size), lambda: order)
            v = data[lax.dynamic_slice(order, (place * BATCH,), (BATCH,))].astype(jnp.float32)
            hidden_key, visible_key = jr.split(key_t)
            on = jr.uniform(hidden_key, (CHAINS, HIDDEN)) < jax.nn.sigmoid(x @ w + c)
            back = jax.nn.sigmoid(on.astype(jnp.float32) @ w.T + b)
            x = (jr.uniform(visible_key, (CHAINS, VISIBLE)) < back).astype(jnp.float32)
            inside, outside = v @ w + c, x @ w + c
            up, down = jax.nn.sigmoid(inside), jax.nn.sigmoid(outside)
            loss = _free(x, b, outside) - _free(v, b, inside)
            slopes = (
                x.T @ down / CHAINS - v.T @ up / BATCH,
                x.mean(0) - v.mean(0),
                down.mean(0) - up.mean(0),
            )
            updates, optimum = optimizer.update(slopes, optimum)
            parameters = optax.apply_updates((w, b, c), updates)
            return parameters, optimum, x, order, losses.at[t].set(loss)

        carry = (parameters, optimizer.init(parameters), x, jnp.arange(size), jnp.zeros(STEPS))
        return lax.fori_loop(0, STEPS, step, carry)

    x = jr.bernoulli(jr.key(2), 0.5, (CHAINS, VISIBLE)).astype(jnp.float32)
    parameters = tuple(map(jnp.asarray, _weights()))
    data = jnp.asarray(data)
    return lambda: run(data, parameters, x, jr.key(0))


def _neural(mlp: eqx.nn.MLP, data: np.ndarray):
    """CD of a neural energy, with Langevin chains that start at the data."""
    y = ed.real("y", 2)
    ebm = ed.compile(ed.Model(ed.Neural(mlp)(y), 0.5 * (y**2).sum()))
    kernel = ed.Langevin(step_size=NOISE, adjusted=False)
    objective, optimizer = ed.ContrastiveDivergence(k=LANGEVIN, kernel=kernel), _optimizer()

    def run():
        fitted, _ = ed.fit(
            ebm, objective, data, key=jr.key(0), optimizer=optimizer, steps=STEPS, batch=BATCH,
            progress=False,
        )  # fmt: skip
        return [a for a in jax.tree.leaves(fitted.parameters) if eqx.is_array(a)]

    return run


def _neural_by_hand(mlp: eqx.nn.MLP, data: np.ndarray):
    """The same steps, with energies written by hand and gradients by JAX."""
    optimizer = _optimizer()
    weights, static = eqx.partition(mlp, eqx.is_array)

    def energy(weights, y):
        return eqx.combine(weights, static)(y) + 0.5 * jnp.sum(y**2)

    slope = jax.vmap(jax.grad(energy, 1), (None, 0))

    @jax.jit
    def run(data, weights, key):
        size, per_epoch = len(data), len(data) // BATCH

        def step(t, carry):
            weights, optimum, order, losses = carry
            key_t = jr.fold_in(key, t)
            place = t % per_epoch
            order = lax.cond(place == 0, lambda: jr.permutation(key_t, size), lambda: order)
            y = data[lax.dynamic_slice(order, (place * BATCH,), (BATCH,))]

            def move(x, key):
                noise = jr.normal(key, x.shape)
                return x - NOISE * slope(weights, x) + jnp.sqrt(2 * NOISE) * noise, None

            x, _ = lax.scan(move, y, jr.split(key_t, LANGEVIN))

            def loss(weights):
                each = jax.vmap(energy, (None, 0))
                return jnp.mean(each(weights, y)) - jnp.mean(each(weights, x))

            value, slopes = jax.value_and_grad(loss)(weights)
            updates, optimum = optimizer.update(slopes, optimum)
            weights = optax.apply_updates(weights, updates)
            return weights, optimum, order, losses.at[t].set(value)

        carry = (weights, optimizer.init(weights), jnp.arange(size), jnp.zeros(STEPS))
        return lax.fori_loop(0, STEPS, step, carry)

    data = jnp.asarray(data)
    return lambda: run(data, weights, jr.key(0))
