r"""A variational autoencoder of handwritten digits, learnt together with its guide.

$$z \sim N(0, 1)^{K}, \qquad x_i \mid z \sim \text{Bernoulli}(\sigma(f_i(z))), \qquad
q(z \mid x) = N(m(x), s(x)^2),$$

with networks f (the decoder) and m, s (the encoder). As an energy-based model it is the sum of two
normalised densities, so that $\log Z = 0$ and draws are ancestral; but the integral over z, and so
the likelihood of a digit, has no closed form. The guide $q$ bounds it from below, by one draw while
learning and by many for the test digits: the importance-weighted bound rises towards the
log-likelihood with the number of draws. It is about -17.3 nats a digit; a restricted Boltzmann
machine with 16 hidden units has -18.2, and independent pixels have -25.2.

Teaches: networks as parameters of densities, guides, bounds of the likelihood.

Source: Kingma & Welling (2014), ICLR; importance weights: Burda, Grosse & Salakhutdinov (2016),
ICLR.
"""

from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
import typer

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed, digits, sheet

normal, bernoulli = ed.LogDensity(dist.Normal), ed.LogDensity(dist.Bernoulli)
PIXELS, WIDTH = SIDE**2, 128

WORDS = {
    "log-likelihood of test digits, by 2 draws": "at least {few:.3f} nats per digit",
    "by 1,000 draws": "at least {bound:.3f} nats per digit, ± {error:.2g}",
    "independent pixels": "{pixels:.3f} nats per digit",
    "wrong pixels in reconstructions": "{wrong:.1%}",
    "time of learning": "{seconds:.1f} s",
}
"""The numbers in words, as `energydsl run` prints them."""


def network(inputs: int, outputs: int, seed: int) -> eqx.nn.MLP:
    """A network with one hidden layer."""
    return eqx.nn.MLP(inputs, outputs, WIDTH, 1, jax.nn.softplus, key=jr.key(seed))


def declare(latents: int = 8, seed: int = 0) -> ed.Model:
    """The model of a digit x and its code z."""
    z, x = ed.real("z", latents, latent=True), ed.binary("x", PIXELS)
    logits = ed.Neural(network(latents, PIXELS, seed))(z)
    return ed.Model(normal(z, 0.0, 1.0) + bernoulli(x, logits=logits))


def encoder(latents: int = 8, seed: int = 1) -> ed.Model:
    """The guide: independent normal codes given a digit."""
    z, x = ed.real("z", latents, latent=True), ed.binary("x", PIXELS, given=True)
    code = ed.Neural(network(PIXELS, 2 * latents, seed))(2 * x - 1)
    return ed.Model(normal(z, code[:latents], ed.exp(code[latents:])))


def main(
    seed: Seed = 0,
    out: Out = Path("out/digit_vae"),
    latents: Annotated[int, typer.Option(min=1, help="Numbers in a code.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 6000,
) -> dict[str, Any]:
    """Learn a variational autoencoder of digits, and bound its likelihood."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    vae = ed.compile(declare(latents, seed))
    objective = ed.Variational(encoder(latents, seed + 1))
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    vae, history = ed.fit(
        vae, objective, train, key=jr.key(seed), optimizer=optimizer, steps=steps, batch=100
    )
    guide = history.guide
    few = ed.log_likelihood(vae, test, guide=guide, samples=2, key=jr.key(seed + 1))
    many = ed.log_likelihood(vae, test, guide=guide, samples=1000, key=jr.key(seed + 2))
    drawn = ed.sample(vae, ed.ExactDraws(), key=jr.key(seed + 3), chains=60, warmup=0, draws=1)
    again = reconstructed(vae, guide, test)
    draw(test, again, np.asarray(means(vae, drawn.last["z"])), out / "digits.png")
    share = (train.sum(axis=0) + 1) / (len(train) + 2)
    return {
        "few": few.value,
        "bound": many.value,
        "error": many.standard_error,
        "pixels": float(np.where(test, np.log(share), np.log1p(-share)).sum(axis=1).mean()),
        "wrong": float(np.mean((again > 0.5) != test)),
        "seconds": history.seconds,
    }


def means(vae: ed.EBM, codes: Any) -> jax.Array:
    """The probability that each pixel is on, given codes."""
    on = jnp.ones(PIXELS, int)

    def one(z: jax.Array) -> jax.Array:
        return jnp.exp(vae.conditional("x", {"x": on, "z": z}).log_prob(on))

    return jax.vmap(one)(jnp.asarray(codes))


def reconstructed(vae: ed.EBM, guide: ed.EBM, images: np.ndarray) -> np.ndarray:
    """The pixels' probabilities at the mean code of each image."""
    codes = ed.predict(guide, {"x": images})["z"].mean
    return np.asarray(means(vae, codes))


def draw(test: np.ndarray, again: np.ndarray, drawn: np.ndarray, path: Path) -> None:
    """Plot held-out digits, their reconstructions, and digits drawn from the model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.2))
    figure.set_layout_engine("constrained", w_pad=0.15)
    titles = ("held out", "from their codes", "drawn: p(pixel is on given z)")
    for axes, images, title in zip(
        figure.subplots(1, 3), (test[:60], again[:60], drawn[:60]), titles, strict=True
    ):
        axes.imshow(sheet(images), cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(path, dpi=150)
