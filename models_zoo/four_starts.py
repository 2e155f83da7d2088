r"""One objective by four starts of its chains, on a model whose exact likelihood is known.

$$E(x, h) = -x^\top W h - b^\top x - c^\top h, \qquad x \in \{0, 1\}^{64},\ h \in \{0, 1\}^{10}.$$

The restricted Boltzmann machine of scikit-learn's digits is small enough for exact $\log Z$, a sum
over the $2^{10}$ states of the hidden layer, so that the likelihood can be followed while
contrastive divergence learns without it. Four runs differ only in where the chains of Gibbs steps
begin: at the data, where the last step left them, at random pictures, or in a replay buffer. With
weights as small as these, three steps mix well enough that the first, the second and the last agree
within 0.2 nats. From random pictures, three steps do not get to where the model has its mass: the
likelihood rises for a while and then falls. The loss does not show that, an exact score does.

Each run is extended through its checkpoint, with the chains and the buffer that it had.

Teaches: starts of contrastive divergence as values, the likelihood during learning, runs that go on
from a checkpoint.

Source: Hinton (2002), Neural Computation 14(8), 1771-1800; Tieleman (2008), ICML, 1064-1071;
Nijkamp et al. (2019), NeurIPS 32; Du & Mordatch (2019), NeurIPS 32.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed, digits
from models_zoo.rbm_digits import begin

RATE = 0.01
STARTS = {
    "data": ("data", None),
    "persistent": ("persistent", 100),
    "noise": ("noise", 100),
    "buffer": (ed.Buffer(1000, renew=0.05), 100),
}
"""Where chains begin, and their number."""
TITLES = {
    "data": "at the data (CD)",
    "persistent": "where they were (persistent CD)",
    "noise": "at random pictures (short run)",
    "buffer": "in a replay buffer",
}


WORDS = {
    "log-likelihood of test digits": "{log_likelihood:.3f} nats per digit",
    "of test digits, best on the way": "{best:.3f} nats per digit",
    "of training digits": "{log_likelihood_train:.3f} nats per digit",
    "time of learning": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(hidden: int = 10, seed: int = 0) -> ed.Model:
    """An RBM with small random weights and the pixels' log-odds in the training digits."""
    return begin(digits()[0], hidden, np.random.default_rng(seed))


def main(
    seed: Seed = 0,
    out: Out = Path("out/four_starts"),
    hidden: Annotated[int, typer.Option(min=1, max=16, help="Hidden units.")] = 10,
    k: Annotated[int, typer.Option(min=1, help="Gibbs steps per step of learning.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of learning, between two scores.")] = 250,
    scores: Annotated[int, typer.Option(min=1, help="Times the likelihood is computed.")] = 12,
) -> dict[str, Any]:
    """Follow the exact likelihood while contrastive divergence learns by each start."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    ebm = ed.compile(declare(hidden, seed))
    optimizer = optax.adam(optax.linear_schedule(RATE, 0.0, steps * scores))
    curves, numbers = {}, {}
    for name, (start, chains) in STARTS.items():
        objective = ed.ContrastiveDivergence(k=k, start=start, chains=chains)
        curve, seconds = [float(ed.log_likelihood(ebm, test).value)], 0.0
        learnt = ebm
        with TemporaryDirectory() as folder:
            for turn in range(scores):
                learnt, history = ed.fit(
                    ebm, objective, train, key=jr.key(seed), optimizer=optimizer, batch=100,
                    steps=steps * (turn + 1), checkpoint=folder, progress=False,
                )  # fmt: skip
                curve.append(float(ed.log_likelihood(learnt, test).value))
                seconds += history.seconds
        curves[name] = curve
        numbers[name] = {
            "log_likelihood": curve[-1],
            "best": max(curve),
            "log_likelihood_train": float(ed.log_likelihood(learnt, train).value),
            "seconds": seconds,
        }
    draw(curves, steps, k, out / "likelihood.png")
    return numbers


def draw(curves: dict[str, list[float]], steps: int, k: int, path: Path) -> None:
    """Plot the exact test likelihood during learning, a curve for each start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        axis.plot(steps * np.arange(len(curve)), curve, ".-", label=TITLES[name])
    best = max(max(curve) for curve in curves.values())
    axis.set(
        xlabel="step of learning",
        ylabel="exact test log-likelihood [nats per digit]",
        title=f"An RBM of digits: where the chains of {k} Gibbs steps begin",
        ylim=(best - 8, best + 0.5),
    )
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
