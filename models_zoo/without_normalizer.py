r"""Digits by an energy whose log Z is out of reach, and all that can be done without it.

$$E(x) = -\sum_{i<j} w_{ij} x_i x_j - \sum_i b_i x_i, \qquad x \in \{0, 1\}^{64}.$$

All 64 pixels of scikit-learn's digits are coupled, so that log Z is a sum over $2^{64}$ states and
`log_partition` refuses it. What needs only energies or their differences still works:

- learning by pseudo-likelihood, which predicts each pixel from the others;
- ratios, $\log p(x) / p(x') = E(x') - E(x)$, of a held-out digit to a copy with flipped pixels;
- denoising: given pixels $y$ of which a tenth are flipped, Gibbs draws from
  $p(x \mid y) \propto e^{-E(x)}\, p(y \mid x)$;
- the most probable picture, by Gibbs chains whose temperature falls. Where only the two middle rows
  are hidden, a mode can be proven by elimination, and the chains find one of the same energy;
- anomaly scores: the energy alone tells digits from pictures that are no digits.

Independent pixels, which are the same model without couplings, are far behind in each task. They
cannot tell the halves of two digits from those of one.

Teaches: what remains where log Z is refused: pseudo-likelihood, ratios of probabilities, annealed
modes, denoising and anomaly scores.

Source: LeCun et al. (2006), A tutorial on energy-based learning; Besag (1975), The Statistician
24(3), 179-195; Geman & Geman (1984), IEEE PAMI 6(6), 721-741.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import typer
from scipy.special import logit
from scipy.stats import rankdata

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed, digits, sheet

PIXELS = SIDE**2
FIRST, SECOND = np.triu_indices(PIXELS, 1)
COUPLINGS, BIASES = np.zeros(len(FIRST)), np.zeros(PIXELS)
TEMPERATURES = (0.7, 0.5, 0.3, 0.2, 0.1)
HIDDEN = slice(3 * SIDE, 5 * SIDE)
"""The pixels that are completed: two rows in the middle."""


WORDS = {
    "log Z": "{log_partition}",
    "the most probable picture": "{map_configuration}",
    "log p(digit) / p(noisy copy)": "{log_ratio_to_noisy:.2f} on average",
    "digits preferred to their noisy copies": "{share_preferred_to_noisy:.1%}",
    "wrong pixels in completed rows": "{completion_wrong:.1%}",
    "energy above the proven mode": "{completion_largest_gap_to_proven_mode:.2g} at most",
    "wrong pixels": "{noisy:.1%} noisy, {posterior_mean:.1%} posterior mean, {mode:.1%} mode, "
    "{independent:.1%} by independent pixels",
    "energy above that of a digit": "{energy:.1%} of pairs ({independent:.1%}, independent pixels)",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(
    couplings: np.ndarray = COUPLINGS,
    biases: np.ndarray = BIASES,
    light: np.ndarray | float = 0.0,
    pictures: int | None = None,
) -> ed.Model:
    """One picture, or several side by side; `light` is added to the biases and is not learnt."""
    x = ed.binary("x", PIXELS if pictures is None else (pictures, PIXELS))
    w, b = ed.parameter("w", couplings), ed.parameter("b", biases)
    return ed.Model(-(w * x[..., FIRST] * x[..., SECOND]).sum() - ((b + light) * x).sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/without_normalizer"),
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 300,
    flips: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Share of the pixels that are flipped.")
    ] = 0.1,
    pictures: Annotated[int, typer.Option(min=1, max=360, help="To denoise and complete.")] = 60,
) -> dict[str, Any]:
    """Learn the energy, and use it for all that needs no normalizer."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    rng = np.random.default_rng(seed)
    learn_key, denoise_key, complete_key = jr.split(jr.key(seed), 3)
    alone = ed.compile(declare(biases=logit((train.sum(axis=0) + 1) / (len(train) + 2))))
    ebm = learn(alone, train, steps, key=learn_key)

    noisy = np.where(rng.random(test.shape) < flips, 1 - test, test)
    ratios = np.asarray(jax.vmap(ebm.log_ratio)({"x": test}, {"x": noisy}))
    shown = slice(pictures)
    restored = denoise(ebm, noisy[shown], flips, key=denoise_key)
    by_pixel = _values(alone)[1] + evidence(noisy[shown], flips) > 0
    strange = anomalies(test, rng)
    numbers = {
        "log_partition": refusal(ed.log_partition, ebm),
        "map_configuration": refusal(ed.map_configuration, ebm),
        "log_ratio_to_noisy": float(ratios.mean()),
        "share_preferred_to_noisy": float((ratios > 0).mean()),
        **complete(ebm, test[shown], key=complete_key),
        "denoising": {
            "noisy": wrong(noisy[shown], test[shown]),
            "independent": wrong(by_pixel, test[shown]),
            "posterior_mean": wrong(restored.mean > 0.5, test[shown]),
            "mode": wrong(restored.mode, test[shown]),
        },
    }
    for name, pictures_of in strange.items():
        numbers[f"AUC {name}"] = {
            "independent": area(energies(alone, test), energies(alone, pictures_of)),
            "energy": area(energies(ebm, test), energies(ebm, pictures_of)),
        }
    draw(ebm, test, noisy, restored, strange, numbers, out / "digits.png")
    return numbers


def learn(begin: ed.EBM, train: np.ndarray, steps: int, *, key: jax.Array) -> ed.EBM:
    """The couplings and biases of highest pseudo-likelihood that a short run reaches."""
    optimizer = optax.adam(optax.linear_schedule(0.04, 0.0, steps))
    return ed.fit(
        begin, ed.PseudoLikelihood(), train, key=key, optimizer=optimizer, steps=steps, batch=200
    )[0]


def refusal(question: Any, ebm: ed.EBM) -> str:
    """Why a question has no answer: the part about the number of states."""
    try:
        question(ebm)
    except ed.IntractableError as error:
        return "refused: " + next(part for part in str(error).split("; ") if "2^" in part)
    raise AssertionError("The model is tractable, so that it shows nothing.")


def energies(ebm: ed.EBM, pictures: np.ndarray) -> np.ndarray:
    """E of each picture."""
    return np.asarray(jax.vmap(lambda x: ebm.energy({"x": x}))(jnp.asarray(pictures)), float)


class Restored(NamedTuple):
    """The posterior mean of each picture, and the picture of highest probability that was found."""

    mean: np.ndarray
    mode: np.ndarray


def anneal(model: ed.Model, energy: Any, *, key: jax.Array) -> Restored:
    """The mean of all pictures of a model at T = 1, and those of lowest energy as T falls.

    Args:
        model: pictures side by side, of which some sites may be clamped.
        energy: a function from pictures, (chain, picture, pixel), to the energy of each.
        key: of the chains.
    """
    run = {"chains": 32, "draws": 50, "progress": False}
    chains = ed.sample(ed.compile(model), ed.Gibbs(), key=key, warmup=100, **run)
    mean = chains.draws["x"].mean(axis=(0, 1))
    for k, temperature in enumerate(TEMPERATURES):
        colder, start = ed.compile(model / temperature), chains.last
        chains = ed.sample(colder, ed.Gibbs(), key=jr.fold_in(key, k), warmup=0, start=start, **run)
    last = np.asarray(chains.last["x"])
    best = energy(last).argmin(axis=0)
    return Restored(mean, last[best, np.arange(last.shape[1])])


def evidence(noisy: np.ndarray, flips: float) -> np.ndarray:
    """The log odds that a pixel is on, from a pixel that is flipped with a known probability."""
    return logit(1 - flips) * (2.0 * noisy - 1)


def denoise(ebm: ed.EBM, noisy: np.ndarray, flips: float, *, key: jax.Array) -> Restored:
    """Clean pictures given noisy ones: the noise adds log odds to the biases."""
    light = evidence(noisy, flips)
    model = declare(*_values(ebm), light=light, pictures=len(noisy))

    def energy(x: np.ndarray) -> np.ndarray:
        alone = energies(ebm, x.reshape(-1, PIXELS)).reshape(x.shape[:-1])
        return alone - (light * x).sum(axis=-1)

    return anneal(model, energy, key=key)


def complete(ebm: ed.EBM, clean: np.ndarray, *, key: jax.Array) -> dict[str, float]:
    """Pictures whose middle rows are hidden: the annealed mode beside the one that is proven."""
    count = len(clean)
    x = ed.binary("x", (count, PIXELS))
    model = declare(*_values(ebm), pictures=count).condition(
        {
            x[:, : HIDDEN.start]: clean[:, : HIDDEN.start],
            x[:, HIDDEN.stop :]: clean[:, HIDDEN.stop :],
        }
    )

    def energy(x: np.ndarray) -> np.ndarray:
        return energies(ebm, x.reshape(-1, PIXELS)).reshape(x.shape[:-1])

    annealed = anneal(model, energy, key=key).mode
    proven = ed.map_configuration(ed.compile(model))
    assert proven.proven
    gaps = energy(annealed) - energy(np.asarray(proven.configuration["x"]))
    return {
        "completion_wrong": wrong(annealed[:, HIDDEN], clean[:, HIDDEN]),
        "completion_largest_gap_to_proven_mode": float(gaps.max()),
    }


def _values(ebm: ed.EBM) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(ebm.parameters["w"]), np.asarray(ebm.parameters["b"])


def wrong(found: np.ndarray, clean: np.ndarray) -> float:
    """The share of wrong pixels."""
    return float(np.mean(found != clean))


def anomalies(test: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures that are no digits, made from digits."""
    upper, lower = test[:, : PIXELS // 2], np.roll(test, 1, axis=0)[:, PIXELS // 2 :]
    return {
        "5 % flipped": np.where(rng.random(test.shape) < 0.05, 1 - test, test),
        "upside down": test[:, ::-1],
        "two halves": np.concatenate([upper, lower], axis=1),
    }


def area(usual: np.ndarray, strange: np.ndarray) -> float:
    """The probability that a strange picture has a higher energy than a usual one."""
    ranks = rankdata(np.concatenate([strange, usual]))[: len(strange)]
    return float((ranks.mean() - (len(strange) + 1) / 2) / len(usual))


def draw(
    ebm: ed.EBM,
    test: np.ndarray,
    noisy: np.ndarray,
    restored: Restored,
    strange: dict[str, np.ndarray],
    numbers: dict[str, Any],
    path: Path,
) -> None:
    """Plot restored digits, and the energies of digits and of pictures that are none."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4.5), layout="constrained")
    pictures, histogram = figure.subplots(1, 2, width_ratios=(3, 2))
    columns = min(14, len(restored.mode))
    rows = [test, noisy, restored.mean, restored.mode]
    pictures.imshow(sheet(np.concatenate([r[:columns] for r in rows]), columns), cmap="gray_r")
    names = ("clean", "noisy", "posterior mean", "mode")
    pictures.set_yticks(np.arange(4) * (SIDE + 1) + SIDE / 2 - 0.5, names)
    pictures.set(xticks=[])
    pictures.tick_params(length=0)
    pictures.spines[:].set_visible(False)
    share = numbers["denoising"]
    pictures.set_title(f"wrong pixels: {share['noisy']:.1%} noisy, {share['mode']:.1%} restored")
    usual = energies(ebm, test)
    bins = np.linspace(usual.min(), np.quantile(energies(ebm, strange["5 % flipped"]), 0.99), 40)
    histogram.hist(usual, bins, color="0.8", label="held-out digits")
    for name, group in strange.items():
        score = numbers[f"AUC {name}"]["energy"]
        label = f"{name}: AUC {score:.2f}"
        histogram.hist(energies(ebm, group), bins, histtype="step", lw=1.5, label=label)
    histogram.set(xlabel="energy, without log Z", ylabel="pictures")
    histogram.legend()
    figure.savefig(path, dpi=120)
