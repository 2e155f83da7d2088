r"""Faces told from other pictures by a ratio of two densities, neither of which is normalised.

$$\log \frac{p(x)}{q(x)} = E_q(x) - E_p(x) + \text{const}, \qquad
E(x) = \tfrac12 \sum_i d_i z_i^2 + \tfrac12 \sum_{\langle ij \rangle} w_{ij} (z_i - z_j)^2,
\quad z = x - m.$$

Both are Gaussian fields on 25 x 25 pixels with a mean $m$ and couplings $w$ of their own: $p$ is
learnt from 50 faces and $q$ from patches of photographs without faces. The score needs no log Z,
since the same constant is added for every picture. The density of faces alone is a poor detector:
smooth pictures have a high density under any model of pictures. In the ratio this cancels, as both
models know that pictures are smooth. On faces and other pictures that neither has seen, the area
under the ROC curve is 0.79 for the density of faces and above 0.98 for the ratio; the distance to
the mean face has 0.82.

A ratio of two pictures under one model needs no log Z either: each held-out face is compared with
itself upside down. Learning is by denoising score matching with noise of one standard deviation of
a pixel, and stops by faces that are held out.

Teaches: ratios of densities without log Z, early stopping by held-out data, and why a density alone
does not find what is unusual.

Source: Vincent (2011), Neural Computation 23(7), 1661-1674; Ren et al. (2019), Likelihood ratios
for out-of-distribution detection, NeurIPS 32.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed

SIZE, FACES, PATCHES = 25, (50, 20), (400, 100)
"""The pixels along a side, and the examples to learn from and to stop by."""


WORDS = {
    "area under the ROC curve": "{auroc_ratio:.3f} by the ratio, {auroc_density:.3f} by the "
    "density of faces alone, {auroc_mean:.3f} by the distance to the mean face",
    "faces likelier than themselves upside down": "{upright:.0%}",
    "steps until held-out data were described best": "{steps_faces} of faces, {steps_patches} of "
    "other pictures",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(size: int = SIZE) -> ed.Model:
    """Pictures x with a mean of each pixel and a coupling of each pair of neighbours."""
    x = ed.real("x", (size, size))
    mean, d = (ed.parameter(n, jnp.full((size, size), v)) for n, v in (("m", 0.0), ("d", 1.0)))
    down = ed.parameter("down", jnp.ones((size - 1, size)))
    across = ed.parameter("across", jnp.ones((size, size - 1)))
    z = x - mean
    steep = (down * (z[1:] - z[:-1]) ** 2).sum() + (across * (z[:, 1:] - z[:, :-1]) ** 2).sum()
    return ed.Model(0.5 * (d * z**2).sum() + 0.5 * steep)


def main(
    seed: Seed = 0,
    out: Out = Path("out/faces"),
    steps: Annotated[int, typer.Option(min=20, help="Of learning, at most.")] = 1500,
) -> dict[str, Any]:
    """Learn both densities, and tell held-out faces from pictures that are none."""
    out.mkdir(parents=True, exist_ok=True)
    learnt, kept, test, others = faces(seed)
    around = patches(sum(PATCHES), seed)
    ebm = ed.compile(declare())
    p, told = learn(ebm, learnt, kept, steps, seed)
    q, also = learn(ebm, around[: PATCHES[0]], around[PATCHES[0] :], steps, seed)
    mean = learnt.mean(axis=0)
    scores = {
        "ratio": (energies(p, x) - energies(q, x) for x in (test, others)),
        "density": (energies(p, x) for x in (test, others)),
        "mean": (((x - mean) ** 2).sum(axis=(1, 2)) for x in (test, others)),
    }
    found = {name: tuple(both) for name, both in scores.items()}
    draw(test, others, found, out / "faces.png")
    ed.plot_history(told, out / "learning.png")
    return {f"auroc_{name}": auroc(*both) for name, both in found.items()} | {
        "upright": float((energies(p, test) < energies(p, test[:, ::-1])).mean()),
        "steps_faces": best(told),
        "steps_patches": best(also),
    }


def learn(
    ebm: ed.EBM, data: np.ndarray, held_out: np.ndarray, steps: int, seed: int
) -> tuple[ed.EBM, ed.History]:
    """The field that describes held-out pictures best."""
    return ed.fit(
        ebm,
        ed.ScoreMatching(noise=1.0),
        data,
        key=jr.key(seed),
        optimizer=optax.adam(0.02),
        steps=steps,
        held_out=held_out,
        every=20,
        patience=5,
    )


def best(history: ed.History) -> int | None:
    """The number of steps after which held-out data were described best."""
    return None if history.held_out is None else history.held_out.best


def energies(ebm: ed.EBM, pictures: np.ndarray) -> np.ndarray:
    """The energy of each picture."""
    return np.asarray(jax.vmap(lambda x: ebm.energy({"x": x}))(jnp.asarray(pictures)))


def auroc(usual: np.ndarray, unusual: np.ndarray) -> float:
    """The chance that an unusual picture has a higher score than a usual one."""
    gap = unusual[:, None] - usual
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def faces(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces to learn from, to stop by and to test, and the pictures that are none."""
    from skimage.data import lfw_subset

    pictures = normalised(np.asarray(lfw_subset(), np.float32))
    order = np.random.default_rng(seed).permutation(100)
    own = np.split(pictures[:100][order], np.cumsum(FACES))
    return own[0], own[1], own[2], pictures[100:]


def patches(count: int, seed: int) -> np.ndarray:
    """Squares of 25 to 100 pixels of photographs without faces, each shrunk to 25."""
    from skimage import data
    from skimage.transform import resize

    rng = np.random.default_rng(seed)
    photographs = [getattr(data, n)() / 255 for n in ("coins", "brick", "grass", "gravel")]
    photographs.append(data.camera()[300:, :200] / 255)
    found = []
    for k in range(count):
        photograph = photographs[k % len(photographs)]
        side = rng.integers(SIZE, 4 * SIZE)
        top, left = (rng.integers(n - side) for n in photograph.shape)
        square = photograph[top : top + side, left : left + side]
        found.append(resize(square, (SIZE, SIZE), anti_aliasing=True))
    return normalised(np.asarray(found, np.float32))


def normalised(pictures: np.ndarray) -> np.ndarray:
    """Pictures with mean 0 and a standard deviation of nearly 1."""
    pictures = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    return pictures / (pictures.std(axis=(1, 2), keepdims=True) + 0.02)


def draw(
    test: np.ndarray,
    others: np.ndarray,
    found: dict[str, tuple[np.ndarray, np.ndarray]],
    path: Path,
) -> None:
    """Plot ROC curves, and the pictures that the ratio takes for faces most and least."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2, 3))
    axes = left.subplots()
    names = {"ratio": "ratio of densities", "density": "density of faces", "mean": "mean face"}
    for name, (usual, unusual) in found.items():
        limits = np.sort(np.concatenate([usual, unusual]))
        hits, false = ((x[:, None] <= limits).mean(axis=0) for x in (usual, unusual))
        label = f"{names[name]}: area {auroc(usual, unusual):.3f}"
        axes.plot([0, *false], [0, *hits], label=label)
    axes.plot([0, 1], [0, 1], "--", color="0.7", lw=1)
    axes.set(xlabel="other pictures taken for faces", ylabel="faces found", aspect="equal")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    usual, unusual = found["ratio"]
    rows = {
        "held-out faces, the most usual first": test[np.argsort(usual)[:10]],
        "held-out faces, the least usual first": test[np.argsort(-usual)[:10]],
        "other pictures, the most like a face first": others[np.argsort(unusual)[:10]],
        "other pictures, the least like a face first": others[np.argsort(-unusual)[:10]],
    }
    panels = right.subplots(len(rows), 1)
    for axis, (title, pictures) in zip(panels, rows.items(), strict=True):
        axis.imshow(np.hstack(np.pad(pictures, ((0, 0), (0, 0), (0, 1)), constant_values=3)),
                    cmap="gray", vmin=-2, vmax=2)  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    figure.savefig(path, dpi=150)
