r"""A restricted Boltzmann machine of handwritten digits, with exact test likelihood.

$$E(x, h) = -x^\top W h - b^\top x - c^\top h, \qquad x \in \{0, 1\}^{64},\ h \in \{0, 1\}^{16}.$$

The units of each layer are independent given the other layer. Therefore Gibbs draws a layer at a
time, the hidden units are summed out exactly in the free energy of data, and $\log Z$ is a sum over
the $2^{16}$ states of the hidden layer. Learning is by persistent contrastive divergence on
scikit-learn's digits, where a pixel is on from grey level 8 of 16; $b$ is initialised with the
log-odds of each pixel. The test log-likelihood is about -18.3 nats per image; independent pixels
have -25.2, and scikit-learn's `BernoulliRBM` of the same size stays below -19.5.

Teaches: latent variables, contrastive divergence with persistent chains, exact test likelihood of a
model that was learnt without it.

Source: Smolensky (1986), Parallel Distributed Processing 1, ch. 6; Tieleman (2008), ICML,
1064-1071; pixel log-odds: Hinton (2012), A practical guide to training RBMs, section 8.1.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer
from scipy.special import logit
from sklearn.neural_network import BernoulliRBM

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed, digits, independent, sheet, write_chains

WEIGHTS, PIXELS, UNITS = np.zeros((SIDE**2, 16)), np.zeros(SIDE**2), np.zeros(16)


WORDS = {
    "log-likelihood of test digits": "{log_likelihood:.3f} nats per digit ({kind})",
    "of training digits": "{log_likelihood_train:.3f} nats per digit",
    "of test digits, independent pixels": "{log_likelihood_pixels:.3f} nats per digit",
    "of test digits, scikit-learn": "{log_likelihood_sklearn:.3f} nats per digit",
    "log Z": "{log_z:.4f}",
    "time of learning": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(
    weights: np.ndarray = WEIGHTS, pixels: np.ndarray = PIXELS, units: np.ndarray = UNITS
) -> ed.Model:
    """An RBM of pixels x and hidden units h, with weights W and biases b and c, 0 by default."""
    x, h = ed.binary("x", len(pixels)), ed.binary("h", len(units), latent=True)
    W = ed.parameter("W", weights)
    b, c = ed.parameter("b", pixels), ed.parameter("c", units)
    return ed.Model(-(x @ W @ h) - b @ x - c @ h)


def begin(train: np.ndarray, hidden: int, rng: np.random.Generator) -> ed.Model:
    """The initial RBM: small random weights, and biases at the pixels' log-odds in the data."""
    share = (train.sum(axis=0) + 1) / (len(train) + 2)
    weights = 0.1 * rng.normal(size=(train.shape[1], hidden))
    return declare(weights, logit(share), np.zeros(hidden))


def main(
    seed: Seed = 0,
    out: Out = Path("out/rbm_digits"),
    hidden: Annotated[int, typer.Option(min=1, max=20, help="Hidden units.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 5000,
    batch: Annotated[
        int, typer.Option(min=1, help="Number of images per step, and of chains.")
    ] = 100,
    peer: Annotated[bool, typer.Option(help="Also fit scikit-learn's BernoulliRBM.")] = True,
) -> dict[str, Any]:
    """Learn an RBM of digits, compute its test likelihood, and draw new digits."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    train, test = digits()
    ebm = ed.compile(begin(train, hidden, rng))
    objective = ed.ContrastiveDivergence(start="persistent", chains=batch)
    optimizer = optax.adam(optax.linear_schedule(0.012, 0.0, steps))
    ebm, history = ed.fit(
        ebm, objective, train, key=jr.key(seed), optimizer=optimizer, steps=steps, batch=batch
    )
    score, fit = ed.log_likelihood(ebm, test), ed.log_likelihood(ebm, train)
    numbers = {
        "log_likelihood": float(score.value),
        "kind": score.kind,
        "log_likelihood_train": float(fit.value),
        "log_likelihood_pixels": independent(train, test),
        "log_z": float(ed.log_partition(ebm)),
        "seconds": history.seconds,
    }
    if peer:
        numbers["log_likelihood_sklearn"] = by_sklearn(train, test, hidden, seed)
    drawn = ed.sample(
        ebm, ed.Gibbs(), key=jr.key(seed + 1), chains=60, warmup=2000, draws=20, thin=100
    )
    if not drawn.stopped:
        write_chains(drawn, out / "chains.nc", dims={"x": ["pixel"], "h": ["unit"]})
    draw(ebm, test, drawn, out / "digits.png")
    return numbers


def by_sklearn(train: np.ndarray, test: np.ndarray, hidden: int, seed: int) -> float:
    """The exact test log-likelihood of scikit-learn's RBM."""
    peer = BernoulliRBM(hidden, learning_rate=0.03, n_iter=100, random_state=seed).fit(train)
    model = declare(peer.components_.T, peer.intercept_visible_, peer.intercept_hidden_)
    return float(ed.log_likelihood(ed.compile(model), test).value)


def draw(ebm: ed.EBM, test: np.ndarray, drawn: ed.Chains, path: Path) -> None:
    """Plot digits of the test set, digits drawn from the model, and each hidden unit's weights."""
    from matplotlib.figure import Figure

    weights = np.asarray(ebm.parameters["W"])
    on = jnp.ones(SIDE**2, int)
    dreamt = jax.vmap(lambda x: jnp.exp(ebm.conditional("x", x).log_prob(on)))(drawn.last)
    figure = Figure(figsize=(14, 4))
    figure.set_layout_engine("constrained", w_pad=0.15)
    real, model, filters = figure.subplots(1, 3, width_ratios=(5, 5, 3))
    real.imshow(sheet(test[:60]), cmap="gray_r", vmin=0, vmax=1)
    real.set_title("held out")
    model.imshow(sheet(np.asarray(dreamt)), cmap="gray_r", vmin=0, vmax=1)
    model.set_title("drawn, one per chain: p(pixel is on)")
    limit = np.abs(weights).max()
    image = filters.imshow(sheet(weights.T, columns=4), cmap="RdBu", vmin=-limit, vmax=limit)
    filters.set_title("W, a hidden unit each")
    figure.colorbar(image, ax=filters, shrink=0.8)
    for axis in (real, model, filters):
        axis.axis("off")
    figure.savefig(path, dpi=150)
