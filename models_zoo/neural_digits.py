r"""A neural energy of handwritten digits, learnt with a replay buffer.

$$E_\theta(x) = f_\theta(x) + \tfrac12 \lVert x \rVert^2 / \tau^2, \qquad x \in \mathbb{R}^{64}.$$

The digits of scikit-learn have 17 grey levels; a pixel is scaled to [-1, 1], and noise of standard
deviation 0.1 makes the distribution smooth. The chains of Langevin steps begin in a buffer of 2,000
pictures, of which each step of learning draws, moves and replaces 100; one chain in twenty begins
at random pixels. A small penalty keeps all energies near 0. In the first few hundred steps
of learning the samples are easily told from digits, and the loss is far below 0; then it remains
within about twenty units of 0 to the end, where it would run away if samples fell behind. The
numbers compare draws with test digits: the mean and the standard deviation of each pixel, and the
energies, whose means would be equal if the draws had the law of the data. After this short run most
draws are like digits, and their energy is several units of k_B T lower than that of test digits.

Teaches: a replay buffer, a penalty on energies, and how a stable run looks.

Source: Du & Mordatch (2019), NeurIPS 32.
"""

from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed, sheet

NOISE, SPREAD = 0.1, 1.0
KERNEL = ed.Langevin(step_size=0.003, adjusted=False)


WORDS = {
    "largest loss in the second half of learning": "{largest_loss:.2f} units of k_B T",
    "mean energy of test digits above that of draws": "{gap:.2f} units of k_B T",
    "rms error of pixels' means": "{mean_error:.3f} of the scale from -1 to 1",
    "rms error of pixels' deviations": "{deviation_error:.3f} of the scale from -1 to 1",
    "time of learning": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(width: int = 128, seed: int = 0) -> ed.Model:
    """A network of two hidden layers on the pixels, with a weak normal energy."""
    x = ed.real("x", SIDE**2)
    network = eqx.nn.MLP(SIDE**2, "scalar", width, 2, activation=jax.nn.silu, key=jr.key(seed))
    return ed.Model(ed.Neural(network)(x) + 0.5 / SPREAD**2 * (x**2).sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/neural_digits"),
    k: Annotated[int, typer.Option(min=1, help="Langevin steps per step of learning.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 2000,
    long: Annotated[int, typer.Option(min=1, help="Langevin steps of the draws.")] = 2000,
    width: Annotated[int, typer.Option(min=1, help="Width of each of two layers.")] = 128,
) -> dict[str, Any]:
    """Learn an energy of grey digits, and draw some."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = grey_digits(seed)
    ebm = ed.compile(declare(width, seed))
    objective = ed.ContrastiveDivergence(
        k=k, kernel=KERNEL, start=ed.Buffer(2000, renew=0.05), chains=100, penalty=1e-3
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    )
    ebm, history = ed.fit(
        ebm, objective, train, key=jr.key(seed), optimizer=optimizer, steps=steps, batch=100
    )
    chains = ed.sample(ebm, KERNEL, key=jr.key(seed + 1), chains=300, warmup=0, draws=1, thin=long)
    drawn = np.asarray(chains.last["x"])
    energy = jax.vmap(lambda x: ebm.energy({"x": x}))
    draw(test, drawn, history, out / "digits.png")
    return {
        "largest_loss": float(np.abs(history["loss"][steps // 2 :]).max()),
        "gap": float(energy(test).mean() - energy(drawn).mean()),
        "mean_error": float(np.sqrt(((drawn.mean(0) - test.mean(0)) ** 2).mean())),
        "deviation_error": float(np.sqrt(((drawn.std(0) - test.std(0)) ** 2).mean())),
        "seconds": history.seconds,
    }


def grey_digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits in grey with a little noise, pixels from -1 to 1: for training, and for the test."""
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits(return_X_y=True)[0]) / 8 - 1
    rng = np.random.default_rng(seed)
    images = (images + NOISE * rng.normal(size=images.shape)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:1437]], images[order[1437:]]


def draw(test: np.ndarray, drawn: np.ndarray, history: ed.History, path: Path) -> None:
    """Plot test digits, drawn ones, and the loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2))
    figure.set_layout_engine("constrained", w_pad=0.15)
    real, model, loss = figure.subplots(1, 3)
    for axis, images, title in ((real, test, "held out"), (model, drawn, "drawn from noise")):
        axis.imshow(sheet(images[:60]), cmap="gray_r", vmin=-1, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    loss.plot(history["loss"], linewidth=0.5)
    loss.axhline(0, color="k", linewidth=0.5)
    loss.set(
        xlabel="step of learning",
        ylabel="loss [$k_B T$]",
        title="loss: energy of data less that of samples",
    )
    figure.savefig(path, dpi=150)
