r"""The Ising model at its phase transition, compared with Kaufman's exact energy.

$$E(s) = -J \sum_{\langle ij \rangle} s_i s_j - h \sum_i s_i$$

on a periodic square lattice, in zero field and units of $J$. Gibbs starts with all spins up: from a
random start, the ordered phase may stay divided into two domains for a long time. Single-site
updates mix slowly near $T_c = 2 / \ln(1 + \sqrt 2)$, where an independent draw takes about $L^2$
sweeps. The error bars take this into account: they are ArviZ's Monte Carlo standard errors, and
``tau`` is the integrated autocorrelation time of the energy in sweeps.

Teaches: periodic lattices by `roll`, temperature as a division of the model, kept quantities in
place of whole draws, and error bars of correlated draws.

Source: Kaufman (1949), Phys. Rev. 76, 1232; Yang (1952), Phys. Rev. 85, 808.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import typer
from scipy.special import logsumexp

import energydsl as ed
from models_zoo._shared import Out, Seed, estimate, write_chains

CRITICAL = float(2 / np.log(1 + np.sqrt(2)))
TEMPERATURES = [1.8, 2.1, 2.2, CRITICAL, 2.35, 2.5, 3.0]


WORDS = {
    "temperature": "{temperature:.4g} J",
    "energy per site": "{energy ± error} J (exact {exact:.5f} J)",
    "errors off": "{z:+.1f}",
    "|magnetisation| per site": "{magnetisation ± magnetisation_error}",
    "sweeps per independent draw": "{tau:.0f}",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(
    shape: tuple[int, int] = (32, 32), coupling: float = 1.0, field: float = 0.0
) -> ed.Model:
    """An Ising model on a periodic square lattice."""
    s = ed.spin("s", shape)
    bonds = s * ed.roll(s, 1, axis=0) + s * ed.roll(s, 1, axis=1)
    return ed.Model(-coupling * bonds.sum() - field * s.sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/ising"),
    size: Annotated[int, typer.Option(min=3, help="Side of the lattice.")] = 32,
    temperatures: Annotated[
        list[float] | None, typer.Option(min=0.1, help="In units of J; around T_c if not given.")
    ] = None,
    chains: Annotated[int, typer.Option(min=2, help="Chains.")] = 32,
    draws: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 2000,
    thin: Annotated[int, typer.Option(min=1, help="Sweeps a draw.")] = 10,
) -> dict[str, Any]:
    """Sample a lattice at several temperatures, and compare energies per site with exact ones."""
    out.mkdir(parents=True, exist_ok=True)
    model, sites = declare((size, size)), size**2
    numbers, snapshots = {}, {}
    for i, temperature in enumerate(sorted(set(temperatures or TEMPERATURES))):
        drawn = ed.sample(
            ed.compile(model / temperature), ed.Gibbs(), key=jr.fold_in(jr.key(seed), i),
            chains=chains, warmup=100 * thin, draws=draws, thin=thin,
            start={"s": np.ones((size, size), int)},
            keep={"magnetisation": magnetisation},
        )  # fmt: skip
        if not drawn.stats["energy"].size:  # interrupted before its first draw
            break
        energy = estimate(drawn.stats["energy"] * temperature / sites)
        aligned = estimate(drawn.draws["magnetisation"])
        exact = kaufman_energy(size, temperature)
        numbers[f"T={temperature:.4g}"] = {
            "temperature": temperature,
            "energy": energy.mean,
            "error": energy.error,
            "exact": exact,
            "z": energy.z(exact),
            "magnetisation": aligned.mean,
            "magnetisation_error": aligned.error,
            "tau": chains * draws * thin / energy.ess,
            "seconds": drawn.seconds,
        }
        snapshots[temperature] = np.asarray(drawn.last["s"][0])
        write_chains(drawn, out / f"T={temperature:.4g}.nc")
        if drawn.stopped:
            break
    if numbers:
        draw(numbers, snapshots, size, out / "transition.png")
    return numbers


def magnetisation(x: ed.Configuration) -> jax.Array:
    """The absolute value of the mean spin."""
    return abs(jnp.mean(x["s"]))


def kaufman_energy(size: int, temperature: float) -> float:
    """Mean energy per site of the square torus in zero field, in units of J: -d log Z / dK / N."""
    coupling, step = 1 / temperature, 1e-4 / temperature
    rise = log_partition(size, coupling + step) - log_partition(size, coupling - step)
    return float(-rise / (2 * step) / size**2)


def log_partition(size: int, coupling: float) -> float:
    r"""Kaufman's log Z of the square torus, at coupling $K = J / T$.

    $Z = \tfrac12 (2 \sinh 2K)^{L^2/2} \sum_{k=1}^4 Z_k$: products over odd, then even modes r of
    $2\cosh$ and of $2\sinh(L \gamma_r / 2)$, $\cosh \gamma_r = \cosh 2K \coth 2K - \cos(\pi r/L)$,
    with $\gamma_0 = 2K + \ln \tanh K$, which is negative above $T_c$.
    """
    modes = np.pi * np.arange(1, 2 * size) / size
    gamma = np.arccosh(np.cosh(2 * coupling) / np.tanh(2 * coupling) - np.cos(modes))
    gamma = np.concatenate([[2 * coupling + np.log(np.tanh(coupling))], gamma])
    signs, logs = [], []
    for half in (size * gamma[1::2] / 2, size * gamma[::2] / 2):
        for sign in (+1, -1):
            # e^|x| (1 ± e^-2|x|) is 2 cosh x and 2 sinh |x|.
            logs.append(np.sum(np.abs(half) + np.log1p(sign * np.exp(-2 * np.abs(half)))))
            signs.append(1.0 if sign > 0 else np.prod(np.sign(half)))
    return float(
        logsumexp(logs, b=signs) - np.log(2) + size**2 / 2 * np.log(2 * np.sinh(2 * coupling))
    )


def yang_magnetisation(temperature: np.ndarray) -> np.ndarray:
    """Spontaneous magnetisation of the infinite lattice, which is zero at T_c and above."""
    return np.maximum(0, 1 - np.sinh(2 / temperature) ** -4.0) ** 0.125


def draw(
    numbers: dict[str, Any], snapshots: dict[float, np.ndarray], size: int, path: Path
) -> None:
    """Plot energy and magnetisation against temperature, and configurations."""
    from matplotlib.figure import Figure

    rows = list(numbers.values())
    at = np.array([row["temperature"] for row in rows])
    fine = np.linspace(0.95 * at[0], 1.05 * at[-1], 300)
    figure = Figure(figsize=(13, 7), layout="constrained")
    parts = figure.add_gridspec(2, 1)
    upper, lower = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])

    energy, magnetisation = upper.subplots(1, 2)
    energy.plot(fine, [kaufman_energy(size, t) for t in fine], "k-", lw=1, label="Kaufman, exact")
    magnetisation.plot(fine, yang_magnetisation(fine), "k-", lw=1, label="Yang, infinite lattice")
    for axis, name, error, label in (
        (energy, "energy", "error", "energy per site / J"),
        (magnetisation, "magnetisation", "magnetisation_error", "|magnetisation| per site"),
    ):
        values, errors = ([row[k] for row in rows] for k in (name, error))
        axis.errorbar(at, values, errors, fmt="o", ms=4, capsize=3, label=f"Gibbs, {size} x {size}")
        axis.axvline(CRITICAL, color="0.7", ls="--", zorder=0, label="$T_c$")
        axis.set(xlabel="temperature  T / J", ylabel=label)
        axis.legend()

    shown = sorted({at[0], min(at, key=lambda t: abs(t - CRITICAL)), at[-1]})
    for axis, temperature in zip(np.atleast_1d(lower.subplots(1, len(shown))), shown, strict=True):
        axis.imshow(snapshots[temperature], cmap="gray", vmin=-1, vmax=1)
        axis.set(title=f"T = {temperature:.3f} J", xticks=[], yticks=[])
    figure.savefig(path, dpi=150)
