r"""The distribution exp(-E/T) / Z(T) of a small Ising model at all temperatures, exactly.

The temperature of a periodic lattice is set by ``model / T``. Derivatives of log Z give the mean
energy $\langle E \rangle = T^2\, d \log Z / dT$ and the heat capacity $d \langle E \rangle / dT$;
enumeration of all states gives the same heat capacity as $\mathrm{Var}(E) / T^2$. The effective
number of states $e^S$, with the entropy $S$, tends to two as $T \to 0$, with all spins up or all
down, and to all $2^{L^2}$ states as $T \to \infty$. At a few temperatures, results of Gibbs
sampling are compared with the exact curve.

Teaches: the same model at all temperatures by `model / T`, and thermodynamics as derivatives of log
Z.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import typer

import energydsl as ed
from models_zoo._shared import Estimate, Out, Seed, estimate, write_chains

SAMPLED = (1.0, 2.0, 5.0)


WORDS = {
    "largest heat capacity": "{heat_capacity_peak:.4f} (in units of k_B)",
    "largest gap between its two formulas": "{heat_capacity_gap:.1g} of it",
    "states": "{states:,}",
    "effective states at the lowest temperature": "{states_cold:.4g}",
    "effective states at the highest temperature": "{states_hot:.6g}",
    "mean energy": "{energy ± error} (exact {exact:.4f})",
    "errors off": "{z:+.1f}",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(size: int = 4, coupling: float = 1.0) -> ed.Model:
    """An Ising model on a periodic square lattice; with `coupling` one, E is in units of J."""
    s = ed.spin("s", (size, size))
    return ed.Model(-coupling * (s * ed.roll(s, 1, axis=0) + s * ed.roll(s, 1, axis=1)).sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/temperature"),
    size: Annotated[int, typer.Option(min=2, max=4, help="Side of the torus.")] = 4,
    coldest: Annotated[float, typer.Option(min=0.01, help="In units of J.")] = 0.25,
    hottest: Annotated[float, typer.Option(help="In units of J.")] = 100.0,
    points: Annotated[int, typer.Option(min=2, help="Number of temperatures of the curves.")] = 60,
    draws: Annotated[int, typer.Option(min=4, help="Number of draws of each of 16 chains.")] = 1000,
) -> dict[str, Any]:
    """Compute the heat capacity in two ways, and the number of states at low and high T."""
    out.mkdir(parents=True, exist_ok=True)
    model = declare(size)
    temperatures = np.geomspace(coldest, hottest, points)
    with jax.enable_x64(True):
        both = np.concatenate([temperatures, SAMPLED])
        found = jax.lax.map(lambda t: exact(model, size, t), both)
    curves = {name: np.asarray(values)[:points] for name, values in found.items()}
    by_slope, by_variance = curves["slope"], curves["variance"] / temperatures**2
    numbers: dict[str, Any] = {
        "heat_capacity_peak": float(by_variance.max()),
        "heat_capacity_gap": float(np.abs(by_slope - by_variance).max() / by_variance.max()),
        "states": 2 ** (size**2),
        "states_cold": float(curves["states"][0]),
        "states_hot": float(curves["states"][-1]),
    }
    sampled = {}
    for i, temperature in enumerate(SAMPLED):
        key = jr.fold_in(jr.key(seed), i)
        ebm = ed.compile(model / temperature)
        drawn = ed.sample(ebm, ed.Gibbs(), key=key, chains=16, draws=draws, thin=5)
        if not drawn.stats["energy"].size:  # interrupted before its first draw
            break
        sampled[temperature] = energy = estimate(drawn.stats["energy"] * temperature)
        expected = float(found["energy"][points + i])
        numbers[f"T={temperature:g}"] = {
            "energy": energy.mean,
            "error": energy.error,
            "exact": expected,
            "z": energy.z(expected),
        }
        write_chains(drawn, out / f"T={temperature:g}.nc", dims={"s": ["row", "column"]})
        if drawn.stopped:
            break
    draw(temperatures, curves, sampled, 2 ** (size**2), out / "temperature.png")
    return numbers


def log_partition(model: ed.Model, temperature: jax.Array) -> jax.Array:
    """Log Z at a temperature."""
    return jnp.asarray(ed.log_partition(ed.compile(model / temperature)))


def mean_energy(model: ed.Model, temperature: jax.Array) -> jax.Array:
    """The mean energy, as a derivative of log Z."""
    return temperature**2 * jax.grad(log_partition, argnums=1)(model, temperature)


def exact(model: ed.Model, size: int, temperature: jax.Array) -> dict[str, jax.Array]:
    """Exact quantities at a temperature, by derivatives of log Z and by enumeration."""
    energy, slope = jax.value_and_grad(mean_energy, argnums=1)(model, temperature)
    numbers = jnp.arange(2 ** (size**2))[:, None] >> jnp.arange(size**2)
    states = {"s": (1 - 2 * (numbers % 2)).reshape(-1, size, size)}
    log_probs = jax.vmap(ed.compile(model / temperature).log_prob)(states)
    energies = jax.vmap(model.energy)(states)
    probs = jnp.exp(log_probs)
    return {
        "energy": energy,
        "slope": slope,
        "variance": probs @ (energies - probs @ energies) ** 2,
        "states": jnp.exp(-probs @ log_probs),
    }


def draw(
    temperatures: np.ndarray,
    curves: dict[str, np.ndarray],
    sampled: dict[float, Estimate],
    count: int,
    path: Path,
) -> None:
    """Plot energy, heat capacity and effective number of states against temperature."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    energy, capacity, states = figure.subplots(1, 3)
    energy.plot(temperatures, curves["energy"], "k-", lw=1, label="$T^2\\, d \\log Z / dT$")
    means, errors = [e.mean for e in sampled.values()], [e.error for e in sampled.values()]
    energy.errorbar(list(sampled), means, errors, fmt="o", ms=4, capsize=3, label="Gibbs")
    energy.set(ylabel="mean energy / J")

    by_variance = curves["variance"] / temperatures**2
    capacity.plot(temperatures, curves["slope"], "k-", lw=1, label="$d \\langle E \\rangle / dT$")
    capacity.plot(temperatures, by_variance, "o", ms=3, label="$\\mathrm{Var}(E) / T^2$")
    capacity.set(ylabel="heat capacity")

    states.plot(temperatures, curves["states"], "k-", lw=1, label="$e^S$")
    for limit, label in ((2, f"2 and {count:,}"), (count, None)):
        states.axhline(limit, color="0.7", ls="--", zorder=0, label=label)
    states.set(ylabel="effective number of states", yscale="log")
    for axis in (energy, capacity, states):
        axis.set(xlabel="temperature  T / J", xscale="log")
        axis.legend()
    figure.savefig(path, dpi=150)
