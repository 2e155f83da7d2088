r"""A conditional random field on a grid that finds a horse in a noisy picture.

$$E(y \mid x) = -\sum_i y_i\, (w^\top x_i + b)
- \sum_{\langle ij \rangle} (J + K s_{ij})\, y_i y_j,$$

where $y_i = 1$ on the horse and $-1$ elsewhere, $x_i$ are the grey level of a pixel and the mean of
the 25 pixels about it, and $s_{ij} = e^{-|u_i - u_j|}$ with the means $u$ tells how alike two
neighbouring pixels are. The picture is scikit-image's silhouette with noise of a standard deviation
of 1.5 times the contrast. $x$ and $s$ are inputs. Log Z of a patch is out of reach, and
pseudo-likelihood does without: it predicts each label from its neighbours and the inputs. The five
parameters are learnt on patches of the left half of the picture, and those are kept that describe
held-out patches best. In the right half each pixel gets its more probable label, from Gibbs draws:
1.5 % are wrong, where a reader of each pixel by itself has 5 %.

Teaches: inputs of a grid, pseudo-likelihood given inputs, early stopping, parameters learnt on
patches and used on a whole picture, and posterior means.

Source: Kumar & Hebert (2003), Discriminative random fields, ICCV 2, 1150-1157.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed

PATCH, FEATURES, NOISE = 24, 2, 3.0


WORDS = {
    "wrong pixels of the right half": "{wrong_field:.2%} by the field, {wrong_single:.2%} pixel by "
    "pixel, {wrong_noisy:.2%} by the sign of the noisy picture",
    "coupling": "{coupling_alike:.2f} between pixels that are alike, {coupling_unlike:.2f} between "
    "unlike ones",
    "held-out log pseudo-likelihood": "{held_out_per_pixel:.4f} nats per pixel, best after "
    "{steps} steps",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(shape: tuple[int, int] = (PATCH, PATCH), *, coupled: bool = True) -> ed.Model:
    """Labels y of the pixels, given their features x and the likenesses of neighbours."""
    rows, columns = shape
    x = ed.real("x", (rows, columns, FEATURES), given=True)
    down = ed.real("down", (rows - 1, columns), given=True)
    across = ed.real("across", (rows, columns - 1), given=True)
    y = ed.spin("y", shape)
    w, b = ed.parameter("w", np.zeros(FEATURES)), ed.parameter("b", 0.0)
    energy = -((x @ w + b) * y).sum()
    if coupled:
        J, K = ed.parameter("J", 0.0), ed.parameter("K", 0.0)
        energy -= ((J + K * down) * y[1:] * y[:-1]).sum()
        energy -= ((J + K * across) * y[:, 1:] * y[:, :-1]).sum()
    else:
        energy += 0.0 * down.sum() + 0.0 * across.sum()
    return ed.Model(energy)


def main(
    seed: Seed = 0,
    out: Out = Path("out/silhouettes"),
    patches: Annotated[
        int, typer.Option(min=10, help="For learning; a fifth more is held out.")
    ] = 200,
    steps: Annotated[int, typer.Option(min=20, help="Of learning, at most.")] = 1000,
) -> dict[str, Any]:
    """Learn on the left half, and find the horse in the right one."""
    out.mkdir(parents=True, exist_ok=True)
    noisy, truth = picture(seed)
    middle = truth.shape[1] // 2
    left, right = np.s_[:, :middle], np.s_[:, middle:]
    data = crops(noisy[left], truth[left], patches, seed)
    kept = crops(noisy[left], truth[left], patches // 5, seed + 1)
    learnt, histories = {}, {}
    for name, coupled in {"field": True, "single": False}.items():
        learnt[name], histories[name] = ed.fit(
            ed.compile(declare(coupled=coupled)), ed.PseudoLikelihood(), data, key=jr.key(seed),
            optimizer=optax.adam(0.05), steps=steps, batch=min(50, patches), held_out=kept,
            every=20, patience=5,
        )  # fmt: skip
    shown, p = inputs(noisy[right]), learnt["field"].parameters
    single = learnt["single"].parameters
    labels = {
        "field": likely(ed.compile(declare(truth[right].shape).replace(p)).given(shown), seed),
        "single": np.where(shown["x"] @ np.asarray(single["w"]) + single["b"] > 0, 1, -1),
    }
    draw(noisy[right], truth[right], labels, out / "silhouettes.png")
    held_out = histories["field"].held_out
    assert held_out is not None
    return {f"wrong_{name}": float((y != truth[right]).mean()) for name, y in labels.items()} | {
        "wrong_noisy": float((np.sign(noisy[right]) != truth[right]).mean()),
        "coupling_alike": float(p["J"] + p["K"]),
        "coupling_unlike": float(p["J"]),
        "held_out_per_pixel": float(-held_out.values.min() / PATCH**2),
        "steps": held_out.best,
    }


def likely(field: ed.EBM, seed: int) -> np.ndarray:
    """The more probable label of each pixel, from the mean over Gibbs draws."""
    drawn = ed.sample(field, ed.Gibbs(), key=jr.key(seed), chains=8, warmup=100, draws=50, thin=2)
    return np.where(drawn.draws["y"].mean(axis=(0, 1)) > 0, 1, -1)


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The noisy picture, and the labels: 1 on the horse and -1 elsewhere."""
    from skimage.data import horse

    truth = np.where(np.asarray(horse()), -1, 1).astype(np.int8)
    return truth + NOISE * np.random.default_rng(seed).normal(size=truth.shape), truth


def inputs(noisy: np.ndarray) -> dict[str, np.ndarray]:
    """The features of each pixel of a picture, and the likenesses of its neighbours."""
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(noisy, 5, mode="nearest")
    steps = {"down": np.diff(mean, axis=0), "across": np.diff(mean, axis=1)}
    return {"x": np.stack([noisy, mean], axis=-1)} | {
        name: np.exp(-np.abs(step)) for name, step in steps.items()
    }


def crops(noisy: np.ndarray, truth: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Patches at random places, with their labels."""
    whole, rng = inputs(noisy) | {"y": truth}, np.random.default_rng((seed, 1))
    rows, columns = (rng.integers(n - PATCH + 1, size=count) for n in truth.shape)
    short = {"down": (1, 0), "across": (0, 1)}

    def cut(name: str, row: int, column: int) -> np.ndarray:
        less, fewer = short.get(name, (0, 0))
        return whole[name][row : row + PATCH - less, column : column + PATCH - fewer]

    places = list(zip(rows, columns, strict=True))
    return {name: np.stack([cut(name, r, c) for r, c in places]) for name in whole}


def draw(noisy: np.ndarray, truth: np.ndarray, found: dict[str, np.ndarray], path: Path) -> None:
    """Plot the noisy right half, both results, and the truth."""
    from matplotlib.figure import Figure

    panels = {"given": noisy, "pixel by pixel": found["single"], "field": found["field"],
              "truth": truth}  # fmt: skip
    figure = Figure(figsize=(11, 5), layout="constrained")
    for axis, (title, shown) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        axis.imshow(-shown, cmap="gray", vmin=-2 if title == "given" else -1,
                    vmax=2 if title == "given" else 1)  # fmt: skip
        wrong = "" if title in ("given", "truth") else f": {(shown != truth).mean():.2%} wrong"
        axis.set_title(f"{title}{wrong}", fontsize=11)
        axis.axis("off")
    figure.savefig(path, dpi=150)
