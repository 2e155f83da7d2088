r"""Nine exponential families, recognised from their energies, with log Z in closed form.

$$E(x) = -\sum_f \theta_f \cdot t_f(x_f) - \log h_f(x_f), \qquad \log Z = \sum_f A_f(\theta_f),$$

for one variable $x_f$ and the sufficient statistics $t_f$ of each family f: Normal, Bernoulli,
categorical, Poisson, exponential, Gamma, Beta, Dirichlet and Wishart. Only the energies are given;
the compiler finds the closed form of each log-normalizer $A_f$. Its gradient is the mean of $t_f$,
which is compared with the mean over independent exact draws. Maximum likelihood makes the two means
equal for the data, and finds the parameters from which the data was drawn.

Teaches: variables over nine domains in one model, log Z in closed form, independent exact draws,
and maximum likelihood.

Source: Wainwright & Jordan (2008), Graphical Models, Exponential Families, and Variational
Inference, Foundations and Trends in Machine Learning 1, 3.2 and table 3.1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer
from jax.scipy.special import gammaln

import energydsl as ed
from models_zoo._shared import Out, Seed

THETA: dict[str, Any] = {
    "normal": [1.0, -0.5],
    "bernoulli": 0.7,
    "categorical": [0.5, -1.0],
    "poisson": 1.2,
    "exponential": -2.0,
    "gamma": [1.5, -3.0],
    "beta": [1.0, 2.0],
    "dirichlet": [0.5, 1.0, 2.0],
    "wishart": [[-1.5, -0.4], [-0.4, -0.9]],
    "wishart_power": 1.0,
}
"""The natural parameters from which data is drawn."""


WORDS = {
    "log Z": "{log_z:.6f} ({kind})",
    "found by": "{normalizer}",
    "largest gap between means, derivative of log Z and draws": "{largest_gap_of_means:.3g}",
    "the same after learning": "{largest_gap_after_learning:.3g}",
    "log-likelihood": "{log_likelihood_per_draw:.4f} nats per draw",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(theta: Mapping[str, Any] = THETA) -> ed.Model:
    """One variable of each family, with its natural parameters to be learnt."""
    t = {n: ed.parameter(f"theta_{n}", np.asarray(v, np.float32)) for n, v in theta.items()}
    normal, bernoulli = ed.real("normal"), ed.binary("bernoulli")
    categorical, poisson = ed.categorical("categorical", levels=3), ed.count("poisson")
    exponential, gamma = ed.positive("exponential"), ed.positive("gamma")
    beta, dirichlet = ed.interval("beta", low=0.0, high=1.0), ed.simplex("dirichlet", 3)
    wishart = ed.positive_definite("wishart", (2, 2))
    return ed.Model(
        -t["normal"][0] * normal
        - t["normal"][1] * normal**2
        - t["bernoulli"] * bernoulli
        - t["categorical"][0] * (categorical == 1)
        - t["categorical"][1] * (categorical == 2)
        + ed.apply(lambda n: gammaln(n + 1), poisson)
        - t["poisson"] * poisson
        - t["exponential"] * exponential
        - t["gamma"][0] * ed.log(gamma)
        - t["gamma"][1] * gamma
        - t["beta"][0] * ed.log(beta)
        - t["beta"][1] * ed.log(1 - beta)
        - t["dirichlet"] @ ed.log(dirichlet)
        - (t["wishart"] * wishart).sum()
        - t["wishart_power"] * ed.apply(lambda s: jnp.linalg.slogdet(s)[1], wishart)
    )


def statistics(x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sufficient statistics of draws, averaged over their first axis, by parameter."""
    parts = {
        "normal": np.stack([x["normal"], x["normal"] ** 2], axis=-1),
        "bernoulli": x["bernoulli"],
        "categorical": x["categorical"][..., None] == [1, 2],
        "poisson": x["poisson"],
        "exponential": x["exponential"],
        "gamma": np.stack([np.log(x["gamma"]), x["gamma"]], axis=-1),
        "beta": np.stack([np.log(x["beta"]), np.log1p(-x["beta"])], axis=-1),
        "dirichlet": np.log(x["dirichlet"]),
        "wishart": x["wishart"],
        "wishart_power": np.linalg.slogdet(x["wishart"])[1],
    }
    return {f"theta_{n}": np.mean(np.float64(v), axis=0) for n, v in parts.items()}


def main(
    seed: Seed = 0,
    out: Out = Path("out/exponential_family"),
    draws: Annotated[int, typer.Option(min=100, help="Independent draws for learning.")] = 4000,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 400,
) -> dict[str, Any]:
    """Compare means with gradients of log Z, and learn the parameters back from draws."""
    out.mkdir(parents=True, exist_ok=True)
    ebm = ed.compile(declare())
    chains = ed.sample(
        ebm, ed.ExactDraws(), key=jr.key(seed), chains=1, warmup=0, draws=draws, progress=False
    )
    data = {name: values[0] for name, values in chains.draws.items()}
    seen = statistics(data)
    begin = {name: 1.2 * np.asarray(value) for name, value in THETA.items()}
    learnt, _ = ed.fit(
        ed.compile(declare(begin)),
        ed.MaximumLikelihood(),
        data,
        key=jr.key(seed + 1),
        optimizer=optax.adam(optax.linear_schedule(0.05, 0.0, steps)),
        steps=steps,
        batch=None,
        progress=False,
    )
    score = ed.log_likelihood(learnt, data)
    save(out / "moments.csv", seen, means(ebm), means(learnt))
    return {
        "log_z": float(ed.log_partition(ebm)),
        "kind": score.kind,
        "normalizer": str(ebm.normalizer),
        "largest_gap_of_means": largest(means(ebm), seen),
        "largest_gap_after_learning": largest(means(learnt), seen),
        "log_likelihood_per_draw": float(score.value),
    }


def means(ebm: ed.EBM) -> dict[str, np.ndarray]:
    """The gradient of log Z in the natural parameters: the means of the statistics."""
    slopes = jax.grad(lambda p: ed.log_partition(ebm.replace(p)))(dict(ebm.parameters))
    return {name: np.asarray(slope) for name, slope in slopes.items()}


def largest(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """The largest difference between two sets of means."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def save(path: Path, *columns: Mapping[str, np.ndarray]) -> None:
    """Write the means, one line for each statistic."""
    lines = ["statistic,draws,exact,learnt"]
    for name in columns[0]:
        for k, values in enumerate(zip(*(np.ravel(c[name]) for c in columns), strict=True)):
            lines.append(f"{name}[{k}]," + ",".join(f"{v:.6g}" for v in values))
    path.write_text("\n".join(lines) + "\n")
