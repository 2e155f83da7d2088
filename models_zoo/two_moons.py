r"""A neural energy of two moons, learnt by six objectives and compared by likelihood.

$$E_\theta(x) = f_\theta(x) + \tfrac12 \lVert x \rVert^2, \qquad x \in \mathbb{R}^2,$$

with a bounded network $f$ (tanh), so that the energy grows at infinity and $Z$ is finite. In two
dimensions $\log Z$ is computed by quadrature, which gives the test likelihood of each model. Models
are learnt by denoising, explicit and sliced score matching, by noise contrast, by persistent
contrastive divergence with Langevin, and by maximum likelihood with $\log Z$ by quadrature. A step
of the last evaluates about $10^5$ points, so it starts from the result of denoising. The true
distribution of the data is known, too: a mixture of normals around the points of two half circles,
which no model can surpass on average. The test likelihoods of denoising and noise contrast are 0.02
nats below it, that of divergence 0.04, and that of maximum likelihood 0.01. Explicit score matching
is 0.14 below, and sliced 0.75: scores at the data determine neither the energy far from the data
nor the weights of the two moons well, and the sliced model gives nearly all of the weight to one.

Teaches: a neural network as an energy, score matching beside contrastive divergence and maximum
likelihood, and log Z by quadrature.

Source: LeCun et al. (2006), A tutorial on energy-based learning; Hyvarinen (2005), JMLR 6,
695-709; Song et al. (2019), UAI, 574-584; Vincent (2011), Neural Computation 23(7), 1661-1674;
Gutmann & Hyvarinen (2012), JMLR 13, 307-361; Tieleman (2008), ICML, 1064-1071.
"""

from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import make_moons

import energydsl as ed
from models_zoo._shared import Out, Seed

NOISE = 0.1
CENTRE = np.array([0.5, 0.25])
OBJECTIVES = {
    "denoising": (ed.ScoreMatching(method="denoising", noise=0.05), 1e-2),
    "explicit": (ed.ScoreMatching(method="explicit"), 5e-3),
    "sliced": (ed.ScoreMatching(method="sliced"), 5e-3),
    "noise contrast": (ed.NoiseContrastive(ratio=5), 5e-3),
    "divergence": (
        ed.ContrastiveDivergence(
            k=10, kernel=ed.Langevin(step_size=0.005), start="persistent", chains=256
        ),
        3e-3,
    ),
}
"""The objectives that are compared, with their learning rates."""
COLUMNS = 4
"""The number of pictures in a row."""
TITLES = {
    "truth": "law of the data",
    "denoising": "denoising score matching",
    "explicit": "explicit score matching",
    "sliced": "sliced score matching",
    "noise contrast": "noise contrast",
    "divergence": "contrastive divergence",
    "likelihood": "maximum likelihood",
}


WORDS = {
    "log-likelihood of test data": "{log_likelihood:.4f} nats per point",
    "below the truth": "{short_of_truth ± error} nats per point",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(seed: int = 0, width: int = 32) -> ed.Model:
    """The sum of a bounded network and the energy of a standard normal."""
    x = ed.real("x", 2)
    network = eqx.nn.MLP(2, "scalar", width, 3, activation=jnp.tanh, key=jr.key(seed))
    return ed.Model(ed.Neural(network)(x) + 0.5 * (x**2).sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/two_moons"),
    width: Annotated[int, typer.Option(min=1, help="Width of each of three layers.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 4000,
    likelihood_steps: Annotated[
        int, typer.Option(min=0, help="Steps of maximum likelihood, after denoising.")
    ] = 20,
) -> dict[str, Any]:
    """Learn an energy by several objectives, and compute test likelihoods."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = moons(10_000, seed), moons(2_000, seed + 1)
    learnt, numbers = {}, {"truth": row(true_log_density(test), true_log_density(test))}
    for name, (objective, rate) in OBJECTIVES.items():
        optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
        learnt[name], history = ed.fit(
            ed.compile(declare(seed, width)), objective, train, key=jr.key(seed),
            optimizer=optimizer, steps=steps, batch=256,
        )  # fmt: skip
        numbers[name] = scored(learnt[name], test) | {"seconds": history.seconds}
    if likelihood_steps:
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, likelihood_steps))
        learnt["likelihood"], history = ed.fit(
            learnt["denoising"], ed.MaximumLikelihood(), train, key=jr.key(seed),
            optimizer=optimizer, steps=likelihood_steps,
        )  # fmt: skip
        numbers["likelihood"] = scored(learnt["likelihood"], test) | {"seconds": history.seconds}
    draw(learnt, numbers, test, out / "landscapes.png")
    return numbers


def moons(examples: int, seed: int) -> np.ndarray:
    """Points around two half circles, with their mean subtracted."""
    return (make_moons(examples, noise=NOISE, random_state=seed)[0] - CENTRE).astype(np.float32)


def true_log_density(x: np.ndarray, points: int = 500) -> np.ndarray:
    """The log density of the data's distribution: normals around points of both half circles."""
    angle = (np.arange(points) + 0.5) / points * np.pi
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    arcs = np.concatenate([upper, np.array([1.0, 0.5]) - upper]) - CENTRE
    squares = cdist(x, arcs, "sqeuclidean")
    whole = np.log(len(arcs)) + np.log(2 * np.pi * NOISE**2)
    return logsumexp(-squares / (2 * NOISE**2), axis=1) - whole


def scored(ebm: ed.EBM, test: np.ndarray) -> dict[str, float]:
    """The test likelihood by quadrature."""
    return row(np.asarray(ed.log_likelihood(ebm, test).examples, float), true_log_density(test))


def row(log_probs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean log-likelihood in nats, and its difference from the truth with standard error."""
    short = truth - log_probs
    return {
        "log_likelihood": float(log_probs.mean()),
        "short_of_truth": float(short.mean()),
        "error": float(short.std() / np.sqrt(len(short))),
    }


def draw(learnt: dict[str, ed.EBM], numbers: dict[str, Any], test: np.ndarray, path: Path) -> None:
    """Plot the energies relative to their minimum, the true one first."""
    from matplotlib.figure import Figure

    side = np.linspace(-2.25, 2.25, 161, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    energies = {"truth": -true_log_density(grid)}
    for name, ebm in learnt.items():
        energies[name] = np.asarray(jax.vmap(ebm.energy)({"x": grid}))

    rows = -(-len(energies) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS + 1, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
    for axis in axes[len(energies) :]:
        axis.axis("off")
    for axis, (name, energy) in zip(axes, energies.items(), strict=False):
        above = np.minimum(energy - energy.min(), 12.0).reshape(len(side), -1)
        image = axis.contourf(side, side, above, levels=np.linspace(0, 12, 25), cmap="viridis_r")
        axis.plot(*test[:300].T, ".", ms=1.5, color="k", alpha=0.6)
        score = f"{numbers[name]['log_likelihood']:.3f} nats per test point"
        axis.set(title=f"{TITLES[name]}\n{score}", xlabel="$x_1$", aspect="equal")
    for axis in axes[::COLUMNS]:
        axis.set_ylabel("$x_2$")
    figure.colorbar(image, ax=axes, pad=0.01, label="energy above its minimum, cut off at 12")
    figure.savefig(path, dpi=150)
