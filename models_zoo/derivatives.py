r"""Gradient and Hessian of log Z, by differentiation of its exact value and as moments of draws.

$$\nabla \log Z = -\mathbb{E}[\nabla E], \qquad
\nabla^2 \log Z = \operatorname{Cov}(\nabla E) - \mathbb{E}[\nabla^2 E],$$

with derivatives in the parameters $\theta$ and moments over $p = e^{-E}/Z$. The model is a torus of
spins whose energy is not linear in its three parameters,

$$E(s) = -\tanh(a) \sum_{\leftrightarrow} s_i s_j - b^2 \sum_{\updownarrow} s_i s_j
- a c \sum_i s_i,$$

where every parameter is shared by all terms of a sum. Log Z is convex in the parameters of an
energy that is linear in them; here the second term of the Hessian is not zero, and log Z is concave
along $a$. JAX differentiates the exact log Z once and twice; Gibbs chains give the moments without
any Z. Each entry of the moments has a standard error from the spread
between independent chains, and a z-score.

Teaches: named parameters, JAX derivatives through exact log Z, new parameter values without a new
compilation, and functions of draws.

Source: Wainwright & Jordan (2008), Foundations and Trends in Machine Learning 1, proposition 3.1,
for energies that are linear in the parameters; Louis (1982), J. R. Statist. Soc. B 44, 226-233.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed

NAMES = ("a", "b", "c")
THETA = (0.8, 0.4, 0.4)


WORDS = {
    "exact": "{exact:.5f}",
    "from draws": "{sampled ± error}",
    "errors off": "{z:+.1f}",
    "Cov(grad E)": "{Cov:.4f}",
    "mean Hessian of E": "{E[d2E]:.4f}",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(theta: tuple[float, ...] = THETA, size: int = 4) -> ed.Model:
    """Spins on a torus, with the parameters a, b and c."""
    a, b, c = (ed.parameter(n, value) for n, value in zip(NAMES, theta, strict=True))
    s = ed.spin("s", (size, size))
    return ed.Model(
        -ed.tanh(a) * (s * ed.roll(s, 1, axis=1)).sum()
        - b**2 * (s * ed.roll(s, 1, axis=0)).sum()
        - a * c * s.sum()
    )


class Moments(NamedTuple):
    """Minus the mean gradient of E, and the two terms of the Hessian, for each chain."""

    gradient: np.ndarray
    covariance: np.ndarray
    curvature: np.ndarray


def main(
    seed: Seed = 0,
    out: Out = Path("out/derivatives"),
    chains: Annotated[int, typer.Option(min=2, help="Independent Gibbs chains.")] = 128,
    draws: Annotated[int, typer.Option(min=1, help="Of each chain.")] = 500,
) -> dict[str, Any]:
    """Compare both derivatives of the exact log Z with moments of Gibbs chains."""
    out.mkdir(parents=True, exist_ok=True)
    ebm = ed.compile(declare())
    gradient, hessian = exact(ebm)
    drawn = ed.sample(
        ebm, ed.Gibbs(), key=jr.key(seed), chains=chains, warmup=500, draws=draws, thin=2
    )
    found = moments(ebm, jnp.asarray(drawn.draws["s"]))
    sampled = found.covariance - found.curvature
    numbers = {f"d/d{n}": compared(gradient[i], found.gradient[:, i]) for i, n in enumerate(NAMES)}
    for i, j in zip(*np.triu_indices(3), strict=True):
        row = compared(hessian[i, j], sampled[:, i, j])
        row |= {"Cov": found.covariance[:, i, j].mean(), "E[d2E]": found.curvature[:, i, j].mean()}
        numbers[f"d2/d{NAMES[i]}d{NAMES[j]}"] = row
    draw(ebm, found.gradient.mean(axis=0), sampled.mean(axis=0), numbers, out / "derivatives.png")
    return numbers


def log_z(ebm: ed.EBM, theta: jax.Array) -> jax.Array:
    """Log Z as a function of the vector (a, b, c)."""
    return jnp.asarray(ed.log_partition(ebm.replace(dict(zip(NAMES, theta, strict=True)))))


def exact(ebm: ed.EBM) -> tuple[np.ndarray, np.ndarray]:
    """The gradient and the Hessian of the exact log Z, by automatic differentiation."""
    theta = _theta(ebm)
    both = (jax.jit(of(lambda t: log_z(ebm, t)))(theta) for of in (jax.grad, jax.hessian))
    gradient, hessian = map(np.asarray, both)
    return gradient, hessian


def moments(ebm: ed.EBM, spins: jax.Array) -> Moments:
    """The moments of draws, (chain, draw, row, column), averaged over each chain's draws.

    The covariance of each chain is about the mean over all chains, of which its expectation is too
    low by less than the share of one chain in all draws.
    """
    theta = _theta(ebm)

    def energy(theta: jax.Array, s: jax.Array) -> jax.Array:
        return ebm.replace(dict(zip(NAMES, theta, strict=True))).energy({"s": s})

    slopes, bends = (
        jax.jit(jax.vmap(jax.vmap(of(energy), (None, 0)), (None, 0)))(theta, spins)
        for of in (jax.grad, jax.hessian)
    )
    slopes, bends = np.asarray(slopes, float), np.asarray(bends, float)
    centred = slopes - slopes.mean(axis=(0, 1))
    covariance = np.einsum("cdi,cdj->cij", centred, centred) / slopes.shape[1]
    return Moments(-slopes.mean(axis=1), covariance, bends.mean(axis=1))


def compared(exact: float, by_chain: np.ndarray) -> dict[str, float]:
    """An exact number beside the mean over chains, with its standard error and z-score."""
    mean, error = by_chain.mean(), by_chain.std(ddof=1) / np.sqrt(len(by_chain))
    return {"exact": float(exact), "sampled": mean, "error": error, "z": (mean - exact) / error}


def _theta(ebm: ed.EBM) -> jax.Array:
    return jnp.stack([jnp.asarray(ebm.parameters[n]) for n in NAMES])


def draw(
    ebm: ed.EBM, gradient: np.ndarray, hessian: np.ndarray, numbers: dict[str, Any], path: Path
) -> None:
    """Plot log Z along each parameter with its expansion from draws, and the Hessian's terms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(3, 2))
    above, axis = [figure.add_subplot(grid[0, k]) for k in range(3)], figure.add_subplot(grid[1, :])
    begin, centre = float(log_z(ebm, _theta(ebm))), np.asarray(_theta(ebm))
    steps = np.linspace(-0.4, 0.4, 41)
    for k, panel in enumerate(above):
        line = jnp.asarray(centre + steps[:, None] * np.eye(3)[k])
        curve = jax.jit(jax.vmap(lambda t: log_z(ebm, t)))(line)
        tangent = begin + gradient[k] * steps
        panel.plot(line[:, k], curve, "k-", lw=2, label="exact log Z")
        panel.plot(line[:, k], tangent, "C0--", label="slope from draws")
        parabola = tangent + hessian[k, k] * steps**2 / 2
        panel.plot(line[:, k], parabola, "C1-", lw=1, label="slope and curvature from draws")
        panel.plot(centre[k], begin, "ko")
        panel.set(xlabel=NAMES[k], ylabel="log Z")
    above[0].legend()
    names = [name for name in numbers if name.startswith("d2")]
    for shift, label, values in (
        (-0.2, r"$\mathrm{Cov}(\nabla E)$", [numbers[n]["Cov"] for n in names]),
        (0.0, r"$-\mathbb{E}[\nabla^2 E]$", [-numbers[n]["E[d2E]"] for n in names]),
        (0.2, "their sum", [numbers[n]["sampled"] for n in names]),
    ):
        axis.bar(np.arange(len(names)) + shift, values, 0.2, label=label)
    places, exacts = np.arange(len(names)) + 0.2, [numbers[n]["exact"] for n in names]
    axis.plot(places, exacts, "k_", ms=14, mew=2, label="exact")
    axis.set_xticks(np.arange(len(names)), names)
    axis.axhline(0, color="k", lw=0.5)
    axis.set(title="entries of the Hessian, from draws", ylabel="entry")
    axis.legend()
    figure.savefig(path, dpi=120)
