"""Large models: compile times and memory of large graphs, and of long runs."""

from benchmarks.measure import Row, limit, process

LATTICE = """
import time, energydsl as ed
s = ed.spin("s", (1024, 1024))
began = time.perf_counter()
bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
ebm = ed.compile(ed.Model(-0.4 * bonds))
print(time.perf_counter() - began, file=open(OUT, "w"))
"""

RANDOM_GRAPH = """
import time, numpy as np, energydsl as ed
rng = np.random.default_rng(0)
i, j = rng.integers(0, 500_000, (2, 1_000_000))
i, j, w = i[i != j], j[i != j], rng.normal(size=(i != j).sum())
s = ed.spin("s", 500_000)
began = time.perf_counter()
ebm = ed.compile(ed.Model((w * s[i] * s[j]).sum()))
print(time.perf_counter() - began, file=open(OUT, "w"))
"""

EDGE_BY_EDGE = """
import time, jax, numpy as np, energydsl as ed
rng = np.random.default_rng(0)
i, j = rng.integers(0, 10_000, (2, 10_000))
i, j = i[i != j].tolist(), j[i != j].tolist()
w = rng.normal(size=len(i)).tolist()
s = ed.spin("s", 10_000)
began = time.perf_counter()
ebm = ed.compile(ed.Model(sum(w[k] * s[i[k]] * s[j[k]] for k in range(len(i)))))
ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), chains=1, warmup=0, draws=1, progress=False)
print(time.perf_counter() - began, file=open(OUT, "w"))
"""

TABLE_BY_TABLE = """
import time, jax, numpy as np, energydsl as ed
rng = np.random.default_rng(0)
tables = [rng.normal(size=(3, 2 + k % 2)).astype(np.float32) for k in range(10_000)]
c, b = ed.categorical("c", 10_001, levels=3), ed.binary("b", 10_000)
began = time.perf_counter()
ebm = ed.compile(ed.Model(sum(
    ed.Table(log_potential=tables[k])(c[k], c[k + 1] if k % 2 else b[k]) for k in range(10_000)
)))
ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), chains=1, warmup=0, draws=1, progress=False)
print(time.perf_counter() - began, file=open(OUT, "w"))
"""

MILLION = """
import time, jax, energydsl as ed
s = ed.spin("s", (1000, 1000))
bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
ebm = ed.compile(ed.Model(-0.4 * bonds))
began = time.perf_counter()
ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), chains=1, warmup=0, draws=1000,
          keep={"m": lambda x: x["s"].astype(float).mean()}, progress=False)
print(time.perf_counter() - began, file=open(OUT, "w"))
"""

DRAWS = """
import jax, energydsl as ed
s = ed.spin("s", (64, 64))
bonds = (s * ed.roll(s, 1, 0)).sum() + (s * ed.roll(s, 1, 1)).sum()
ebm = ed.compile(ed.Model(-0.4 * bonds))
ed.sample(ebm, ed.Gibbs(), key=jax.random.key(0), warmup=0, draws=COUNT,
          keep={"m": lambda x: x["s"].astype(float).mean()}, progress=False)
"""

STEPS = """
import jax, jax.numpy as jnp, numpy as np, energydsl as ed
x, h = ed.binary("x", 64), ed.binary("h", 16, latent=True)
W = ed.parameter("W", 0.01 * jax.random.normal(jax.random.key(1), (64, 16)))
b = ed.parameter("b", jnp.zeros(64))
ebm = ed.compile(ed.Model(-(x @ W @ h) - b @ x))
data = np.random.default_rng(0).integers(0, 2, (1000, 64))
ed.fit(ebm, ed.ContrastiveDivergence(start="persistent"), data, key=jax.random.key(0),
       steps=COUNT, batch=100, progress=False)
"""

FEW, MANY, GROWTH = 2_000, 50_000, 0.01
"""Draws or steps of a short and of a long run, and the GB that the long one may use more."""


def rows() -> list[Row]:
    """Time and memory of one new process for each benchmark."""
    return [
        _row("compile 1024 x 1024 lattice", LATTICE, 5.0),
        _row("compile random graph, 10^6 edges", RANDOM_GRAPH, 20.0),
        _row("10^4 edges one by one, to the first draw", EDGE_BY_EDGE, 15.0),
        _row("10^4 tables one by one, to the first draw", TABLE_BY_TABLE, 15.0),
        _row("10^6 sites, 1,000 draws, keep=", MILLION, None),
        _growth("memory of draws under keep=", DRAWS),
        _growth("memory of learning steps", STEPS),
    ]


def _row(name: str, code: str, seconds_limit: float | None) -> Row:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds"
        _, memory = process(f"OUT = {str(out)!r}\n{code}")
        seconds = float(out.read_text())
    kept = limit(memory, 2.0)
    bound = "2 GB"
    if seconds_limit is not None:
        bound = f"{seconds_limit:g} s, 2 GB"
        kept = limit(max(memory / 2.0, seconds / seconds_limit), 1.0)
    return Row(name, f"{seconds:.2f} s, {memory:.2f} GB", bound, kept)


def _growth(name: str, code: str) -> Row:
    few, many = (process(f"COUNT = {count}\n{code}")[1] for count in (FEW, MANY))
    return Row(
        f"{name}, {MANY:,}",
        f"{many:.3f} GB",
        f"{few:.3f} GB of {FEW:,}",
        f"{1e3 * (many - few):+.0f} MB: {limit(many - few, GROWTH)}",
    )
