r"""A hidden Markov model of letters, learnt by exact likelihood, which finds the vowels.

$$E(x, z) = \sum_{t=1}^{T-1} A(z_t, z_{t+1}) + \sum_{t=1}^{T} B(z_t, x_t),$$

where $x_t$ is a letter or a blank, $z_t$ is one of two hidden states, and the tables $A$ and $B$
are learnt. The model is a tree of any length, so that elimination gives $\log Z$ and the free
energy $-\log \sum_z e^{-E(x, z)}$ of a text exactly; their difference is the likelihood, which
gradient ascent raises. Nothing is said about vowels, but vowels and consonants alternate: one state
comes to emit the vowels and the blank, the other the consonants. The text is the descriptions of
scikit-learn's datasets, in windows of 40 letters; the last fifth is held out. Some initial tables
lead to a local maximum, so that the best of three runs is kept.

Teaches: tables as factors along a chain, latent variables that are summed out exactly, learning
from several starts, and marginals.

Source: Cave & Neuwirth (1980), Hidden Markov models for English, in Ferguson (ed.), Hidden Markov
Analysis of Speech, 16-56; Baum & Petrie (1966), Annals of Mathematical Statistics 37, 1554-1563.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import jax.random as jr
import numpy as np
import optax
import typer

import energydsl as ed
from models_zoo._shared import Out, Seed

ALPHABET = " abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
WINDOW = 40
MOVES, EMISSIONS = np.zeros((2, 2)), np.zeros((2, len(ALPHABET)))


WORDS = {
    "log-likelihood of held-out text": "{log_likelihood_per_letter:.4f} nats per letter ({kind})",
    "of independent letters": "{log_likelihood_independent_letters:.4f} nats per letter",
}
"""The numbers in words, as `energydsl run` prints them."""


def declare(
    moves: np.ndarray = MOVES, emissions: np.ndarray = EMISSIONS, length: int = WINDOW
) -> ed.Model:
    """Letters x and hidden states z, with the energies of moves and of emissions."""
    states, letters = np.shape(emissions)
    x = ed.categorical("x", length, levels=letters)
    z = ed.categorical("z", length, levels=states, latent=True)
    return ed.Model(ed.Table(moves)(z[:-1], z[1:]).sum() + ed.Table(emissions)(z, x).sum())


def main(
    seed: Seed = 0,
    out: Out = Path("out/letters"),
    states: Annotated[int, typer.Option(min=1, max=8, help="Hidden states.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 400,
    starts: Annotated[int, typer.Option(min=1, help="Tables from which learning begins.")] = 3,
) -> dict[str, Any]:
    """Learn the model from text, score the rest of the text, and show what each state emits."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = windows()
    learnt = [learn(train, states, steps, seed=(seed, k)) for k in range(starts)]
    ebm = max(learnt, key=lambda ebm: float(ed.log_likelihood(ebm, train).value))
    score = ed.log_likelihood(ebm, test)
    chances = states_of_letters(ebm, test)
    draw(chances, ebm, test[0], out / "letters.png")
    return {
        "log_likelihood_per_letter": float(score.value) / WINDOW,
        "log_likelihood_independent_letters": independent_letters(train, test),
        "kind": score.kind,
        "letters_by_state": {
            f"state {k}": "".join(np.array(list(ALPHABET))[chances.argmax(axis=0) == k])
            for k in range(states)
        },
    }


def learn(train: np.ndarray, states: int, steps: int, seed: tuple[int, int]) -> ed.EBM:
    """The model of highest likelihood that gradient ascent reaches from random tables."""
    rng = np.random.default_rng(seed)
    begin = declare(rng.normal(size=(states, states)), rng.normal(size=(states, len(ALPHABET))))
    optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, steps))
    return ed.fit(
        ed.compile(begin),
        ed.MaximumLikelihood(),
        train,
        key=jr.fold_in(jr.key(seed[0]), seed[1]),
        optimizer=optimizer,
        steps=steps,
        batch=64,
    )[0]


def text() -> str:
    """The words of the descriptions of scikit-learn's datasets, between blanks."""
    from sklearn import datasets

    names = ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud")
    described = " ".join(getattr(datasets, f"load_{name}")().DESCR for name in names)
    return " ".join(re.findall(r"\b[a-z]{2,}\b", described.lower()))


def windows() -> tuple[np.ndarray, np.ndarray]:
    """Windows of the text as the numbers of their letters: for learning, and held out."""
    numbers = np.array([ALPHABET.index(letter) for letter in text()], np.int8)
    rows = numbers[: len(numbers) // WINDOW * WINDOW].reshape(-1, WINDOW)
    held = len(rows) // 5
    return rows[:-held], rows[-held:]


def independent_letters(train: np.ndarray, test: np.ndarray) -> float:
    """The log-likelihood of a held-out letter by the letters' frequencies."""
    counts = np.bincount(train.ravel(), minlength=len(ALPHABET)) + 1
    return float(np.log(counts / counts.sum())[test].mean())


def states_of_letters(ebm: ed.EBM, test: np.ndarray) -> np.ndarray:
    """The mean posterior probability of each state where a letter stands, (state, letter)."""
    laws = np.stack([posterior(ebm, row) for row in test[:40]])
    seen = test[:40, :, None] == np.arange(len(ALPHABET))
    return np.einsum("ntk,ntl->kl", laws, seen) / np.maximum(seen.sum(axis=(0, 1)), 1)


def posterior(ebm: ed.EBM, letters: np.ndarray) -> np.ndarray:
    """The probability of each hidden state at each letter of a text, (letter, state)."""
    given = ed.compile(ebm.model.condition(x=letters))
    return np.asarray(ed.marginals(given)["z"].probabilities)


def draw(chances: np.ndarray, ebm: ed.EBM, letters: np.ndarray, path: Path) -> None:
    """Plot the first state's probability for each letter, and along a text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    above, below = figure.subplots(2, 1)
    colours = ["C1" if letter in VOWELS else "C0" for letter in ALPHABET]
    above.bar(np.arange(len(ALPHABET)), chances[0], color=colours)
    above.set_xticks(np.arange(len(ALPHABET)), ["blank", *ALPHABET[1:]])
    above.set(
        ylabel="p(state 0 | text)", title="mean over the letters of held-out text", ylim=(0, 1)
    )
    shown = [ALPHABET[k] for k in letters]
    below.bar(
        np.arange(len(letters)),
        posterior(ebm, letters)[:, 0],
        color=["C1" if letter in VOWELS else "C0" for letter in shown],
    )
    below.set_xticks(np.arange(len(letters)), shown)
    below.set(ylabel="p(state 0 | text)", title="along a held-out text; vowels orange", ylim=(0, 1))
    figure.savefig(path, dpi=150)
