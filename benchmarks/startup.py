"""Start-up: the import compared with that of the dependencies, and the first draw."""

from benchmarks.measure import Row, limit, median_process

DEPENDENCIES = "import jax, numpyro, optax, equinox"

FIRST_DRAW = """
import jax, energydsl as ed
s = ed.spin("s", (64, 64))
bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
ebm = ed.compile(ed.Model(-0.44 * bonds))
ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), warmup=0, draws=1, progress=False)
"""


def rows() -> list[Row]:
    """Median times of whole processes."""
    bare, _ = median_process(DEPENDENCIES, repeats=7)
    ours, _ = median_process("import energydsl", repeats=7)
    first, _ = median_process(FIRST_DRAW)
    return [
        Row(
            "import energydsl",
            f"{ours:.2f} s",
            f"{bare:.2f} s (jax, numpyro, optax, equinox)",
            f"{ours / bare:.2f} x, limit 1.3: {limit(ours / bare, 1.3)}",
        ),
        Row("first draw, 64 x 64, cold process", f"{first:.2f} s", "6 s", limit(first, 6.0)),
    ]
