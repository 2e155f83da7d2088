r"""Maximum likelihood as minimum divergence, with exact and with sampled gradients.

For data with frequencies $\hat p$, the mean log-likelihood and the divergence differ by a constant,

$$\mathrm{KL}(\hat p \,\|\, p_\theta) = -H(\hat p) + \overline{E_\theta} + \log Z(\theta), \qquad
\nabla_\theta \mathrm{KL} = \overline{\nabla E_\theta} - \mathbb{E}_{p_\theta}[\nabla E_\theta].$$

The model is a Boltzmann machine $E(x) = -x^\top W x - b^\top x$ on twelve pixels in the middle of
scikit-learn's digits, black and white, so that everything can also be computed exactly. The sampled
gradient replaces both means: the data's by that of a batch of 50 images, the model's by that of 50
draws. With independent draws it is unbiased: over many batches, its mean agrees with the exact
gradient within the standard errors. With one Gibbs step from the data, as in contrastive
divergence, it is biased, and points nearly the same way. Learning by either lowers the divergence.

Teaches: one objective in place of another, objectives called by hand, exact draws as the samples of
contrastive divergence, and held-out measures of a loss that is none.

Source: Ackley, Hinton & Sejnowski (1985), Cognitive Science 9(1), 147-169, eq. (8); Hinton (2002),
Neural Computation 14(8), 1771-1800.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed, digits

ROWS, COLUMNS, BATCH = slice(2, 6), slice(3, 6), 50

DRAWS = ed.ContrastiveDivergence(kernel=ed.ExactDraws())
ONE_STEP = ed.ContrastiveDivergence(k=1, kernel=ed.Gibbs())


WORDS = {
    "entries of the gradient": "{entries:,}",
    "mean of sampled gradients": "{off_draws:.2f} standard errors off the exact ones, root mean "
    "square; {largest_draws:.1f} at most",
    "with one Gibbs step": "{off_one_step:.1f} standard errors off; cosine {cosine:.3f} with the "
    "exact gradient",
    "divergence from the data": "{kl_start:.3f} nats at first, {kl_exact:.3f} by exact gradients, "
    "{kl_draws:.3f} by sampled ones, {kl_one_step:.3f} with one Gibbs step",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(sites: int = 12) -> ed.Model:
    """A Boltzmann machine, whose couplings are learnt for each pair once."""
    x = ed.binary("x", sites)
    i, j = np.triu_indices(sites, 1)
    W, b = ed.parameter("W", np.zeros(len(i))), ed.parameter("b", np.zeros(sites))
    return ed.Model(-(W * x[i] * x[j]).sum() - b @ x)


class Slopes(NamedTuple):
    """The mean of many sampled gradients, and its standard errors."""

    mean: np.ndarray
    error: np.ndarray


def main(
    seed: Seed = 0,
    out: Out = Path("out/minimum_kl"),
    repeats: Annotated[int, typer.Option(min=2, help="Of the sampled gradient.")] = 4000,
    steps: Annotated[int, typer.Option(min=100, help="Of learning.")] = 1000,
) -> dict[str, Any]:
    """Compare exact and sampled gradients, and learn by them."""
    out.mkdir(parents=True, exist_ok=True)
    data = pixels()
    start = ed.compile(declare(data.shape[1]))
    curves = {
        "exact": curve(start, ed.MaximumLikelihood(), data, None, steps, seed),
        "draws": curve(start, DRAWS, data, BATCH, steps, seed),
        "one_step": curve(start, ONE_STEP, data, BATCH, steps, seed),
    }
    # Half-way, where the gradient is not zero.
    ebm, _ = ed.fit(start, ed.MaximumLikelihood(), data, key=jr.key(seed), steps=60)
    exact = flat(slope(ebm, ed.MaximumLikelihood(), jnp.asarray(data), jr.key(seed)))
    sampled = {
        name: slopes(ebm, objective, data, repeats, seed)
        for name, objective in {"draws": DRAWS, "one_step": ONE_STEP}.items()
    }
    z = {name: (s.mean - exact) / s.error for name, s in sampled.items()}
    draw(exact, sampled, curves, out / "minimum_kl.png")
    one = sampled["one_step"].mean
    return {
        "entries": len(exact),
        "off_draws": float(np.sqrt((z["draws"] ** 2).mean())),
        "largest_draws": float(np.abs(z["draws"]).max()),
        "off_one_step": float(np.sqrt((z["one_step"] ** 2).mean())),
        "cosine": float(one @ exact / np.linalg.norm(one) / np.linalg.norm(exact)),
        "kl_start": divergence(start, data),
    } | {f"kl_{name}": float(values[-1]) for name, (_, values) in curves.items()}


def pixels() -> np.ndarray:
    """Twelve pixels of each digit to learn from."""
    images = digits()[0].reshape(-1, SIDE, SIDE)
    return images[:, ROWS, COLUMNS].reshape(len(images), -1)


def entropy(data: np.ndarray) -> float:
    """The entropy of the frequencies of the data's configurations."""
    _, counts = np.unique(data, axis=0, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())


def divergence(ebm: ed.EBM, data: np.ndarray) -> float:
    """The divergence of the model from the data's frequencies."""
    return -ed.log_likelihood(ebm, data).value - entropy(data)


def curve(
    ebm: ed.EBM,
    objective: ed.AbstractObjective,
    data: np.ndarray,
    batch: int | None,
    steps: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The divergence in the course of learning, measured of all data."""
    rate = optax.cosine_decay_schedule(0.05, steps)
    _, history = ed.fit(ebm, objective, data, key=jr.key(seed), optimizer=optax.adam(rate),
                        steps=steps, batch=batch, held_out=data, every=25)  # fmt: skip
    assert history.held_out is not None
    return history.held_out.steps, history.held_out.values - entropy(data)


def slope(
    ebm: ed.EBM, objective: ed.AbstractObjective, batch: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    """The gradient of an objective's loss in the model's parameters."""
    rows = {"x": batch}
    state = objective.init(ebm, rows, key=key)

    def loss(parameters: dict[str, jax.Array]) -> jax.Array:
        return objective.loss(ebm.replace(parameters), rows, state, key=key)[0]

    return jax.grad(loss)(dict(ebm.parameters))


def slopes(
    ebm: ed.EBM, objective: ed.AbstractObjective, data: np.ndarray, repeats: int, seed: int
) -> Slopes:
    """The mean of sampled gradients, each of a batch of its own that is drawn with replacement."""
    images = jnp.asarray(data)

    def one(key: jax.Array) -> jax.Array:
        batch_key, own = jr.split(key)
        rows = jr.randint(batch_key, (BATCH,), 0, len(images))
        return flat(slope(ebm, objective, images[rows], own))

    keys = jr.split(jr.key(seed), repeats)
    every = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=100))(keys))
    return Slopes(every.mean(axis=0), every.std(axis=0, ddof=1) / np.sqrt(repeats))


def flat(gradient: dict[str, jax.Array]) -> Any:
    """All entries of a gradient, by the names of the parameters."""
    return jnp.concatenate([gradient[name].ravel() for name in sorted(gradient)])


def draw(
    exact: np.ndarray,
    sampled: dict[str, Slopes],
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    path: Path,
) -> None:
    """Plot sampled gradients against exact ones, and the divergence in the course of learning."""
    from matplotlib.figure import Figure

    titles = {"exact": "exact", "draws": "independent draws", "one_step": "one Gibbs step"}
    colours = {"exact": "black", "draws": "C0", "one_step": "C1"}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = [exact.min(), exact.max()]
    left.plot(ends, ends, color="0.7", lw=1)
    for name, (mean, error) in sampled.items():
        left.errorbar(exact, mean, 2 * error, fmt=".", color=colours[name], label=titles[name])
    left.set(xlabel="exact entry of the gradient", ylabel="mean of sampled ones, +- 2 errors")
    for name, (steps, values) in curves.items():
        right.plot(steps, values, color=colours[name], label=titles[name])
    right.set(xlabel="step", ylabel="divergence from the data (nats)")
    for axis in (left, right):
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
