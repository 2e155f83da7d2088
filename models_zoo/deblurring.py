r"""Pictures from blurred, noisy or missing pixels: a linear inverse problem with a smooth prior.

We see $y = A x + \sigma \epsilon$ of a picture x with normal noise $\epsilon$. The prior is a
Gaussian Markov random field, in which neighbours differ by about $\tau$:

$$E(x) = \frac{\|y - A x\|^2}{2 \sigma^2}
+ \frac{1}{2 \tau^2} \sum_{\langle ij \rangle} (x_i - x_j)^2.$$

The energy is quadratic, so that the posterior mean is the mode, and both are exact. Two problems
differ in A alone: a blur by a bell curve, and pixels of which three in five are missing. The
baseline minimises $\|y - A x\|$ alone, by the shortest x that does: it amplifies the noise of the
blurred picture, and leaves missing pixels at the mean grey level.

$\tau$ is chosen without the clean picture, as the one of highest evidence,
$\log p(y \mid \tau) = \log Z(\tau) - (n - 1) \log \tau$ up to a constant, for n pixels.

Teaches: sparse matrices in energies, exact log Z as a function of a parameter, and modes of normal
models.

Source: Rue & Held (2005), Gaussian Markov Random Fields, Chapman & Hall, chapters 2 and 3.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.sparse import csr_array, eye_array, kron
from scipy.sparse.linalg import lsmr

import energydsl as ed
from models_zoo._shared import Out, Seed

STEPS = (0.06, 0.09, 0.13, 0.2, 0.3)
r"""The values of $\tau$ that are compared."""

WORDS = {
    "PSNR": "{psnr:.2f} dB",
    "by least squares": "{psnr_least_squares:.2f} dB",
    "as seen": "{psnr_seen:.2f} dB",
    "neighbours differ by": "{step:g}, of highest evidence",
    "the mode is": "{proof}, by {method}",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(side: int, seen: csr_array, y: np.ndarray, noise: float, step: float) -> ed.Model:
    """The posterior of a square picture of which `seen @ x` was observed with noise."""
    x = ed.real("x", side * side)
    i, j = neighbours(side)
    tight = ed.parameter("tight", 1 / step**2)
    return ed.Model(
        ((y - seen @ x) ** 2).sum() / (2 * noise**2) + tight / 2 * ((x[i] - x[j]) ** 2).sum()
    )


def main(
    seed: Seed = 0,
    out: Out = Path("out/deblurring"),
    side: Annotated[int, typer.Option(min=8, help="Pixels along each side.")] = 48,
    noise: Annotated[float, typer.Option(min=1e-4, help="Its standard deviation.")] = 0.03,
) -> dict[str, Any]:
    """Restore a blurred picture, and one with missing pixels."""
    out.mkdir(parents=True, exist_ok=True)
    clean, rng = picture(side), np.random.default_rng(seed)
    problems = {"blurred": blur(side), "missing": selection(side, rng)}
    numbers, sheets = {}, {}
    for name, seen in problems.items():
        y = seen @ clean.ravel() + noise * rng.normal(size=seen.shape[0])
        best, step = restored(side, seen, y, noise)
        # The shortest solution of least squares, around the mean grey level.
        centre = y.mean()
        plain = centre + lsmr(seen, y - centre, maxiter=2000, atol=1e-8, btol=1e-8)[0]
        shown = seen.T @ y if name == "missing" else y
        found = np.asarray(best.configuration["x"])
        pictures = {"seen": shown, "least squares": plain, "restored": found}
        sheets[name] = {n: np.reshape(p, (side, side)) for n, p in pictures.items()}
        numbers[name] = {
            "psnr": psnr(found, clean),
            "psnr_least_squares": psnr(plain, clean),
            "psnr_seen": psnr(shown, clean),
            "step": step,
            "proof": "proven" if best.proven else "not proven",
            "method": best.method,
        }
    draw(clean, sheets, numbers, out / "restored.png")
    return numbers


def restored(side: int, seen: csr_array, y: np.ndarray, noise: float) -> tuple[ed.Mode, float]:
    """The posterior mean at the step of highest evidence, and that step."""
    ebm = ed.compile(declare(side, seen, y, noise, STEPS[0]))
    at = {step: ebm.replace(tight=1 / step**2) for step in STEPS}
    best = max(at, key=lambda step: evidence(at[step], side, step))
    return ed.map_configuration(at[best]), best


def evidence(ebm: ed.EBM, side: int, step: float) -> float:
    """The log-density of what is seen, up to a constant that is the same for all steps."""
    return float(ed.log_partition(ebm)) - (side**2 - 1) * np.log(step)


def picture(side: int) -> np.ndarray:
    """scikit-image's cameraman, smaller, in grey levels between 0 and 1."""
    from skimage import data, transform

    return transform.resize(data.camera() / 255.0, (side, side), anti_aliasing=True)


def neighbours(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of each pair of neighbours of a square lattice."""
    index = np.arange(side * side).reshape(side, side)
    first = np.concatenate([index[:-1].ravel(), index[:, :-1].ravel()])
    return first, np.concatenate([index[1:].ravel(), index[:, 1:].ravel()])


def blur(side: int, width: float = 1.0, reach: int = 2) -> csr_array:
    """Means over neighbourhoods by a bell curve, of which each row sums to 1."""
    lines = np.abs(np.arange(side)[:, None] - np.arange(side))
    weights = np.where(lines <= reach, np.exp(-(lines**2) / (2 * width**2)), 0.0)
    line = csr_array(weights / weights.sum(axis=1, keepdims=True))
    whole = csr_array(kron(line, line))
    # A stored zero would be an edge of the model.
    whole.eliminate_zeros()
    return whole


def selection(side: int, rng: np.random.Generator, share: float = 0.4) -> csr_array:
    """A random choice of the pixels, in order."""
    return csr_array(csr_array(eye_array(side * side))[rng.random(side * side) < share])


def psnr(found: np.ndarray, clean: np.ndarray) -> float:
    """The peak signal-to-noise ratio in decibels, for grey levels between 0 and 1."""
    return float(-10 * np.log10(np.mean((np.ravel(found) - clean.ravel()) ** 2)))


def draw(
    clean: np.ndarray,
    sheets: dict[str, dict[str, np.ndarray]],
    numbers: dict[str, Any],
    path: Path,
) -> None:
    """Plot what was seen, both answers, and the clean picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    keys = {"seen": "psnr_seen", "least squares": "psnr_least_squares", "restored": "psnr"}
    for row, (name, sheet) in zip(figure.subplots(2, 4), sheets.items(), strict=True):
        titles = {n: f"{n}: {numbers[name][key]:.1f} dB" for n, key in keys.items()}
        shown = {f"{name}, {titles[n]}": sheet[n] for n in keys} | {"clean": clean}
        for axis, (title, values) in zip(row, shown.items(), strict=True):
            axis.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
