r"""A neural energy by four starts of its chains: which of them turn noise into data, and when.

$$E_\theta(x, s) = f_\theta(y, s) + \tfrac12 \lVert y \rVert^2, \quad
y = x / \sqrt{1 + s^2}, \qquad x \in \mathbb{R}^2,$$

with a bounded network f. The input s is the standard deviation of noise that the data has; it is 0
except for the ladder. The data are the digits 0, 1, 4 and 6 of scikit-learn's collection, each as
its two coordinates of largest separation, in four clusters. Four models differ in one argument of
the objective: where the chains of Langevin steps begin, which supply the samples that learning sets
against the data.

- At the data (CD-k): the energy is right around the data, and the test likelihood is the best of
  the four. Where no chain went it is not learnt, and k steps from noise end between the clusters.
- At noise (short run): k steps from noise lead to data. The energy is not that of the data: it
  shapes the path of k steps, long chains leave the data, and the test likelihood is poor.
- In a replay buffer: a share of the chains begins anew from noise, and the others are older than k
  steps. The energy has its minima at the data, but the weights of clusters between which chains
  do not pass are learnt badly, as long chains show.
- Down a ladder of noise (recovery likelihood): each rung is an easy problem. Draws from noise go
  down the ladder and are nearly as the data; long chains and the likelihood are right, too.

The energy distance compares draws with test data: about 0 for equal distributions. The test
likelihood is by quadrature of Z, and tells whether the energy itself is that of the data.

Teaches: starts of contrastive divergence as values, the same number of steps in learning and in
drawing, short runs against long ones, a replay buffer, and draws down a ladder of noise.

Source: CD: Hinton (2002), Neural Computation 14(8), 1771-1800; short runs: Nijkamp et al. (2019),
NeurIPS 32; long ones: Nijkamp et al. (2020), AAAI 34(4), 5272-5280; buffer: Du & Mordatch (2019),
NeurIPS 32; ladder: Gao et al. (2021), ICLR.
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
from scipy.spatial.distance import cdist

import energydsl as ed
from models_zoo._shared import Out, Seed

DIGITS = (0, 1, 4, 6)
KERNEL = ed.Langevin(step_size=0.003, adjusted=False)
LADDER = ed.Noisy((0.15, 0.3, 0.6, 1.2, 2.4, 4.8), level="s")
RUNG = ed.Langevin(step_size=0.1, adjusted=False)
"""On a rung, the step is in units of the noise that is removed there."""
STEPS_PER_RUNG = 20
TITLES = {
    "data": "chains begin at the data",
    "noise": "at noise, N(0, I)",
    "buffer": "in a replay buffer",
    "ladder": "down a ladder of noise",
}


WORDS = {
    "log-likelihood of test data": "{log_likelihood:.3f} nats per point",
    "energy distance of draws from noise, k steps": "{from_noise:.4f}",
    "energy distance of long chains from noise": "{long:.4f}",
    "time of learning": "{seconds:.1f} s",
    "energy distance of training data, as a scale": "{scale:.4f}",
}
"""The numbers in words, as `energydsl run` prints them."""


class Network(eqx.Module):
    """A bounded function of a point and of the level of noise."""

    layers: eqx.nn.MLP

    def __init__(self, width: int, seed: int) -> None:
        self.layers = eqx.nn.MLP(3, "scalar", width, 2, activation=jnp.tanh, key=jr.key(seed))

    def __call__(self, y: jax.Array, s: jax.Array) -> jax.Array:
        return self.layers(jnp.append(y, s))


def declare(width: int = 64, seed: int = 0) -> ed.Model:
    """The energy of a point x at the level s of noise."""
    x, s = ed.real("x", 2), ed.real("s", given=True)
    y = x / (1 + s**2) ** 0.5
    return ed.Model(ed.Neural(Network(width, seed))(y, s) + 0.5 * (y**2).sum())


def objectives(k: int, chains: int) -> dict[str, ed.ContrastiveDivergence]:
    """The same objective by four starts."""
    starts = {
        "data": {"start": "data"},
        "noise": {"start": dist.Normal(0.0, 1.0), "chains": chains},
        "buffer": {"start": ed.Buffer(2000, renew=0.05), "chains": chains},
    }
    found = {
        n: ed.ContrastiveDivergence(k=k, kernel=KERNEL, **given) for n, given in starts.items()
    }
    ladder = ed.ContrastiveDivergence(k=STEPS_PER_RUNG, kernel=RUNG, start=LADDER)
    return found | {"ladder": ladder}


def main(
    seed: Seed = 0,
    out: Out = Path("out/samples_from_noise"),
    k: Annotated[int, typer.Option(min=1, help="Langevin steps in learning and drawing.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 1500,
    long: Annotated[int, typer.Option(min=1, help="Langevin steps of long chains.")] = 10_000,
    width: Annotated[int, typer.Option(min=1, help="Width of each of two layers.")] = 64,
    likelihood: Annotated[bool, typer.Option(help="Compute Z by quadrature.")] = True,
) -> dict[str, Any]:
    """Learn one energy by four starts, and draw from noise."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = clusters()
    numbers: dict[str, Any] = {"scale": energy_distance(train, test)}
    learnt, drawn = {}, {}
    for name, objective in objectives(k, chains=128).items():
        optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
        start = ed.compile(declare(width, seed)).given(s=0.0)
        learnt[name], history = ed.fit(
            start, objective, train, key=jr.key(seed), optimizer=optimizer, steps=steps, batch=128
        )
        drawn[name] = {
            "from noise": from_noise(learnt[name], name, k, len(test), seed + 1),
            "long": chains_from_noise(learnt[name], long, len(test), seed + 2),
        }
        numbers[name] = {
            "from_noise": energy_distance(drawn[name]["from noise"], test),
            "long": energy_distance(drawn[name]["long"], test),
            "seconds": history.seconds,
        }
        if likelihood:
            numbers[name]["log_likelihood"] = float(ed.log_likelihood(learnt[name], test).value)
    draw(learnt, drawn, numbers, test, out / "from_noise.png")
    return numbers


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Four digits in their two discriminant coordinates, scaled: for training, and for the test."""
    from sklearn.datasets import load_digits
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    images, labels = load_digits(return_X_y=True)
    chosen = np.isin(labels, DIGITS)
    found = LinearDiscriminantAnalysis(n_components=2).fit_transform(images[chosen], labels[chosen])
    points = ((found - found.mean(axis=0)) / found.std(axis=0)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(points))
    return points[order[:512]], points[order[512:]]


def from_noise(ebm: ed.EBM, name: str, k: int, count: int, seed: int) -> np.ndarray:
    """Draws from noise by as many steps as in learning."""
    if name == "ladder":
        found = LADDER.draw(ebm, RUNG, k=STEPS_PER_RUNG, chains=count, key=jr.key(seed))
        return np.asarray(found["x"])
    return chains_from_noise(ebm, k, count, seed)


def chains_from_noise(ebm: ed.EBM, steps: int, count: int, seed: int) -> np.ndarray:
    """The ends of chains that begin at N(0, I)."""
    start_key, key = jr.split(jr.key(seed))
    chains = ed.sample(
        ebm, KERNEL, key=key, chains=count, warmup=0, draws=1, thin=steps,
        start={"x": jr.normal(start_key, (count, 2))},
    )  # fmt: skip
    return np.asarray(chains.last["x"])


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Székely's energy distance of two samples: 2 E|A - B| - E|A - A'| - E|B - B'|."""
    inside = [cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(2 * cdist(a, b).mean() - sum(inside))


def draw(
    learnt: dict[str, ed.EBM],
    drawn: dict[str, dict[str, np.ndarray]],
    numbers: dict[str, Any],
    test: np.ndarray,
    path: Path,
) -> None:
    """Plot each energy, draws of k steps from noise, and long chains; a row for each start."""
    from matplotlib.figure import Figure

    side = np.linspace(-3, 3, 121, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    figure = Figure(figsize=(10, 3 * len(learnt)), layout="constrained")
    axes = figure.subplots(len(learnt), 3, sharex=True, sharey=True)
    for row, (name, ebm) in zip(axes, learnt.items(), strict=True):
        energy = np.asarray(jax.vmap(ebm.energy)({"x": grid}))
        above = np.minimum(energy - energy.min(), 12.0).reshape(len(side), -1)
        levels = np.linspace(0, 12, 25)
        image = row[0].contourf(side, side, above, levels=levels, cmap="viridis_r")
        row[0].plot(*test.T, ".", ms=2, color="k", alpha=0.5)
        row[0].set(title="energy, and test data\n", ylabel=f"{TITLES[name]}\n\n$x_2$")
        for axis, kind, key in zip(row[1:], drawn[name], ("from_noise", "long"), strict=True):
            word = "steps as in learning" if kind == "from noise" else "long chains"
            axis.plot(*test.T, ".", ms=2, color="0.8", label="test data")
            axis.plot(*drawn[name][kind].T, ".", ms=2, color="C3", label="drawn")
            axis.set_title(f"{word} from noise\nenergy distance {numbers[name][key]:.3f}")
    for axis in axes.ravel():
        axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    for axis in axes[-1]:
        axis.set_xlabel("$x_1$")
    axes[0, 1].legend(loc="upper right", fontsize=8, markerscale=3)
    figure.colorbar(image, ax=axes, shrink=0.4, label="energy above its minimum, cut off at 12")
    figure.savefig(path, dpi=120)
