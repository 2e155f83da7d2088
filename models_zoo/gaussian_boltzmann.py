r"""A Gaussian Boltzmann machine: sparse couplings learnt from real-valued data.

$$E(x) = \tfrac12 x^\top P x - b^\top x, \qquad x \in \mathbb{R}^d,$$

so that x is normal with precision $P$ and mean $P^{-1} b$, and $\log Z$ follows from a Cholesky
factor of $P$. Where $P_{ij} = 0$, sites i and j are independent given all others. $P$ is kept
positive definite by $P = L L^\top$ with a positive diagonal of $L$, and learnt by exact maximum
likelihood from draws of a lattice with couplings of both signs. The maximum is known: $P$ is the
inverse of the sample covariance, and its entries have standard errors
$\sqrt{(P_{ii} P_{jj} + P_{ij}^2) / n}$. Two sites count as coupled if their entry differs from zero
by more than `BAR` standard errors.

Teaches: a constraint on a parameter (positive definite), learning by exact likelihood from
real-valued data, and standard errors of what was learnt.

Source: Dempster (1972), Biometrics 28(1), 157-175.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
import typer
from scipy.stats import multivariate_normal

import energydsl as ed
from models_zoo._shared import Out, Seed

BAR = 5.0
"""A coupling that is zero exceeds this many standard errors with probability 6e-7."""


WORDS = {
    "log-likelihood of test data": "{log_likelihood:.4f} nats per example",
    "of the true model": "{log_likelihood_true:.4f} nats per example",
    "largest gap between learnt and closed-form precision": "{closed_form_gap:.2g}",
    "largest error of a precision": "{largest_z:.1f} standard errors",
    "couplings found": "{edges_found} of {edges}, and {edges_invented} that are not there",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(sites: int = 16) -> ed.Model:
    """A Gaussian model with a learnable precision matrix that stays positive definite."""
    x = ed.real("x", sites)
    A = ed.parameter("A", paramax.Parameterize(positive_definite, jnp.zeros((sites, sites))))
    b = ed.parameter("b", jnp.zeros(sites))
    return ed.Model(0.5 * (x @ A @ x) - b @ x)


def positive_definite(raw: jax.Array) -> jax.Array:
    """The matrix L L', where L is the lower triangle with the exponential of the diagonal."""
    lower = jnp.tril(raw, -1) + jnp.diag(jnp.exp(jnp.diag(raw)))
    return lower @ lower.T


def main(
    seed: Seed = 0,
    out: Out = Path("out/gaussian_boltzmann"),
    side: Annotated[int, typer.Option(min=2, max=10, help="Of the true lattice.")] = 4,
    examples: Annotated[int, typer.Option(min=200, help="To learn from.")] = 5000,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 3000,
) -> dict[str, Any]:
    """Learn a sparse precision matrix from draws, and compare it with the true one."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    true = lattice_precision(side, rng)
    normal: Any = multivariate_normal  # type checkers infer floats from the defaults
    law = normal(rng.normal(size=len(true)), np.linalg.inv(true))
    train, test = law.rvs((2, examples), random_state=rng).astype(np.float32)

    ebm = ed.compile(declare(len(true)))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    ebm, history = ed.fit(
        ebm, ed.MaximumLikelihood(), train, key=jr.key(seed), optimizer=optimizer, steps=steps
    )
    learnt = np.asarray(paramax.unwrap(ebm.parameters["A"]), float)
    closed_form = np.linalg.inv(np.cov(train.T.astype(float), ddof=0))

    diagonal = np.diag(learnt)
    errors = np.sqrt((np.outer(diagonal, diagonal) + learnt**2) / examples)
    upper = np.triu_indices(len(true), 1)
    edges, found = true[upper] != 0, np.abs(learnt / errors)[upper] > BAR
    draw(true, learnt, errors, history, out / "precision.png")
    return {
        "log_likelihood": float(ed.log_likelihood(ebm, test).value),
        "log_likelihood_true": float(law.logpdf(test).mean()),
        "closed_form_gap": float(np.abs(learnt - closed_form).max()),
        "largest_z": float(np.abs((learnt - true) / errors).max()),
        "edges": int(edges.sum()),
        "edges_found": int((edges & found).sum()),
        "edges_invented": int((found & ~edges).sum()),
        "seconds": history.seconds,
    }


def lattice_precision(side: int, rng: np.random.Generator) -> np.ndarray:
    """The precision matrix of a square lattice, with couplings of random signs and sizes."""
    number = np.arange(side**2).reshape(side, side)
    precision = 1.5 * np.eye(side**2)
    for i, j in (pair for line in [*number, *number.T] for pair in pairwise(line)):
        precision[i, j] = precision[j, i] = rng.choice([-1, 1]) * rng.uniform(0.2, 0.37)
    return precision


def draw(
    true: np.ndarray, learnt: np.ndarray, errors: np.ndarray, history: ed.History, path: Path
) -> None:
    """Plot true and learnt couplings, their differences, and the loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 4.2), layout="constrained")
    left, right, scatter, curve = figure.subplots(1, 4)
    limit = np.abs(true - np.diag(np.diag(true))).max()
    for axis, matrix, title in ((left, true, "true precision"), (right, learnt, "learnt")):
        off = np.where(np.eye(len(true), dtype=bool), np.nan, matrix)
        image = axis.imshow(off, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set(title=title, xlabel="site")
    figure.colorbar(image, ax=[left, right], label="coupling; grey: the diagonal")
    for axis in (left, right):
        axis.set_facecolor("0.8")
    left.set_ylabel("site")

    upper = np.triu_indices(len(true), 1)
    scatter.axline((0, 0), slope=1, color="k", lw=1)
    scatter.errorbar(true[upper], learnt[upper], errors[upper], fmt=".", ms=4, lw=0.8, capsize=1.5)
    scatter.set(xlabel="true coupling", ylabel="learnt, one standard error", title="each pair")

    curve.plot(history["loss"])
    curve.set(xlabel="step", ylabel="minus log-likelihood / nats", title="learning")
    figure.savefig(path, dpi=150)
