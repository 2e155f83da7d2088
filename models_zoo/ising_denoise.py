r"""Restoration of two noisy pictures by an Ising model of the hidden pixels.

From a clean picture $x$ in {-1, +1} we observe $y$, in which each pixel is flipped with probability
$p$. Neighbouring pixels mostly agree, so

$$E(x, y) = -J \sum_{\langle ij \rangle} x_i x_j - h \sum_i x_i y_i, \qquad
h = \tfrac12 \log \frac{1 - p}{p},$$

where $h$ makes $p(y \mid x)$ the distribution of the flips. Gibbs draws $x$ given $y$. The restored
picture is the sign of the posterior mean, which minimises the expected number of wrong pixels.
Beside it stands the most probable picture, the mode of $x$ given $y$, which a minimum cut finds and
proves. It has the lowest energy of all pictures, far below that of any draw, and about as many
wrong pixels as the sign of the posterior mean.

$J$ is chosen without the clean picture. Noise multiplies the correlation of neighbours by
$(1-2p)^2$, so that the clean picture's correlation follows from the noisy one; $J$ is the coupling
at which the infinite Ising lattice, by Onsager's solution, has the same correlation. With 10 % of
the pixels flipped, errors fall 40- to 50-fold on `horse` and 3-fold on the thin strokes of `page`.

With diagonal neighbours (``--neighbours 8``) the couplings are fixed; they were chosen for the
fewest errors on these pictures with other noise. The diagonal coupling is positive for `horse`, and
negative for `page`, whose strokes are one or two pixels wide. Errors then fall about 50-fold and
3.3-fold. A positive diagonal coupling of 0.7 of the axes' is worse on `page`: 2.7-fold at best.

Teaches: conditioning a model on a picture, Gibbs sampling of the hidden rest, and decisions from
posterior means and from modes.

Source: Geman & Geman (1984), IEEE PAMI 6(6), 721-741; Greig, Porteous & Seheult (1989), JRSS B 51,
271-279, for the cut; Onsager (1944), Phys. Rev. 65, 117.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import jax.random as jr
import numpy as np
import typer
from scipy.special import ellipkm1

import energydsl as ed
from models_zoo._shared import Out, Seed, estimate, write_chains

WIDE = {"horse": (0.8, 0.2), "page": (0.75, -0.18)}
"""Couplings along the axes and along the diagonals, for 8 neighbours, by picture."""


WORDS = {
    "wrong pixels": "{error_noisy:.2%} noisy, {error_restored:.3%} restored",
    "wrong pixels, by the model's own estimate": "{error_expected:.3%}",
    "errors fell": "{fold:.1f}-fold",
    "wrong pixels of the most probable picture": "{error_mode:.3%}, {mode_kind}",
    "its energy": "{energy_mode:.1f}, against {energy_drawn:.1f} of a draw on average",
    "coupling J": "{coupling:.3f}",
    "R-hat of the energy": "{rhat_energy:.3f}",
    "time": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(
    shape: tuple[int, int] = (328, 400),
    flips: float = 0.1,
    coupling: float = 0.5,
    diagonal: float | None = None,
) -> ed.Model:
    """The joint model of a hidden picture x and its noisy copy y."""
    x, y = ed.spin("x", shape, latent=True), ed.spin("y", shape)
    h = 0.5 * np.log((1 - flips) / flips)
    agreement = (x[1:] * x[:-1]).sum() + (x[:, 1:] * x[:, :-1]).sum()
    model = ed.Model(-coupling * agreement - h * (x * y).sum())
    if diagonal is not None:
        across = (x[1:, 1:] * x[:-1, :-1]).sum() + (x[1:, :-1] * x[:-1, 1:]).sum()
        model += ed.Model(-diagonal * across)
    return model


def main(
    seed: Seed = 0,
    out: Out = Path("out/ising_denoise"),
    flips: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Share of the pixels that are flipped.")
    ] = 0.1,
    coupling: Annotated[
        float | None, typer.Option(help="J; found from the noisy picture if not given.")
    ] = None,
    neighbours: Annotated[Literal[4, 8], typer.Option(help="Of each pixel.")] = 4,
    chains: Annotated[int, typer.Option(min=1, help="Chains.")] = 4,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each chain.")] = 100,
    thin: Annotated[int, typer.Option(min=1, help="Sweeps a draw.")] = 10,
) -> dict[str, Any]:
    """Add noise to two pictures and restore them."""
    out.mkdir(parents=True, exist_ok=True)
    numbers, sheets = {}, {}
    for i, (name, clean) in enumerate(pictures().items()):
        noise_key, chain_key = jr.split(jr.fold_in(jr.key(seed), i))
        noisy = np.where(jr.bernoulli(noise_key, flips, clean.shape), -clean, clean)
        nearest, diagonal = matched_coupling(noisy, flips), None
        if neighbours == 8:
            nearest, diagonal = WIDE[name]
        nearest = nearest if coupling is None else coupling

        model = declare(clean.shape, flips, nearest, diagonal)
        ebm = ed.compile(model.condition(y=noisy))
        drawn = ed.sample(
            ebm, ed.Gibbs(), key=chain_key, chains=chains, warmup=200, draws=draws, thin=thin
        )
        if not drawn.stats["energy"].size:  # interrupted before its first draw
            break
        best = mode(ebm)
        numbers[name] = {
            "coupling": float(nearest),
            **scored(drawn, clean, noisy),
            **scored_mode(best, clean),
        }
        sheets[name] = {"clean": clean, "noisy": noisy, "posterior mean": posterior_mean(drawn)}
        if best is not None:
            sheets[name]["mode"] = np.asarray(best.configuration["x"])
        write_chains(drawn, out / f"{name}.nc", dims={n: ["row", "column"] for n in ("x", "y")})
        if drawn.stopped:
            break
    if sheets:
        draw(numbers, sheets, out / "restored.png")
    return numbers


def posterior_mean(drawn: ed.Chains) -> np.ndarray:
    """The posterior mean of each hidden pixel."""
    return drawn.draws["x"].mean(axis=(0, 1))


def scored(drawn: ed.Chains, clean: np.ndarray, noisy: np.ndarray) -> dict[str, float]:
    """Shares of wrong pixels in the noisy and in the restored picture, and their ratio."""
    mean = posterior_mean(drawn)
    before, after = np.mean(noisy != clean), np.mean(restored(mean) != clean)
    return {
        "error_noisy": float(before),
        "error_restored": float(after),
        # The share that the model itself predicts, without the clean picture.
        "error_expected": float(np.mean(1 - np.abs(mean)) / 2),
        "fold": float(before / max(after, 1 / clean.size)),
        "energy_drawn": float(np.mean(drawn.stats["energy"])),
        "rhat_energy": estimate(drawn.stats["energy"]).rhat,
        "seconds": drawn.seconds,
    }


def mode(ebm: ed.EBM) -> ed.Mode | None:
    """The most probable picture; None where a negative diagonal coupling leaves only a search."""
    try:
        return ed.map_configuration(ebm)
    except ed.IntractableError:
        return None


def scored_mode(best: ed.Mode | None, clean: np.ndarray) -> dict[str, Any]:
    """The share of wrong pixels and the energy of the most probable picture."""
    if best is None:
        return {}
    return {
        "error_mode": float(np.mean(np.asarray(best.configuration["x"]) != clean)),
        "energy_mode": best.energy,
        "mode_kind": "proven" if best.proven else "not proven",
    }


def restored(mean: np.ndarray) -> np.ndarray:
    """The picture with the lowest expected number of wrong pixels, given the posterior mean."""
    return np.where(mean > 0, 1, -1)


def pictures() -> dict[str, np.ndarray]:
    """Two pictures of scikit-image as spins."""
    from skimage import data, filters

    page = data.page()
    light = {
        "horse": data.horse(),
        "page": page > filters.threshold_local(page, block_size=35, offset=10),
    }
    return {name: np.where(pixels, 1, -1).astype(np.int8) for name, pixels in light.items()}


def matched_coupling(noisy: np.ndarray, flips: float) -> float:
    """The coupling at which neighbours are correlated as in the clean picture."""
    seen = [noisy[1:] * noisy[:-1], noisy[:, 1:] * noisy[:, :-1]]
    agreement = np.mean(np.concatenate([pairs.ravel() for pairs in seen])) / (1 - 2 * flips) ** 2
    couplings = np.linspace(0.01, 1.5, 2_000)
    return float(np.interp(agreement, lattice_agreement(couplings), couplings))


def lattice_agreement(coupling: np.ndarray) -> np.ndarray:
    r"""Onsager's mean of s_i s_j for neighbours on the infinite lattice.

    $\tfrac12 \coth 2J\,[1 + \tfrac2\pi (2 \tanh^2 2J - 1)\, K(k)]$, with the complementary modulus
    $k' = 2 \tanh^2 2J - 1$.
    """
    modulus = 2 * np.tanh(2 * coupling) ** 2 - 1
    return (1 + 2 / np.pi * modulus * ellipkm1(modulus**2)) / np.tanh(2 * coupling) / 2


def draw(numbers: dict[str, Any], sheets: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Plot the clean, noisy and restored versions of each picture."""
    from matplotlib.figure import Figure

    heights = [len(sheet["clean"]) / sheet["clean"].shape[1] for sheet in sheets.values()]
    figure = Figure(figsize=(16, 3.2 * sum(heights) + 0.5 * len(heights)), layout="constrained")
    rows = figure.subplots(len(sheets), 5, squeeze=False, height_ratios=heights)
    for row, (name, sheet) in zip(rows, sheets.items(), strict=True):
        wrong, mean = numbers[name], sheet["posterior mean"]
        shown = {
            "clean": sheet["clean"],
            f"noisy: {wrong['error_noisy']:.2%} wrong": sheet["noisy"],
            f"restored: {wrong['error_restored']:.2%} wrong": restored(mean),
            "posterior mean": mean,
        }
        if "mode" in sheet:
            shown[f"most probable: {wrong['error_mode']:.2%} wrong"] = sheet["mode"]
        row[-1].axis("off")
        for axis, (title, picture) in zip(row, shown.items(), strict=False):
            axis.axis("on")
            axis.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=150)
