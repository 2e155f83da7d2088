r"""A deep belief net of digits: a directed layer of pixels below an undirected top.

$$p(x, h, g) = \prod_i \mathrm{Bernoulli}(x_i; \sigma(b + W h)_i)\;
\frac{1}{Z} e^{h^\top V g + c^\top h + d^\top g}.$$

A restricted Boltzmann machine of pixels $x$ and hidden units $h$ is learnt first. It is such a net
too: with $V = W^\top$, $d = b$ and as many units $g$ as pixels, its top is the law of $h$ that the
machine has. Then the top alone is learnt, by exact maximum likelihood, from hidden units that are
drawn given the data. This raises a lower bound of the log-likelihood of the data, which is summed
exactly here. To draw a digit, the top is sampled, and then the pixels given $h$.

Teaches: directed and undirected parts in one model, log Z of a model with normalised leaves,
parameters of one model given to another by name, ancestral sampling below a Markov chain.

Source: Hinton, Osindero & Teh (2006), Neural Computation 18(7), 1527-1554.
"""

from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import typer
from scipy.special import expit

import energydsl as ed
from models_zoo import rbm_digits
from models_zoo._shared import Out, Seed, digits, independent, sheet
from models_zoo.boltzmann_digits import learn

WORDS = {
    "test digits, deep belief net": "{net:.3f} nats per digit (exact)",
    "restricted Boltzmann machine": "{machine:.3f} nats per digit (exact)",
    "the machine as a net": "{begun:.3f} nats per digit (exact)",
    "hidden units, log-likelihood by the top": "{top:.3f} nats",
    "by the machine": "{top_before:.3f} nats",
    "independent pixels": "{pixels:.3f} nats per digit",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare_top(V: np.ndarray, c: np.ndarray, d: np.ndarray, *, latent: bool = False) -> ed.Model:
    """The undirected top, a restricted Boltzmann machine of h and g."""
    h, g = ed.binary("h", len(c), latent=latent), ed.binary("g", len(d), latent=True)
    V, c, d = ed.parameter("V", V), ed.parameter("c", c), ed.parameter("d", d)
    return ed.Model(-(h @ V @ g) - c @ h - d @ g)


def declare(weights: np.ndarray | None = None, biases: np.ndarray | None = None) -> ed.Model:
    """The net that has the law of a restricted Boltzmann machine; with zeros by default."""
    W = np.zeros((64, 10)) if weights is None else weights
    b = np.zeros(len(W)) if biases is None else biases
    x, h = ed.binary("x", len(W)), ed.binary("h", W.shape[1], latent=True)
    logits = ed.parameter("W", W) @ h + ed.parameter("b", b)
    pixels = ed.LogDensity(dist.BernoulliLogits)(x, logits).sum()
    return declare_top(W.T, np.zeros(W.shape[1]), b, latent=True) + ed.Model(pixels)


def main(
    seed: Seed = 0,
    out: Out = Path("out/deep_belief_net"),
    hidden: Annotated[int, typer.Option(min=1, max=12, help="Units h.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Of learning the first layer.")] = 3000,
    top_steps: Annotated[int, typer.Option(min=1, help="Of learning the top.")] = 500,
) -> dict[str, Any]:
    """Learn a deep belief net greedily, score it exactly, and draw digits from it."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    rng = np.random.default_rng(seed)
    sampled = ed.ContrastiveDivergence(start="persistent")
    machine = ed.compile(rbm_digits.begin(train, hidden, rng))
    machine = learn(machine, sampled, train, steps, seed, rate=0.012, batch=100)
    W, b, c = (np.asarray(machine.parameters[n]) for n in "Wbc")

    bits = (rng.random((len(train), hidden)) < expit(train @ W + c)).astype(np.int8)
    held_out = (rng.random((len(test), hidden)) < expit(test @ W + c)).astype(np.int8)
    before = ed.compile(declare_top(W.T, c, b))
    top = learn(before, ed.MaximumLikelihood(), bits, top_steps, seed, rate=0.02)

    begun = ed.compile(declare(W, b)).replace(c=c)
    net = begun.replace(top.parameters)
    numbers = {
        "net": float(ed.log_likelihood(net, test).value),
        "machine": float(ed.log_likelihood(machine, test).value),
        "begun": float(ed.log_likelihood(begun, test).value),
        "top": float(ed.log_likelihood(top, held_out).value),
        "top_before": float(ed.log_likelihood(before, held_out).value),
        "pixels": independent(train, test),
    }
    drawn = ed.sample(top, ed.Gibbs(), key=jr.key(seed + 1), chains=60, warmup=2000, draws=1)
    draw(W, b, test, np.asarray(drawn.last["h"]), rng, out / "deep_belief_net.png")
    return numbers


def draw(
    W: np.ndarray, b: np.ndarray, test: np.ndarray, hidden: np.ndarray, rng: Any, path: Path
) -> None:
    """Plot held-out digits, and those that hidden units drawn by the top lead to."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4))
    figure.set_layout_engine("constrained", w_pad=0.15)
    real, shares, bits = figure.subplots(1, 3)
    share = expit(hidden @ W.T + b)
    for axis, images, said in (
        (real, test[:60], "held out"),
        (shares, share, "p(pixel is on) given h drawn by the top"),
        (bits, rng.random(share.shape) < share, "pixels drawn"),
    ):
        axis.imshow(sheet(images), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(said)
        axis.axis("off")
    figure.savefig(path, dpi=150)
