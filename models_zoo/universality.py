r"""Any positive density is an energy-based model: its energy is E = -log p, up to a constant.

$$E(x) = -\log p(x) + c \quad\Longrightarrow\quad \frac{e^{-E(x)}}{Z} = p(x), \qquad \log Z = -c.$$

Each energy is written without its constant: $x^2/2$ for the standard normal distribution, for which
$Z = \sqrt{2\pi}$; $-x \log\frac{p}{1-p}$, linear in $x \in \{0, 1\}$, for Bernoulli's; and so on.
The compiler finds $\log Z$, and which rule gives it: a closed form where it recognises the family,
else numerical integration, which needs no name. With log Z the density is the one of SciPy. Draws
need no constant. Not every energy has a density: $e^{-E}$ of $\log(1 + x)$ on the positive numbers
falls off too slowly to have an integral, and log Z is refused.

Teaches: any formula as an energy, over reals, counts, intervals and bits; which rule finds its log
Z; and how an energy without a density is refused.

Source: LeCun et al. (2006), A tutorial on energy-based learning, section 1.3; Wainwright & Jordan
(2008), Foundations and Trends in Machine Learning 1, section 3.3.
"""

import functools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats
import typer
from jax.scipy.special import gammaln

import energydsl as ed
from models_zoo._shared import Out, Seed

CHANCE, RATE, FREEDOM, FOCUS = 0.3, 3.0, 3.0, 2.0


class Law(NamedTuple):
    """A distribution: its energy without a constant, and SciPy's density of it."""

    variable: Callable[[str], ed.Expression]
    energy: Callable[[ed.Expression], ed.Expression]
    formula: str
    log_density: Callable[[np.ndarray], np.ndarray] | None
    points: np.ndarray


def _centres(x: Any, log: Callable[[Any, Any], Any]) -> Any:
    """Log of the sum of two bells about -2 and 2."""
    return log(-((x + 2) ** 2) / 2, -((x - 2) ** 2) / 2)


LINE, ANGLE = np.linspace(-5, 5, 401), np.linspace(-np.pi, np.pi, 401)

LAWS = {
    "normal": Law(ed.real, lambda x: x**2 / 2, "$x^2/2$", scipy.stats.norm.logpdf, LINE),
    "bernoulli": Law(
        ed.binary,
        lambda x: -np.log(CHANCE / (1 - CHANCE)) * x,
        r"$-x\,\log\frac{p}{1-p}$",
        lambda x: scipy.stats.bernoulli.logpmf(x, CHANCE),
        np.arange(2),
    ),
    "poisson": Law(
        ed.count,
        lambda x: ed.apply(lambda n: gammaln(n + 1), x) - np.log(RATE) * x,
        r"$\log x! - x \log \lambda$",
        lambda x: scipy.stats.poisson.logpmf(x, RATE),
        np.arange(11),
    ),
    "exponential": Law(
        ed.positive,
        lambda x: 2 * x,
        "$2x$",
        lambda x: scipy.stats.expon.logpdf(x, scale=0.5),
        np.linspace(0.01, 3, 200),
    ),
    "laplace": Law(ed.real, lambda x: abs(x), "$|x|$", scipy.stats.laplace.logpdf, LINE),
    "student": Law(
        ed.real,
        lambda x: (FREEDOM + 1) / 2 * ed.log(1 + x**2 / FREEDOM),
        r"$\frac{\nu+1}{2} \log(1 + x^2/\nu)$",
        lambda x: scipy.stats.t.logpdf(x, FREEDOM),
        LINE,
    ),
    "von_mises": Law(
        lambda name: ed.interval(name, low=-np.pi, high=np.pi),
        lambda x: -FOCUS * ed.cos(x),
        r"$-\kappa \cos x$",
        lambda x: scipy.stats.vonmises.logpdf(x, FOCUS),
        ANGLE,
    ),
    "two_bells": Law(
        ed.real,
        lambda x: -_centres(x, ed.logaddexp),
        r"$-\log(e^{-(x+2)^2/2} + \dots)$",
        lambda x: _centres(x, np.logaddexp) - np.log(2 * np.sqrt(2 * np.pi)),
        LINE,
    ),
    "improper": Law(
        ed.positive,
        lambda x: ed.log(1 + x),
        r"$\log(1 + x)$",
        None,
        np.linspace(0.01, 10, 200),
    ),
}
"""The energies by name; the last one has no density."""


PROPER = tuple(name for name, law in LAWS.items() if law.log_density is not None)


WORDS = {
    "log Z": "{log_z:.6f}",
    "by SciPy": "{by_scipy:.6f}",
    "how": "{kind}, by {rule}",
    "no log Z": "{refused}",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(names: tuple[str, ...] = PROPER) -> ed.Model:
    """One variable of each of these laws, side by side, with the sum of their energies."""
    models = [ed.Model(LAWS[name].energy(LAWS[name].variable(name))) for name in names]
    return functools.reduce(operator.add, models)


def main(
    seed: Seed = 0,
    out: Out = Path("out/universality"),
    draws: Annotated[int, typer.Option(min=1, help="Of each of 64 chains.")] = 100,
) -> dict[str, Any]:
    """Find log Z of each energy, and draw from all of them as one model."""
    out.mkdir(parents=True, exist_ok=True)
    numbers = {name: measured(name) for name in LAWS}
    chains = ed.sample(ed.compile(declare()), key=jr.key(seed), chains=64, draws=draws)
    draw(numbers, chains, out / "universality.png")
    return numbers


def measured(name: str) -> dict[str, Any]:
    """Log Z of one energy with its rule, beside SciPy's constant; or why there is none."""
    ebm, law = ed.compile(declare((name,))), LAWS[name]
    try:
        log_z = float(ed.log_partition(ebm))
    except ValueError as error:
        return {"refused": str(error)}
    assert law.log_density is not None and not isinstance(ebm.normalizer, ed.Intractable)
    somewhere = law.points[-1:]
    constant = -energies(name, somewhere) - law.log_density(somewhere)
    return {
        "log_z": log_z,
        "by_scipy": float(constant[0]),
        "kind": ebm.normalizer.kind,
        "rule": ", ".join(plan.rule.name for plan in ebm.normalizer.plans),
    }


def energies(name: str, points: np.ndarray) -> np.ndarray:
    """E of a law at some points."""
    model = declare((name,))
    return np.asarray(jax.vmap(lambda x: model.energy({name: x}))(jnp.asarray(points)))


def draw(numbers: dict[str, Any], chains: ed.Chains, path: Path) -> None:
    """Plot each energy, and below it the density that it gives, with draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(20, 7), layout="constrained")
    columns = figure.subplots(2, len(LAWS)).T
    for (above, below), (name, law) in zip(columns, LAWS.items(), strict=True):
        energy, dots = energies(name, law.points), len(law.points) < 20
        above.plot(law.points, energy, "C0o" if dots else "C0-")
        above.set(title=f"{name.replace('_', ' ')}\nE = {law.formula}", xticklabels=[])
        below.set(xlabel="x")
        if law.log_density is None:
            below.axis("off")
            below.text(0.5, 0.5, "no density:\nthe integral of $e^{-E}$ diverges", ha="center",
                       transform=below.transAxes)  # fmt: skip
            continue
        log_z, rule = numbers[name]["log_z"], numbers[name]["rule"]
        edges = np.append(law.points, law.points[-1] + 1) - 0.5 if dots else law.points[::10]
        seen = np.histogram(chains.draws[name], edges)[0] / chains.draws[name].size
        below.stairs(seen / np.diff(edges), edges, fill=True, color="0.85", label="draws")
        below.plot(
            law.points, np.exp(-energy - log_z), "C0o" if dots else "C0-", label="$e^{-E}/Z$"
        )
        shown = law.points if dots else law.points[::20]
        below.plot(shown, np.exp(law.log_density(shown)), "C1x", ms=5, label="SciPy")
        below.set_title(f"log Z = {log_z:.4f}\n{rule}", fontsize=10)
    columns[0][0].set(ylabel="energy")
    columns[0][1].set(ylabel="density")
    columns[0][1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
