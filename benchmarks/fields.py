"""Conditional random fields: chains of labels, beside a forward algorithm by hand and CRFsuite."""

import statistics
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax import Array, lax
from sklearn.datasets import load_digits
from sklearn_crfsuite import CRF

import energydsl as ed
from benchmarks.measure import Row, in_turn, limit

LENGTH, LABELS, FEATURES, STRINGS, BATCH, STEPS = 50, 10, 64, 1000, 50, 200
RATE, EPOCHS, PENALTY = 0.03, 30, 1e-6


def rows() -> list[Row]:
    """A step of exact conditional likelihood, and the time in which a likelihood is reached."""
    xs, ys = _strings()
    return [_step(xs, ys), _reached(xs, ys)]


def _strings() -> tuple[np.ndarray, np.ndarray]:
    """Strings of digits that mostly count upwards: features of each image, and its label."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    steps = np.where(rng.random((STRINGS, LENGTH)) < 0.6, 1, rng.integers(0, 10, (STRINGS, LENGTH)))
    ys = np.cumsum(steps, axis=1) % LABELS
    xs = np.empty((STRINGS, LENGTH, FEATURES), np.float32)
    for label in range(LABELS):
        where = ys == label
        xs[where] = rng.permutation(images[labels == label])[rng.integers(0, 150, where.sum())] / 16
    # Noise makes single images hard to read, so that the chain matters.
    return xs + rng.normal(0, 0.6, xs.shape).astype(np.float32), ys.astype(np.int32)


def _field() -> ed.EBM:
    x = ed.real("x", (LENGTH, FEATURES), given=True)
    y = ed.categorical("y", LENGTH, levels=LABELS)
    W = ed.parameter("W", np.zeros((FEATURES, LABELS), np.float32))
    A = ed.parameter("A", np.zeros((LABELS, LABELS), np.float32))
    return ed.compile(ed.Model(ed.Table(-(x @ W))(y).sum() + ed.Table(A)(y[:-1], y[1:]).sum()))


def _step(xs: np.ndarray, ys: np.ndarray) -> Row:
    """`STEPS` steps of Adam for both sides, each in one call."""
    ebm, optimizer = _field(), optax.adam(RATE)

    def ours() -> object:
        return ed.fit(
            ebm, ed.MaximumLikelihood(), {"x": xs, "y": ys}, key=jr.key(0), steps=STEPS,
            batch=BATCH, optimizer=optimizer, progress=False,
        )  # fmt: skip

    seconds = in_turn({"ours": ours, "by hand": _by_hand(xs, ys, optimizer)})
    mine, hand = (statistics.median(s) / STEPS * 1e3 for s in seconds.values())
    return Row(
        f"chain field of {LENGTH} x {LABELS} labels, a step of {BATCH} strings",
        f"{mine:.1f} ms",
        f"{hand:.1f} ms (forward algorithm by hand)",
        f"{mine / hand:.2f} x, limit 1.5: {limit(mine / hand, 1.5)}",
    )


def _by_hand(xs: np.ndarray, ys: np.ndarray, optimizer: optax.GradientTransformation):
    data = jnp.asarray(xs), jnp.asarray(ys)

    def loss(parameters: tuple[Array, Array], x: Array, y: Array) -> Array:
        return -jax.vmap(lambda a, b: _log_conditional(parameters, a, b))(x, y).mean()

    @jax.jit
    def run(key: Array) -> tuple[Array, Array]:
        def step(carry, key):
            parameters, state = carry
            chosen = jr.choice(key, STRINGS, (BATCH,), replace=False)
            slope = jax.grad(loss)(parameters, *(a[chosen] for a in data))
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(parameters, updates), state), None

        start = jnp.zeros((FEATURES, LABELS)), jnp.zeros((LABELS, LABELS))
        return lax.scan(step, (start, optimizer.init(start)), jr.split(key, STEPS))[0][0]

    return lambda: run(jr.key(0))


def _log_conditional(parameters: tuple[Array, Array], x: Array, y: Array) -> Array:
    """log p(y | x) by the forward algorithm."""
    weights, pairs = parameters
    scores = x @ weights

    def forward(above: Array, score: Array) -> tuple[Array, None]:
        return jax.nn.logsumexp(above[:, None] - pairs, axis=0) + score, None

    last = lax.scan(forward, scores[0], scores[1:])[0]
    reached = scores[jnp.arange(LENGTH), y].sum() - pairs[y[:-1], y[1:]].sum()
    return reached - jax.nn.logsumexp(last)


def _reached(xs: np.ndarray, ys: np.ndarray) -> Row:
    """Seconds of an epoch, and the likelihood after the last one, of the same data."""
    ebm, data = _field(), {"x": xs, "y": ys}
    schedule = optax.cosine_decay_schedule(RATE, EPOCHS * STRINGS // BATCH)

    def learnt(epochs: int) -> tuple[ed.EBM, float]:
        began = time.perf_counter()
        fitted, _ = ed.fit(
            ebm, ed.MaximumLikelihood(), data, key=jr.key(0), epochs=epochs, batch=BATCH,
            optimizer=optax.adam(schedule), progress=False,
        )  # fmt: skip
        return fitted, time.perf_counter() - began

    _, compiling = learnt(1)
    fitted, mine = learnt(EPOCHS)
    reached = float(ed.log_likelihood(fitted, data).value)

    names = [str(k) for k in range(FEATURES)]
    strings = [[dict(zip(names, row.tolist(), strict=True)) for row in string] for string in xs]
    labels = [list(map(str, string)) for string in ys]
    crf = CRF(
        algorithm="lbfgs", c1=0.0, c2=PENALTY, max_iterations=EPOCHS, all_possible_states=True,
        all_possible_transitions=True,
    )  # fmt: skip
    began = time.perf_counter()
    crf.fit(strings, labels)
    theirs = time.perf_counter() - began
    weights, pairs = _parameters(crf, names)
    score = jax.vmap(lambda x, y: _log_conditional((weights, pairs), x, y))
    other = float(score(jnp.asarray(xs), jnp.asarray(ys)).mean())
    ahead = mine <= theirs and reached >= other
    return Row(
        f"the same field, {EPOCHS} epochs of {STRINGS:,} strings",
        f"{mine / EPOCHS * 1e3:.0f} ms an epoch (first {compiling:.1f} s), to {reached:.2f} nats",
        f"{theirs / EPOCHS * 1e3:.0f} ms, to {other:.2f} nats (sklearn-crfsuite)",
        f"{mine / theirs:.2f} x, limit 1 at no lower likelihood: {'ok' if ahead else 'MISSED'}",
    )


def _parameters(crf: CRF, names: list[str]) -> tuple[Array, Array]:
    """The weights of a fitted CRFsuite model in our form: scores, and energies of pairs."""
    weights, pairs = np.zeros((FEATURES, LABELS)), np.zeros((LABELS, LABELS))
    for (name, label), value in crf.state_features_.items():
        weights[names.index(name), int(label)] = value
    for (first, second), value in crf.transition_features_.items():
        pairs[int(first), int(second)] = -value
    return jnp.asarray(weights, jnp.float32), jnp.asarray(pairs, jnp.float32)
