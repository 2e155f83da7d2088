r"""Score matching in three forms and noise contrast, beside the score and log Z of a known density.

$$E_\theta(x) = f_\theta(x) + \tfrac12 \lVert x \rVert^2, \qquad x \in \mathbb{R}^2,$$

with a bounded network $f$ (tanh). Data are draws of a mixture of three normals, whose score
$s^*(x) = \nabla \log p(x)$ is known. The energy is learnt by explicit, sliced and denoising score
matching, and by noise-contrastive estimation. The Fisher divergence
$\tfrac12 \mathbb{E} \lVert s(x) - s^*(x) \rVert^2$ tells how far a learnt score $s = -\nabla E$ is
from the true one; it is what explicit score matching minimises up to a constant. Noise contrast
also learns log Z as a number, which agrees with the quadrature of the learnt energy to about 0.01.
The others do not determine log Z, and quadrature supplies it for their likelihoods.

Teaches: the forms of score matching, noise contrast, and log Z as a learnt number.

Source: Hyvarinen (2005), JMLR 6, 695-709; Song et al. (2019), UAI, 574-584; Vincent (2011), Neural
Computation 23(7), 1661-1674; Gutmann & Hyvarinen (2012), JMLR 13, 307-361.
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
from scipy.stats import multivariate_normal

import energydsl as ed
from models_zoo._shared import Out, Seed

SHARES = np.array([0.4, 0.35, 0.25])
MEANS = np.array([[-0.9, -0.3], [0.9, -0.5], [0.1, 1.0]])
COVARIANCES = np.array(
    [[[0.20, 0.12], [0.12, 0.25]], [[0.15, -0.08], [-0.08, 0.30]], [[0.35, 0.0], [0.0, 0.10]]]
)
MIXTURE = list(zip(SHARES, MEANS, COVARIANCES, strict=True))
OBJECTIVES = {
    "explicit": ed.ScoreMatching("explicit"),
    "sliced": ed.ScoreMatching("sliced"),
    "denoising": ed.ScoreMatching("denoising", noise=0.1),
    "noise contrast": ed.NoiseContrastive(ratio=5),
}
"""The objectives that are compared."""


WORDS = {
    "Fisher divergence from the true density": "{fisher_divergence:.4f}",
    "log-likelihood of test data": "{log_likelihood:.4f} nats per point",
    "below the truth": "{short_of_truth:.4f} nats per point",
    "learnt log Z": "{learnt_log_z:.4f}",
    "log Z by quadrature": "{log_z:.4f}",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(seed: int = 0, width: int = 32) -> ed.Model:
    """The sum of a bounded network and the energy of a standard normal."""
    x = ed.real("x", 2)
    network = eqx.nn.MLP(2, "scalar", width, 2, activation=jnp.tanh, key=jr.key(seed))
    return ed.Model(ed.Neural(network)(x) + 0.5 * (x**2).sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/score_and_noise"),
    width: Annotated[int, typer.Option(min=1, help="Width of both layers.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Of learning, for each objective.")] = 3000,
) -> dict[str, Any]:
    """Learn an energy by several objectives, and compare scores and log Z."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = points(10_000, seed), points(5_000, seed + 1)
    learnt, numbers = {}, {}
    for name, objective in OBJECTIVES.items():
        optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))
        learnt[name], history = ed.fit(
            ed.compile(declare(seed, width)), objective, train, key=jr.key(seed),
            optimizer=optimizer, steps=steps, batch=256,
        )  # fmt: skip
        numbers[name] = scored(learnt[name], test) | {"seconds": history.seconds}
        if isinstance(history.objective, ed.NoiseContrastive):
            numbers[name]["learnt_log_z"] = float(history.objective.log_z)
            trace = history["log_z"]
    log_z = numbers["noise contrast"]["log_z"]
    draw(learnt, numbers, test, trace, log_z, out / "scores.png")
    return numbers


def points(count: int, seed: int) -> np.ndarray:
    """Draws of the mixture."""
    rng = np.random.default_rng(seed)
    part = rng.choice(len(SHARES), size=count, p=SHARES)
    roots = np.linalg.cholesky(COVARIANCES)
    shift = np.einsum("nij,nj->ni", roots[part], rng.normal(size=(count, 2)))
    return (MEANS[part] + shift).astype(np.float32)


def true_density(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log density of the mixture, and its score."""
    parts = [s * multivariate_normal(m, c).pdf(x) for s, m, c in MIXTURE]
    slopes = [(m - x) @ np.linalg.inv(c) for _, m, c in MIXTURE]
    whole = np.sum(parts, axis=0)
    return np.log(whole), np.einsum("kn,kni->ni", parts, slopes) / whole[:, None]


def scores(ebm: ed.EBM, x: np.ndarray) -> np.ndarray:
    """The learnt score at each point."""
    return np.asarray(jax.vmap(ebm.score)({"x": jnp.asarray(x)})["x"], float)


def scored(ebm: ed.EBM, test: np.ndarray) -> dict[str, float]:
    """The Fisher divergence from the truth, and the test likelihood by quadrature."""
    truth, score = true_density(test)
    found = ed.log_likelihood(ebm, test)
    return {
        "fisher_divergence": float(((scores(ebm, test) - score) ** 2).sum(axis=1).mean() / 2),
        "log_likelihood": found.value,
        "short_of_truth": float(truth.mean()) - found.value,
        "log_z": float(ed.log_partition(ebm)),
    }


def draw(
    learnt: dict[str, ed.EBM],
    numbers: dict[str, Any],
    test: np.ndarray,
    trace: np.ndarray,
    log_z: float,
    path: Path,
) -> None:
    """Plot the true score, the errors of the learnt ones, and log Z as it is learnt."""
    from matplotlib.figure import Figure

    side = np.linspace(-2.2, 2.2, 15, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    fine = np.linspace(-2.2, 2.2, 120, dtype=np.float32)
    plane = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
    density = np.exp(true_density(plane)[0]).reshape(120, -1)
    arrows = {"the true score": true_density(grid)[1]}
    for name, ebm in learnt.items():
        far = f"Fisher divergence {numbers[name]['fisher_divergence']:.3f}"
        arrows[f"{name}: error of the score\n{far}"] = scores(ebm, grid) - arrows["the true score"]

    figure = Figure(figsize=(13, 8.4), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for axis, (title, arrow) in zip(axes, arrows.items(), strict=False):
        axis.contour(fine, fine, density, colors="0.7", linewidths=0.7)
        axis.quiver(*grid.T, *arrow.T, angles="xy", scale_units="xy", scale=40, width=0.004)
        axis.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    axes[-1].plot(trace, linewidth=0.8, label="learnt by noise contrast")
    axes[-1].axhline(log_z, color="k", linestyle="--", label="quadrature, at the end")
    axes[-1].set(title="log Z", xlabel="step", ylabel="nats")
    axes[-1].legend()
    figure.savefig(path, dpi=130)
