r"""A conditional random field that reads strings of blurred digits, learnt by exact likelihood.

$$E(y \mid x) = -\sum_{t=1}^{T} (x_t^\top W + b)_{y_t} + \sum_{t=1}^{T-1} m_t\, A(y_t, y_{t+1}),$$

where $x_t$ are the 64 grey levels of an image of a digit, $y_t$ is the digit, and $W$, $b$ and $A$
are learnt. The images $x$ are inputs: the model is the distribution of the labels given them, and
$\log Z(x)$ is a sum over a chain for each string. Strings have 4 to 10 digits; $m_t$ is 1 between
two digits of a string and 0 after its end, where labels are missing. The images are scikit-learn's
digits with much noise. A string counts upwards, but one digit of five is drawn at random; $A$
learns this. Image by image 75 % of the held-out digits are read right, by the chain 90 %.

Source: Lafferty, McCallum & Pereira (2001), Conditional random fields, ICML, 282-289.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax.random as jr
import numpy as np
import numpy.ma as ma
import optax
import typer

import energydsl as ed
from models_zoo._shared import SIDE, Out, Seed

LENGTH, PIXELS, KINDS = 10, SIDE**2, 10
SHORTEST, SURPRISE, NOISE = 4, 0.2, 0.45


def declare(
    weights: np.ndarray | None = None,
    biases: np.ndarray | None = None,
    moves: np.ndarray | None = None,
    length: int = LENGTH,
) -> ed.Model:
    """Labels y given images x and the marks m of pairs within a string; all numbers 0 by default.

    Without `moves`, the labels of a string are independent.
    """
    weights = np.zeros((PIXELS, KINDS)) if weights is None else weights
    biases = np.zeros(weights.shape[1]) if biases is None else biases
    x = ed.real("x", (length, weights.shape[0]), given=True)
    m = ed.binary("m", length - 1, given=True)
    y = ed.categorical("y", length, levels=weights.shape[1])
    W, b = ed.parameter("W", weights), ed.parameter("b", biases)
    energy = ed.Table(-(x @ W + b))(y).sum()
    if moves is not None:
        energy += (m * ed.Table(ed.parameter("A", moves))(y[:-1], y[1:])).sum()
    else:
        energy += 0.0 * m.sum()
    return ed.Model(energy)


class Strings(NamedTuple):
    """Images, marks of pairs within a string, and labels, masked after the end of a string."""

    x: np.ndarray
    m: np.ndarray
    y: ma.MaskedArray


def main(
    seed: Seed = 0,
    out: Out = Path("out/digit_strings"),
    strings: Annotated[int, typer.Option(min=2, help="For learning; the test has half.")] = 600,
    steps: Annotated[int, typer.Option(min=1, help="Of learning.")] = 600,
) -> dict[str, Any]:
    """Learn to read strings, and compare with a reader of single images."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = data(strings, seed), data(strings // 2, seed, held_out=True)
    chain = learn(declare(moves=np.zeros((KINDS, KINDS))), train, steps, seed)
    single = learn(declare(), train, steps, seed)
    read = {name: ed.predict(e, test._asdict(), "mode")["y"] for name, e in
            {"single": single, "chain": chain}.items()}  # fmt: skip
    likely = ed.predict(chain, test._asdict())["y"].probabilities.argmax(axis=-1)
    scores = {"single": single, "chain": chain}
    digits = test.y.count()
    draw(test, read, np.asarray(chain.parameters["A"]), out / "strings.png")
    return {
        "digits_right_single_images": share_right(read["single"], test.y),
        "digits_right_viterbi": share_right(read["chain"], test.y),
        "digits_right_marginals": share_right(likely, test.y),
        "strings_right_single_images": strings_right(read["single"], test.y),
        "strings_right_viterbi": strings_right(read["chain"], test.y),
    } | {
        f"log_likelihood_per_digit_{name}": float(
            ed.log_likelihood(ebm, test._asdict()).examples.sum() / digits
        )
        for name, ebm in scores.items()
    }


def learn(model: ed.Model, train: Strings, steps: int, seed: int) -> ed.EBM:
    """The model of highest penalised likelihood; the penalty is that of decoupled weight decay."""
    optimizer = optax.adamw(optax.linear_schedule(0.02, 0.0, steps), weight_decay=0.02)
    return ed.fit(
        ed.compile(model),
        ed.MaximumLikelihood(),
        train._asdict(),
        key=jr.key(seed),
        optimizer=optimizer,
        steps=steps,
        batch=min(50, len(train.x)),
    )[0]


def data(count: int, seed: int, *, held_out: bool = False) -> Strings:
    """Strings of images of digits; those of the test are of images that are not in the others."""
    from sklearn.datasets import load_digits

    images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(images))
    own = order[1437:] if held_out else order[:1437]
    rng = np.random.default_rng((seed, held_out))
    y = np.empty((count, LENGTH), int)
    y[:, 0] = rng.integers(KINDS, size=count)
    for t in range(1, LENGTH):
        surprise = rng.random(count) < SURPRISE
        y[:, t] = np.where(surprise, rng.integers(KINDS, size=count), (y[:, t - 1] + 1) % KINDS)
    chosen = np.empty_like(y)
    for k in range(KINDS):
        chosen[y == k] = rng.choice(own[labels[own] == k], size=(y == k).sum())
    x = images[chosen] / 16 + NOISE * rng.normal(size=(*y.shape, PIXELS))
    lengths = rng.integers(SHORTEST, LENGTH + 1, size=count)[:, None]
    after = np.arange(LENGTH) >= lengths
    return Strings(x * ~after[..., None], (~after[:, 1:]).astype(int), ma.array(y, mask=after))


def share_right(read: np.ndarray, labels: ma.MaskedArray) -> float:
    """The share of the digits that are read as they are."""
    return float((read == labels).mean())


def strings_right(read: np.ndarray, labels: ma.MaskedArray) -> float:
    """The share of the strings of which every digit is read as it is."""
    return float((read == labels).all(axis=1).mean())


def draw(test: Strings, read: dict[str, np.ndarray], moves: np.ndarray, path: Path) -> None:
    """Plot strings of the test with both readings, errors in red, and the learnt moves."""
    from matplotlib.figure import Figure

    shown = 6
    figure = Figure(figsize=(13, 7), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 3))
    left.suptitle("held-out strings: single images read (left), the chain's reading (right)")
    cells = left.subplots(shown, LENGTH)
    for row, (images, labels) in enumerate(zip(test.x, test.y, strict=True)):
        if row == shown:
            break
        for t, axis in enumerate(cells[row]):
            axis.axis("off")
            if labels[t] is ma.masked:
                continue
            axis.imshow(images[t].reshape(SIDE, SIDE), cmap="gray_r", vmin=-0.5, vmax=1.5)
            for name, place in (("single", 0.2), ("chain", 0.8)):
                guess = read[name][row, t]
                colour = "black" if guess == labels[t] else "red"
                axis.text(place, 1.02, str(guess), color=colour, transform=axis.transAxes,
                          ha="center", fontsize=12)  # fmt: skip
    axis = right.subplots()
    image = axis.imshow(-moves, cmap="RdBu")
    axis.set(xlabel="next digit", ylabel="digit", title="-A: what the chain learnt of strings")
    axis.set_xticks(range(KINDS))
    axis.set_yticks(range(KINDS))
    right.colorbar(image, ax=axis, shrink=0.6)
    figure.savefig(path, dpi=150)
