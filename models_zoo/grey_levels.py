r"""A Boltzmann machine of pixels with 256 grey levels, learnt from patches of a photograph.

$$E(x) = \sum_i u(x_i) + \tfrac12 \sum_{i<j} w_{ij} \left(\frac{x_i - x_j}{16}\right)^2,
\qquad x \in \{0, \dots, 255\}^9,$$

for patches of three by three pixels: a table u of the 256 levels that all pixels share, and a
coupling of each pair. There are $256^9$ patches, so that $\log Z$ is out of reach; every
pixel given the others is a distribution over 256 levels, which is all that pseudo-likelihood and
Gibbs sampling need. The photograph is `camera` of scikit-image; patches of its right half are held
out. A pixel given its neighbours has about 3.9 nats, where the histogram of single pixels has 5.6.

Teaches: integer variables, tables of levels, pseudo-likelihood, held-out data with early stopping.

Source: Besag (1975), The Statistician 24(3), 179-195.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer
from skimage import data as pictures

import energydsl as ed
from models_zoo._shared import Out, Seed, sheet

LEVELS, EDGE = 256, 3
CENTRE = EDGE**2 // 2
FIRST, SECOND = np.triu_indices(EDGE**2, 1)
"""The pairs of pixels."""
NEIGHBOURS = [CENTRE - EDGE, CENTRE - 1, CENTRE + 1, CENTRE + EDGE]

WORDS = {
    "a pixel given the others": "{given_others:.3f} nats (held out)",
    "a pixel alone": "{alone:.3f} nats",
    "error of the middle pixel": "{error:.2f} levels (mean of neighbours {error_neighbours:.2f})",
    "correlation of neighbours": "{correlation:.3f} (held out {correlation_data:.3f})",
    "time of learning": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(share: np.ndarray | None = None) -> ed.Model:
    """The machine, with the shares of grey levels in data and without couplings."""
    x = ed.integer("x", EDGE**2, low=0, high=LEVELS - 1)
    share = np.full(LEVELS, 1 / LEVELS) if share is None else share
    w = ed.parameter("w", np.full(len(FIRST), 0.1))
    apart = (x[FIRST] - x[SECOND]) / 16
    return ed.Model(ed.Table(-np.log(share))(x).sum() + (w * apart**2).sum() / 2)


def patches(image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Patches of an image at random places, one a row."""
    rows = rng.integers(image.shape[0] - EDGE + 1, size=count)
    columns = rng.integers(image.shape[1] - EDGE + 1, size=count)
    views = np.lib.stride_tricks.sliding_window_view(image, (EDGE, EDGE))
    return views[rows, columns].reshape(count, EDGE**2).astype(int)


def main(
    seed: Seed = 0,
    out: Out = Path("out/grey_levels"),
    count: Annotated[int, typer.Option(min=100, help="Patches to learn from.")] = 8000,
    steps: Annotated[int, typer.Option(min=1, help="Of learning, at most.")] = 1500,
) -> dict[str, Any]:
    """Learn a machine of grey patches, predict pixels by it, and draw patches."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = pictures.camera()
    half = image.shape[1] // 2
    train, test = patches(image[:, :half], count, rng), patches(image[:, half:], 1000, rng)
    share = (np.bincount(train.ravel(), minlength=LEVELS) + 1) / (train.size + LEVELS)
    ebm, history = ed.fit(
        ed.compile(declare(share)), ed.PseudoLikelihood(), train, key=jr.key(seed),
        steps=steps, batch=100, held_out=test[:300], every=100, patience=3,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, steps)),
    )  # fmt: skip
    drawn = ed.sample(
        ebm, ed.Gibbs(), key=jr.key(seed + 1), chains=60, warmup=500, draws=40, thin=5
    )
    fresh = drawn.draws["x"].reshape(-1, EDGE**2)
    guess, given_others = predicted(ebm, test)
    middle = test[:, CENTRE]
    draw(ebm, test, np.asarray(drawn.last["x"]), out / "patches.png")
    return {
        "given_others": given_others,
        "alone": float(-np.log(share[test]).mean()),
        "error": float(np.sqrt(np.mean((guess - middle) ** 2))),
        "error_neighbours": float(
            np.sqrt(np.mean((test[:, NEIGHBOURS].mean(axis=1) - middle) ** 2))
        ),
        "correlation": correlation(fresh),
        "correlation_data": correlation(test),
        "seconds": history.seconds,
    }


def predicted(ebm: ed.EBM, test: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean of the middle pixel given the others, and minus the mean log conditional."""

    def one(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        law = ebm.conditional("x", {"x": x})
        return law.probs[CENTRE] @ jnp.arange(LEVELS), -jnp.mean(law.log_prob(x))

    guess, nats = jax.jit(jax.vmap(one))(jnp.asarray(test))
    return np.asarray(guess), float(nats.mean())


def correlation(patches: np.ndarray) -> float:
    """The correlation of the middle pixel and the one on its left."""
    return float(np.corrcoef(patches[:, CENTRE], patches[:, CENTRE - 1])[0, 1])


def draw(ebm: ed.EBM, test: np.ndarray, drawn: np.ndarray, path: Path) -> None:
    """Plot held-out and drawn patches, the couplings of the middle pixel, and a conditional."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4))
    figure.set_layout_engine("constrained", w_pad=0.15)
    real, model, coupling, law = figure.subplots(1, 4)
    for axes, images, title in ((real, test, "held out"), (model, drawn, "drawn, one per chain")):
        axes.imshow(sheet(images[:60], side=EDGE), cmap="gray", vmin=0, vmax=LEVELS - 1)
        axes.set_title(title)
        axes.axis("off")
    pairs = np.zeros((EDGE**2, EDGE**2))
    pairs[FIRST, SECOND] = pairs[SECOND, FIRST] = np.asarray(ebm.parameters["w"])
    weights = pairs[CENTRE].reshape(EDGE, EDGE)
    limit = np.abs(weights).max()
    picture = coupling.imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit)
    coupling.set_title("w: the middle pixel with others")
    coupling.axis("off")
    figure.colorbar(picture, ax=coupling, shrink=0.8)
    for patch in test[:3]:
        probabilities = np.asarray(ebm.conditional("x", {"x": jnp.asarray(patch)}).probs[CENTRE])
        (line,) = law.plot(probabilities, lw=0.9)
        law.axvline(patch[CENTRE], color=line.get_color(), ls=":", lw=1)
    law.set(xlabel="grey level", ylabel="probability", title="middle pixel given the others")
    law.set_xlim(0, LEVELS - 1)
    figure.savefig(path, dpi=150)
