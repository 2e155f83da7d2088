r"""Eight schools: a hierarchical model with a positive scale, compared with NumPyro's NUTS.

The effect of coaching on scores in school $i$ was estimated as $y_i$, with standard error
$\sigma_i$. The effects $\theta_i$ of the schools have a common distribution:

$$y_i \sim N(\theta_i, \sigma_i^2), \quad \theta_i \sim N(\mu, \tau^2), \quad
\mu \sim N(0, 5^2), \quad \tau \sim \mathrm{HalfCauchy}(5),$$

written with $\theta_i = \mu + \tau z_i$ and standard normal $z_i$, which avoids the funnel between
$\theta$ and $\tau$. The energy is declared over all unknowns and all observations, and conditioned
on $y$. Means and standard deviations are compared with those of NumPyro's `MCMC` on the same model,
in units of their Monte Carlo standard errors.

Teaches: densities of NumPyro as factors, a positive variable, conditioning on data, NUTS, and draws
with named axes in ArviZ.

Source: Rubin (1981), J. Educational Statistics 6(4), 377-401, table 1; priors and
parametrisation: Betancourt & Girolami (2015), Hamiltonian Monte Carlo for hierarchical models.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import numpyro
import typer
from numpyro import distributions as dist
from numpyro.infer import MCMC
from numpyro.infer import NUTS as NumPyroNUTS

import energydsl as ed
from models_zoo._shared import Out, Seed, write_chains

SCHOOLS = ["A", "B", "C", "D", "E", "F", "G", "H"]
EFFECTS = np.array([28.39, 7.94, -2.75, 6.82, -0.64, 0.63, 18.01, 12.16])
ERRORS = np.array([14.9, 10.2, 16.3, 11.0, 9.4, 11.4, 10.4, 17.6])


WORDS = {
    "mean": "{mean:.2f} (NumPyro {mean_numpyro:.2f}, {mean_z:+.1f} errors off)",
    "deviation": "{sd:.2f} (NumPyro {sd_numpyro:.2f}, {sd_z:+.1f} errors off)",
    "independent draws": "{ess:.0f}",
    "R-hat": "{rhat:.3f}",
    "largest difference from NumPyro": "{largest_z:.1f} standard errors",
    "divergences": "{divergences}",
    "time": "{seconds:.1f} s (NumPyro {seconds_numpyro:.1f} s)",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(errors: np.ndarray = ERRORS) -> ed.Model:
    """The joint model of effects and observations, with the observations' standard errors."""
    mu, tau = ed.real("mu"), ed.positive("tau")
    z, y = ed.real("z", len(errors)), ed.real("y", len(errors))
    normal = ed.LogDensity(dist.Normal)
    return ed.Model(
        normal(mu, 0, 5)
        + ed.LogDensity(dist.HalfCauchy)(tau, 5)
        + normal(z, 0, 1)
        + normal(y, mu + tau * z, errors)
    )


def main(
    seed: Seed = 0,
    out: Out = Path("out/eight_schools"),
    chains: Annotated[int, typer.Option(min=2, help="Chains.")] = 4,
    warmup: Annotated[int, typer.Option(min=1, help="Steps before the first draw.")] = 1000,
    draws: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 5000,
) -> dict[str, Any]:
    """Sample the posterior with energydsl and with NumPyro, and compare the results."""
    out.mkdir(parents=True, exist_ok=True)
    ebm = ed.compile(declare().condition(y=EFFECTS))
    drawn = ed.sample(
        ebm, ed.NUTS(target=0.95), key=jr.key(seed), chains=chains, warmup=warmup, draws=draws
    )
    if drawn.stopped:
        return {}
    write_chains(drawn, out / "chains.nc", dims={"z": ["school"]}, coords={"school": SCHOOLS})
    ours = posterior(drawn.draws)

    began = time.perf_counter()
    kernel = NumPyroNUTS(in_numpyro, target_accept_prob=0.95)
    peer = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=chains,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    peer.run(jr.key(seed + 1), ERRORS, EFFECTS)
    theirs = posterior(peer.get_samples(group_by_chain=True))
    theirs_seconds = time.perf_counter() - began

    rows = {name: compare(ours[name], theirs[name]) for name in ours}
    draw(ours, theirs, out / "posterior.png")
    return {
        **rows,
        "largest_z": max(abs(row[k]) for row in rows.values() for k in ("mean_z", "sd_z")),
        "divergences": int(drawn.stats["diverging"].sum()),
        "seconds": drawn.seconds,
        "seconds_numpyro": theirs_seconds,
    }


def in_numpyro(errors: np.ndarray, effects: np.ndarray) -> None:
    """The same model as a NumPyro program."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(errors)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * z, errors), obs=effects)


def posterior(draws: dict[str, Any]) -> dict[str, np.ndarray]:
    """Draws, (chain, draw), of mu, tau and the effect of each school."""
    mu, tau, z = (np.asarray(draws[name], np.float64) for name in ("mu", "tau", "z"))
    theta = mu[..., None] + tau[..., None] * z
    return {"mu": mu, "tau": tau} | {f"theta[{s}]": theta[..., i] for i, s in enumerate(SCHOOLS)}


def compare(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Means and standard deviations of two runs, with their differences in standard errors."""
    import arviz as az

    def z(method: str, a: float, b: float) -> float:
        own, other = (float(az.mcse(draws, method=method)) for draws in (ours, theirs))
        return float((a - b) / np.hypot(own, other))

    return {
        "mean": float(ours.mean()),
        "mean_numpyro": float(theirs.mean()),
        "mean_z": z("mean", ours.mean(), theirs.mean()),
        "sd": float(ours.std()),
        "sd_numpyro": float(theirs.std()),
        "sd_z": z("sd", ours.std(), theirs.std()),
        "ess": float(az.ess(ours)),
        "rhat": float(az.rhat(ours)),
    }


def draw(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], path: Path) -> None:
    """Plot the intervals of all effects, and the funnel of an effect against tau."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    forest, funnel = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [*(f"theta[{s}]" for s in SCHOOLS), "mu", "tau"]
    at = np.arange(len(names))
    forest.errorbar(
        EFFECTS, at[:8] - 0.22, xerr=1.645 * ERRORS, fmt="s", ms=4, color="0.7", capsize=2,
        label="school alone",
    )  # fmt: skip
    for draws, shift, style, label in (
        (ours, 0.0, {"color": "C0", "fmt": "o"}, "energydsl"),
        (theirs, 0.22, {"color": "C1", "fmt": "D"}, "NumPyro"),
    ):
        mean = np.array([draws[n].mean() for n in names])
        low, high = np.quantile([draws[n].ravel() for n in names], [0.05, 0.95], axis=1)
        forest.errorbar(mean, at + shift, xerr=[mean - low, high - mean], ms=5, capsize=2,
                        label=label, **style)  # fmt: skip
    labels = [*(f"school {s}" for s in SCHOOLS), r"$\mu$", r"$\tau$"]
    forest.set_yticks(at, labels)
    forest.invert_yaxis()
    forest.axvline(0, color="0.8", lw=1, zorder=0)
    forest.set(xlabel="effect / points", title="means and 90 % intervals")
    forest.legend(loc="lower right")

    pairs = slice(None, None, max(1, ours["tau"].size // 4000))
    funnel.plot(ours["theta[A]"].ravel()[pairs], ours["tau"].ravel()[pairs], ".", ms=2, alpha=0.5)
    funnel.set(xlabel="effect of school A / points", ylabel=r"spread $\tau$ / points")
    funnel.set(
        yscale="log", ylim=(1e-2, 50), title="energydsl: the funnel, wide where schools differ"
    )
    figure.savefig(path, dpi=150)
