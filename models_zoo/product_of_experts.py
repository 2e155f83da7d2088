r"""A product of three experts: a distribution, a neural network and a coupling to spins.

$$p(x, s) = \frac1Z\, q(x)\, e^{-f_\theta(x)}\, e^{\,g\, x \cdot s + J s_1 s_2}, \qquad
x \in \mathbb{R}^2,\ s \in \{-1, +1\}^2.$$

The energy of a product of experts is the sum of their energies. Spins and reals are sampled jointly
by two cycles and by Metropolis-Hastings; with the spins clamped, the reals are sampled by NUTS and
Langevin. Their means are compared with exact ones, and log Z by annealed importance sampling is
compared with log Z by quadrature, which sums over the spins. If all experts are Gaussian, log Z has
a closed form: the log of the integral of their product.

Teaches: a sum of a distribution, a neural network and a coupling, mixed spins and reals, and cycles
of kernels.

Source: Hinton (2002), Neural Computation 14(8), 1771-1800.
"""

from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import typer
from scipy.special import softmax
from scipy.stats import norm

import energydsl as ed
from models_zoo._shared import Out, Seed, estimate, write_chains

KERNELS = {
    "joint": {
        "Cycle(Gibbs, NUTS)": ed.Cycle(ed.Gibbs(), ed.NUTS()),
        "Cycle(Gibbs, Langevin)": ed.Cycle(ed.Gibbs(), ed.Langevin()),
        "MetropolisHastings": ed.MetropolisHastings(),
    },
    "held": {"NUTS": ed.NUTS(), "Langevin": ed.Langevin()},
}
SPINS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
HELD = slice(2, 3)
"""The number of the spins' joint state at which they are clamped."""

REACH, POINTS = 12.0, 481
"""Half the side of the grid for exact means, and its number of points along a side."""


WORDS = {
    "log Z of Gaussian experts": "{log_z:.6f}",
    "by the closed form": "{overlap:.6f}",
    "largest error of all means": "{largest_z:.1f} standard errors",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(network: int = 1, strength: float = 8.0, coupling: float = 0.7) -> ed.Model:
    """The product of a normal distribution, a random network and a coupling to spins."""
    x, s = ed.real("x", 2), ed.spin("s", 2)
    f = eqx.nn.MLP(2, "scalar", 16, 2, activation=jnp.tanh, key=jr.key(network))
    law = ed.LogDensity(dist.Normal(0, 1.5))(x)
    return ed.Model(law + strength * ed.Neural(f)(x) - coupling * (x * s).sum() - 0.5 * s[0] * s[1])


def main(
    seed: Seed = 0,
    out: Out = Path("out/product_of_experts"),
    network: Annotated[int, typer.Option(help="Seed of the network.")] = 1,
    chains: Annotated[int, typer.Option(min=2, help="Chains.")] = 16,
    draws: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 2000,
    thin: Annotated[int, typer.Option(min=1, help="Steps a draw.")] = 5,
) -> dict[str, Any]:
    """Sample with several kernels, with the spins free and clamped, and compute log Z twice."""
    out.mkdir(parents=True, exist_ok=True)
    model, key = declare(network), jr.key(seed)
    grid, logs = log_weights(model)
    models = {"joint": model, "held": model.condition(s=SPINS[HELD][0])}
    states = {"joint": slice(None), "held": HELD}
    numbers: dict[str, Any] = {"gaussian": gaussian_log_z()}
    seen = {}
    for place, (name, model_of) in enumerate(models.items()):
        ebm, spins = ed.compile(model_of), SPINS[states[name]]
        exact = exact_moments(grid, spins, logs[states[name]])
        key_of = jr.fold_in(key, place)
        numbers[name] = {"log Z": log_z(ebm, key=key_of)}
        for i, (word, kernel) in enumerate(KERNELS[name].items()):
            drawn = ed.sample(
                ebm, kernel, key=jr.fold_in(key_of, i), chains=chains, draws=draws, thin=thin
            )
            if drawn.stopped:
                return numbers
            write_chains(drawn, out / f"{name}-{i}.nc")
            numbers[name][word] = summary(drawn, exact)
            seen.setdefault(name, drawn)
    rows = [row for name in models for rows in numbers[name].values() for row in rows.values()]
    numbers["largest_z"] = max(abs(row["z"]) for row in rows)
    draw(logs, seen, out / "densities.png")
    return numbers


def log_weights(model: ed.Model) -> tuple[np.ndarray, np.ndarray]:
    """A grid over x, and -E on it, one row for each state of the spins."""
    axis = np.linspace(-REACH, REACH, POINTS, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    energy = jax.jit(jax.vmap(lambda x, s: model.energy({"x": x, "s": s}), (0, None)))
    return grid, -np.stack([energy(grid, s) for s in SPINS]).astype(float)


def moments(x: np.ndarray, s: np.ndarray) -> dict[str, np.ndarray]:
    """The quantities whose means are compared, at draws or at grid points."""
    x, s = np.asarray(x, float), np.broadcast_to(np.asarray(s, float), np.shape(x))
    return {
        "x0": x[..., 0],
        "x1": x[..., 1],
        "x0 x1": x[..., 0] * x[..., 1],
        "|x|^2": (x**2).sum(-1),
        "s0": s[..., 0],
        "s0 s1": s[..., 0] * s[..., 1],
    }


def exact_moments(grid: np.ndarray, spins: np.ndarray, logs: np.ndarray) -> dict[str, float]:
    """Exact means on the grid, over those states of the spins that have a row of weights."""
    weights = softmax(logs)
    each = [moments(grid, s) for s in spins]
    return {
        name: float(sum(w @ m[name] for w, m in zip(weights, each, strict=True)))
        for name in each[0]
    }


def summary(drawn: ed.Chains, exact: dict[str, float]) -> dict[str, dict[str, float]]:
    """Means of the draws and exact ones, without the spins where they are clamped."""
    held = "s" not in drawn.draws
    found = moments(drawn.draws["x"], SPINS[HELD] if held else drawn.draws["s"])
    if held:
        found = {name: draws for name, draws in found.items() if not name.startswith("s")}
    means = {name: estimate(draws) for name, draws in found.items()}
    return {
        name: {"mean": m.mean, "error": m.error, "exact": exact[name], "z": m.z(exact[name])}
        for name, m in means.items()
    }


def log_z(ebm: ed.EBM, *, key: jax.Array) -> dict[str, Any]:
    """Log Z by quadrature and by annealed importance sampling."""
    exact, found = float(ed.log_partition(ebm)), ed.estimate_log_partition(ebm, key=key)
    return {
        "AIS": {
            "mean": float(found.value),
            "error": float(found.standard_error),
            "exact": exact,
            "z": float((found.value - exact) / found.standard_error),
        }
    }


def gaussian_log_z() -> dict[str, float]:
    """Log Z of normal experts by the compiler, and by the closed form of their overlap."""
    x = ed.real("x", 2)
    first, second = dist.Normal(jnp.array([0.0, 1.0]), 1.5), dist.Normal(2.0, jnp.array([0.5, 2.0]))
    ebm = ed.compile(ed.Model(ed.LogDensity(first)(x) + ed.LogDensity(second)(x)))
    overlap = norm.logpdf([0.0, 1.0], 2.0, np.hypot(1.5, [0.5, 2.0])).sum()
    return {"log_z": float(ed.log_partition(ebm)), "overlap": float(overlap)}


def draw(logs: np.ndarray, seen: dict[str, ed.Chains], path: Path) -> None:
    """Plot the density of x with draws, for free and for clamped spins, and the spins' states."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    joint, held, bars = figure.subplots(1, 3)
    held_at = "({:+d}, {:+d})".format(*SPINS[HELD][0])
    for axis, name, rows, state in (
        (joint, "joint", logs, "free"),
        (held, "held", logs[HELD], f"held at {held_at}"),
    ):
        density = softmax(rows).sum(axis=0).reshape(POINTS, POINTS)
        axis.imshow(density.T, origin="lower", extent=(-REACH, REACH) * 2, cmap="Blues")
        x = seen[name].draws["x"].reshape(-1, 2)
        axis.plot(*x[:: max(1, len(x) // 1000)].T, ".", ms=2, color="C1")
        axis.set(xlim=(-6, 6), ylim=(-6, 6), xlabel="$x_1$", ylabel="$x_2$")
        axis.set(title=f"spins {state}\ndots: {next(iter(KERNELS[name]))}")

    exact = softmax(logs).sum(axis=1)
    number = (seen["joint"].draws["s"].reshape(-1, 2) > 0) @ [2, 1]
    bars.bar(np.arange(4), exact, color="0.8", label="exact")
    bars.plot(np.arange(4), np.bincount(number, minlength=4) / len(number), "o", label="draws")
    bars.set_xticks(np.arange(4), ["".join("-+"[int(i > 0)] for i in s) for s in SPINS])
    bars.set(xlabel="signs of $s_1, s_2$", ylabel="probability", title="spins")
    bars.legend()
    figure.savefig(path, dpi=150)
