r"""A mixture of normal distributions, whose labels are summed out: the galaxies of Corona Borealis.

The velocity $v_i$ of each of 82 galaxies tells its distance. Clusters of galaxies, with empty space
between them, are the components of a mixture:

$$v_i \sim N(\mu_{k_i}, \sigma_{k_i}^2), \quad k_i \sim \mathrm{Categorical}(w), \quad
w \sim \mathrm{Dirichlet}(2, \dots, 2), \quad \mu_k \sim N(m_k, 1), \quad
\sigma_k \sim \mathrm{Gamma}(4, 4),$$

in units of 1000 km/s. The labels $k_i$ are discrete, so that the No-U-Turn sampler cannot move
them. Given the rest they are independent, and a sum over the components removes each of them
exactly. NUTS moves $\mu$, $\sigma$ and $w$ by their marginal distribution, and every step draws the
labels given these. The share of draws in which a galaxy has a label is compared with the mean of
the label's conditional probability, in units of the standard error of that share.

Teaches: variables as indices, conditioning on data, and `ed.NUTS(summed=True)`, which `ed.sample`
takes by default here.

Source: the velocities: Postman, Huchra & Geller (1986), Astronomical Journal 92(6), 1238-1247;
the mixture: Roeder (1990), Journal of the American Statistical Association 85, 617-624.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import typer
from numpyro import distributions as dist
from scipy.special import softmax
from scipy.stats import norm

import energydsl as ed
from models_zoo._shared import Out, Seed, estimate, write_chains

VELOCITIES = np.array([
    9.172, 9.350, 9.483, 9.558, 9.775, 10.227, 10.406, 16.084, 16.170, 18.419, 18.552, 18.600,
    18.927, 19.052, 19.070, 19.330, 19.343, 19.349, 19.440, 19.473, 19.529, 19.541, 19.547, 19.663,
    19.846, 19.856, 19.863, 19.914, 19.918, 19.973, 19.989, 20.166, 20.175, 20.179, 20.196, 20.215,
    20.221, 20.415, 20.629, 20.795, 20.821, 20.846, 20.875, 20.986, 21.137, 21.492, 21.701, 21.814,
    21.921, 21.960, 22.185, 22.209, 22.242, 22.249, 22.314, 22.374, 22.495, 22.746, 22.747, 22.888,
    22.914, 23.206, 23.241, 23.263, 23.484, 23.538, 23.542, 23.666, 23.706, 23.711, 24.129, 24.285,
    24.289, 24.366, 24.717, 24.990, 25.633, 26.960, 26.995, 32.065, 32.789, 34.279,
])  # fmt: skip
"""The velocities of the galaxies in 1000 km/s."""

CENTRES = np.array([10.0, 16.0, 20.0, 23.0, 33.0])
"""The prior means of the components' means."""

WORDS = {
    "mean": "{mean ± sd}",
    "share": "{share:.0%} of all galaxies",
    "smallest effective number of draws": "{ess:.0f}",
    "largest R-hat": "{rhat:.3f}",
    "labels against their conditional probabilities": "{labels_z:.1f} standard errors at most",
    "kernel": "{kernel}",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(count: int = len(VELOCITIES)) -> ed.Model:
    """The joint model of labels, components and velocities."""
    k, v = ed.categorical("k", count, levels=len(CENTRES)), ed.real("v", count)
    mu, sigma = ed.real("mu", len(CENTRES)), ed.positive("sigma", len(CENTRES))
    w = ed.simplex("w", len(CENTRES))
    normal = ed.LogDensity(dist.Normal)
    return ed.Model(
        ed.LogDensity(dist.Dirichlet)(w, np.full(len(CENTRES), 2.0))
        + normal(mu, CENTRES, 1.0)
        + ed.LogDensity(dist.Gamma)(sigma, 4.0, 4.0)
        + ed.LogDensity(dist.Categorical)(k, w)
        + normal(v, mu[k], sigma[k])
    )


def main(
    seed: Seed = 0,
    out: Out = Path("out/mixture_of_normals"),
    chains: Annotated[int, typer.Option(min=2, help="Chains.")] = 4,
    warmup: Annotated[int, typer.Option(min=1, help="Steps before the first draw.")] = 1000,
    draws: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 2000,
) -> dict[str, Any]:
    """Sample the components and the labels, and check the labels."""
    out.mkdir(parents=True, exist_ok=True)
    ebm = ed.compile(declare().condition(v=VELOCITIES))
    drawn = ed.sample(ebm, key=jr.key(seed), chains=chains, warmup=warmup, draws=draws)
    if drawn.stopped:
        return {}
    write_chains(drawn, out / "chains.nc")
    found = {name: np.asarray(drawn.draws[name], np.float64) for name in ("mu", "sigma", "w")}
    scalars = [estimate(a[..., i]) for a in found.values() for i in range(len(CENTRES))]
    draw(found, drawn.draws["k"], out / "galaxies.png")
    return {
        **{
            f"component {i + 1}": {
                "mean": float(found["mu"][..., i].mean()),
                "sd": float(found["mu"][..., i].std()),
                "share": float(found["w"][..., i].mean()),
            }
            for i in range(len(CENTRES))
        },
        "ess": min(one.ess for one in scalars),
        "rhat": max(one.rhat for one in scalars),
        "labels_z": labels_z(found, drawn.draws["k"]),
        "kernel": str(drawn.kernel),
        "seconds": drawn.seconds,
    }


def responsibilities(found: dict[str, np.ndarray]) -> np.ndarray:
    """The conditional probabilities of the labels, (chain, draw, galaxy, component)."""
    mu, sigma, w = (found[name][..., None, :] for name in ("mu", "sigma", "w"))
    return softmax(norm(mu, sigma).logpdf(VELOCITIES[:, None]) + np.log(w), axis=-1)


def labels_z(found: dict[str, np.ndarray], labels: np.ndarray) -> float:
    """The largest gap between the shares of labels and their probabilities, in standard errors.

    Given the components, draws of a label are independent with these probabilities.
    """
    probs = responsibilities(found)
    gap = (labels[..., None] == np.arange(len(CENTRES))) - probs
    error = np.sqrt((probs * (1 - probs)).sum(axis=(0, 1)))
    # Where fewer than ten draws are expected, the sum is not close to normal.
    seen = np.minimum(probs.sum(axis=(0, 1)), (1 - probs).sum(axis=(0, 1))) > 10
    return float(np.abs(gap.sum(axis=(0, 1))[seen] / error[seen]).max())


def draw(found: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> None:
    """Plot the velocities with the mixture's density, and the label of each galaxy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    at = np.linspace(7, 37, 600)
    some = {name: a.reshape(-1, len(CENTRES))[::20] for name, a in found.items()}
    each = some["w"] * norm(some["mu"], some["sigma"]).pdf(at[:, None, None])
    total = each.sum(axis=-1)
    low, high = np.quantile(total, [0.05, 0.95], axis=1)
    top.fill_between(at, low, high, color="0.85", label="mixture, 90 % interval")
    bins = np.arange(7, 37.5, 0.5)
    top.hist(VELOCITIES, bins, density=True, histtype="step", color="k", label="galaxies")
    for i in range(len(CENTRES)):
        top.plot(at, each[..., i].mean(axis=1), color=f"C{i}", label=f"component {i + 1}")
    top.set(ylabel="density")
    top.legend()

    base = np.zeros(len(VELOCITIES))
    for i in range(len(CENTRES)):
        share = (labels == i).mean(axis=(0, 1))
        bottom.bar(VELOCITIES, share, bottom=base, width=0.12, color=f"C{i}")
        base += share
    bottom.set(xlabel="velocity / 1000 km/s", ylabel="probability of label")
    figure.savefig(path, dpi=150)
