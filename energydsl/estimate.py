"""log Z where it is estimated, with its error; and the likelihood of data, which says its kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from scipy.special import logsumexp
from scipy.stats import t as student

from energydsl._types import Configuration, IntractableError
from energydsl.compiler import compile as compile_model
from energydsl.domain import AbstractDomain
from energydsl.ebm import EBM, log_partition
from energydsl.expression import Apply, View
from energydsl.kernel import Cycle, Gibbs, Langevin
from energydsl.kernel.base import AbstractKernel, check_covered
from energydsl.kernel.choose import choose
from energydsl.normalizer import Exact
from energydsl.potential import AbstractPotential
from energydsl.variable import Variable

WIDER = 1.2
"""How much wider than the pilot's draws the base of a continuous variable is."""


@dataclasses.dataclass(frozen=True)
class LogZ:
    """log Z, and how well it is known.

    Attributes:
        value: the estimate; exact where `kind` says so.
        standard_error: of `value`, in nats.
        lower: where the 95 % interval begins.
        upper: where it ends.
        kind: "exact", "estimate" or "bound" (then log Z lies between `lower` and `upper`).
        ess: the effective number of independent weights behind an estimate.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    kind: str
    ess: float

    @staticmethod
    def exact(value: float) -> LogZ:
        """A value without error."""
        return LogZ(value, 0.0, value, value, "exact", np.inf)

    def __str__(self) -> str:
        if self.kind == "exact":
            return f"log Z = {self.value:.6g} (exact)"
        return (
            f"log Z = {self.value:.6g} +- {self.standard_error:.2g} ({self.kind}; 95 % from "
            f"{self.lower:.6g} to {self.upper:.6g}; {self.ess:.3g} effective chains)"
        )


def estimate_log_partition(
    ebm: EBM,
    method: str = "ais",
    *,
    key: Array,
    kernel: AbstractKernel | None = None,
    chains: int = 128,
    temperatures: int = 500,
    steps: int = 1,
) -> LogZ:
    r"""Estimate log Z by annealed importance sampling.

    Each chain begins with an exact draw of a base whose log Z is known, and is led through
    $E_k = (1-\beta_k) E_\text{base} + \beta_k E$, $0 = \beta_0 < \dots < \beta_K = 1$, by
    `steps` transitions of the kernel at each rung. Its weight
    $\log w = \log Z_\text{base} - \sum_k (\beta_k - \beta_{k-1}) (E - E_\text{base})(x_{k-1})$
    has $\mathbb{E}\,w = Z$, whatever the kernel has reached. The base is uniform on finite sites
    and, on continuous ones, independent normals in unconstrained coordinates, placed by a short
    pilot run. The error is the jackknife's over chains. It sees only what the chains saw: where
    they miss a mode, the estimate is low and the error small; `ess` far below `chains` warns.

    Args:
        ebm: what to normalise.
        method: "ais".
        key: a `jax.random.key`.
        kernel: any that moves every free site; Gibbs, Langevin or a cycle of the two if not given.
        chains: independent weights.
        temperatures: K.
        steps: transitions at each.

    Raises:
        ValueError: an unknown method, counts below one (two for chains), or a kernel that leaves
            sites out.

    Source: Neal (2001), Statistics and Computing 11, 125-139, equations (3), (10) and (11).
    """
    if method != "ais":
        raise ValueError(f'estimate_log_partition got method={method!r}; expected "ais".')
    for name, count, least in (
        ("chains", chains, 2),
        ("temperatures", temperatures, 1),
        ("steps", steps, 1),
    ):
        if count < least:
            raise ValueError(
                f"estimate_log_partition got {name}={count}; expected at least {least}."
            )
    kernel = _default(ebm) if kernel is None else kernel
    check_covered(ebm, kernel)
    path = _Path(ebm)
    check_covered(path.mixed, kernel)
    pilot_key, run_key = jr.split(key)
    loc, scale, states = _pilot(path, kernel, pilot_key, chains, max(temperatures // 2, 100))
    betas = jnp.linspace(0.0, 1.0, temperatures + 1)
    terms = _anneal(path, kernel, loc, scale, states, betas, chains, steps, key=run_key)
    return _combine(path.base.log_partition - np.asarray(terms, np.float64).sum(axis=0))


def _default(ebm: EBM) -> AbstractKernel:
    """Cheap steps serve annealing best: one sweep, one gradient, or both."""
    for kernel in (Gibbs(), Langevin(), Cycle(Gibbs(), Langevin())):
        if kernel.moves(ebm)[ebm.structure.free].all():
            return kernel
    return choose(ebm)[0]


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """How likely data is under a model, and how well that is known.

    Attributes:
        value: the mean over the examples of log p(v), in nats.
        standard_error: of `value`, as far as it comes from log Z.
        lower: `value` at the upper end of log Z.
        upper: `value` at its lower end.
        kind: of the log Z it rests on: "exact", "estimate" or "bound".
        examples: log p of each example.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    kind: str
    examples: np.ndarray


def log_likelihood(
    ebm: EBM, data: Mapping[str, Any] | Any, *, log_z: LogZ | None = None
) -> LogLikelihood:
    r"""Mean of $\log p(v) = -F(v) - \log Z$ over examples, latents summed out.

    Args:
        ebm: the model.
        data: for each free variable that is not latent, its values, examples first; or the array
            of the only one.
        log_z: what `estimate_log_partition` returned, where no exact rule applies; its kind and
            its error become the result's.

    Raises:
        IntractableError: log Z or F(v) has no exact rule and no `log_z` was given.
        ValueError, TypeError: data that does not fit the variables, or is empty.
    """
    shown = [v for v in ebm.structure.skeleton.free if not v.latent]
    examples = _examples(shown, data)
    if log_z is None:
        if not isinstance(ebm.normalizer, Exact):
            raise IntractableError(
                f"log Z is {ebm.normalizer}. Estimate it: "
                "ed.log_likelihood(ebm, data, log_z=ed.estimate_log_partition(ebm, key=key))."
            )
        log_z = LogZ.exact(float(log_partition(ebm)))
    hidden = any(v.latent for v in ebm.structure.skeleton.free)
    energies = np.asarray(_energies(ebm, examples, hidden), np.float64)
    mean = float(-energies.mean())
    return LogLikelihood(
        mean - log_z.value,
        log_z.standard_error,
        mean - log_z.upper,
        mean - log_z.lower,
        log_z.kind,
        -energies - log_z.value,
    )


@eqx.filter_jit
def _energies(ebm: EBM, examples: Configuration, hidden: bool) -> Array:
    one = ebm.free_energy if hidden else ebm.energy
    return lax.map(one, examples, batch_size=256)


def _examples(shown: list[Variable], data: Any) -> Configuration:
    """Data by variable, checked."""
    names = [v.name for v in shown]
    if not isinstance(data, Mapping):
        if len(shown) != 1:
            raise ValueError(f"log_likelihood got one array; expected a dict with {names}.")
        data = {names[0]: data}
    if set(data) != set(names):
        raise ValueError(f"log_likelihood got data for {sorted(data)}; expected {names}.")
    counts = {n: np.shape(a)[:1] for n, a in data.items()}
    if len(set(counts.values())) != 1 or () in counts.values() or (0,) in counts.values():
        raise ValueError(
            f"log_likelihood got data with {counts} examples; expected the same number, at least "
            "one, on the first axis of each array."
        )
    count = next(iter(counts.values()))
    return {
        v.name: v.domain.check(data[v.name], count + v.shape, f"The data of {v.name!r}")
        for v in shown
    }


class _Placed(AbstractPotential):
    """Minus the log-density of an event whose unconstrained coordinates are normal."""

    domain: AbstractDomain = eqx.field(static=True)

    def energy(self, x: Array, loc: Array, scale: Array) -> Array:
        transform = self.domain.transform
        z = transform.inv(x)
        jacobian = jnp.sum(transform.log_abs_det_jacobian(z, x))
        return jacobian - jnp.sum(dist.Normal(loc, scale).log_prob(z))


class _Base:
    """The law that annealing begins with: uniform on finite sites, placed normals elsewhere.

    Static, and known by the structure, so that new parameter values find the compiled program.
    """

    def __init__(self, ebm: EBM) -> None:
        self.structure = ebm.structure
        skeleton = ebm.structure.skeleton
        self.log_partition = float(
            sum(np.log(v.domain.levels) * (~skeleton.mask(v)).sum() for v in _finite(ebm))
        )
        self.smooth: tuple[Variable, ...] = tuple(v for v in skeleton.free if not v.domain.finite)
        self.rows = {v.name: _free_events(v, skeleton.mask(v)) for v in self.smooth}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Base) and other.structure == self.structure

    def __hash__(self) -> int:
        return hash(self.structure)

    def coordinates(self, x: Configuration) -> Configuration:
        """The unconstrained coordinates of the free events, (events, *coordinates)."""
        return {
            v.name: v.domain.transform.inv(x[v.name].reshape(-1, *_event(v))[self.rows[v.name]])
            for v in self.smooth
        }

    def placed(self, z: Configuration, x: Configuration) -> Configuration:
        """`x` with the free events where z says."""
        new = {}
        for v in self.smooth:
            rows, events = self.rows[v.name], x[v.name].reshape(-1, *_event(v))
            moved = events.at[rows].set(v.domain.transform(z[v.name]))
            new[v.name] = moved.reshape(v.shape)
        return {**x, **new}

    def expression(self, loc: Configuration, scale: Configuration) -> Any:
        """The energy, over the continuous variables."""
        parts = []
        for v in self.smooth:
            events = View.of(v).reshape((-1, *_event(v)))[self.rows[v.name]]
            ndims = (v.domain.event_ndim, *(np.ndim(loc[v.name]) - 1,) * 2)
            arguments = (events, loc[v.name], scale[v.name])
            parts.append(Apply.of(_Placed(v.domain), arguments, ndims).sum())
        return sum(parts[1:], parts[0])


class _Path(eqx.Module):
    """E_beta = (1 - beta) E_base + beta E, compiled once: beta is a parameter."""

    ebm: EBM
    mixed: EBM
    base: _Base = eqx.field(static=True)
    slots: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def __init__(self, ebm: EBM) -> None:
        self.ebm, self.base = ebm, _Base(ebm)
        arrays: dict[str, Array] = {"beta": jnp.asarray(0.5, float)}
        model = arrays["beta"] * ebm.model
        if self.base.smooth:
            start = self.base.coordinates(ebm.start(key=jr.key(0)))
            loc = {n: jnp.zeros_like(z) for n, z in start.items()}
            scale = {n: jnp.ones_like(z) for n, z in start.items()}
            arrays["rest"] = jnp.asarray(0.5, float)
            arrays |= {f"loc {n}": a for n, a in loc.items()}
            arrays |= {f"scale {n}": a for n, a in scale.items()}
            model = model + arrays["rest"] * self.base.expression(loc, scale)
        self.mixed = compile_model(model, budget=0)
        # An array is one parameter, wherever the energy's text has it.
        self.slots = tuple(
            (name, next(k for k, p in enumerate(self.mixed.parameters) if p is array))
            for name, array in arrays.items()
        )

    def at(self, beta: Array, loc: Configuration, scale: Configuration) -> EBM:
        """The EBM of E_beta."""
        new: dict[str, Array] = {"beta": beta, "rest": 1 - beta}
        new |= {f"loc {n}": a for n, a in loc.items()}
        new |= {f"scale {n}": a for n, a in scale.items()}
        return eqx.tree_at(
            lambda e: [e.model.parameters[k] for _, k in self.slots],
            self.mixed,
            [new[n] for n, _ in self.slots],
        )

    def gap(self, x: Configuration, loc: Configuration, scale: Configuration) -> Array:
        """E - E_base of one configuration."""
        gap = self.ebm.energy(x)
        z = self.base.coordinates(x)
        for v in self.base.smooth:
            n, transform = v.name, v.domain.transform
            gap += jnp.sum(dist.Normal(loc[n], scale[n]).log_prob(z[n]))
            gap -= jnp.sum(transform.log_abs_det_jacobian(z[n], transform(z[n])))
        return gap


@eqx.filter_jit
def _pilot(
    path: _Path, kernel: AbstractKernel, key: Array, chains: int, warmup: int
) -> tuple[Configuration, Configuration, Any]:
    """Where the target lies in unconstrained coordinates, and the kernel's tuned states."""
    start_key, init_key, run_key = jr.split(key, 3)
    xs = jax.vmap(lambda k: path.ebm.start(key=k))(jr.split(start_key, chains))
    # Without a base to place, the kernel's first state will do.
    length = warmup if path.base.smooth else 0

    def init(x: Configuration, key: Array) -> Any:
        return kernel.init(path.ebm, x, key=key, warmup=length)

    states = jax.vmap(init)(xs, jr.split(init_key, chains))
    blank = path.base.coordinates(jax.tree.map(lambda a: a[0], xs))
    none = jax.tree.map(jnp.zeros_like, blank), jax.tree.map(jnp.ones_like, blank)
    if not length:
        return *none, states
    target = path.at(jnp.ones(()), *none)

    def step(carry: Any, key: Array) -> tuple[Any, Configuration]:
        carry = _steps(kernel, target, carry, key, 1)
        return carry, jax.vmap(path.base.coordinates)(carry[0])

    (_, states), zs = lax.scan(step, (xs, states), jr.split(run_key, length))
    late = jax.tree.map(lambda z: z[length // 2 :], zs)
    loc = jax.tree.map(lambda z: jnp.mean(z, axis=(0, 1)), late)
    scale = jax.tree.map(
        lambda z: WIDER * jnp.maximum(jnp.std(z, axis=(0, 1)), 1e-6 * (1 + jnp.max(jnp.abs(z)))),
        late,
    )
    found = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves((loc, scale))]))
    loc, scale = jax.tree.map(lambda a, b: jnp.where(found, a, b), (loc, scale), none)
    return loc, scale, states


def _steps(kernel: AbstractKernel, ebm: EBM, carry: Any, key: Array, steps: int) -> Any:
    """Every chain some transitions on."""

    def one(x: Configuration, state: Any, key: Array) -> Any:
        for k in jr.split(key, steps):
            x, state, _ = kernel.step(ebm, x, state, key=k)
        return x, state

    xs, states = carry
    count = len(next(iter(xs.values())))
    return jax.vmap(one)(xs, states, jr.split(key, count))


@eqx.filter_jit
def _anneal(
    path: _Path,
    kernel: AbstractKernel,
    loc: Configuration,
    scale: Configuration,
    states: Any,
    betas: Array,
    chains: int,
    steps: int,
    *,
    key: Array,
) -> Array:
    """The terms of each chain's -log w + log Z_base: (temperatures, chains)."""

    def draw(key: Array) -> Configuration:
        x_key, z_key = jr.split(key)
        # Finite sites start uniformly.
        x = path.ebm.start(key=x_key)
        keys = jr.split(z_key, len(loc))
        z = {
            n: loc[n] + scale[n] * jr.normal(k, loc[n].shape)
            for n, k in zip(loc, keys, strict=True)
        }
        return path.base.placed(z, x)

    def rung(carry: Any, now: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        before, beta, key = now
        gaps = jax.vmap(lambda x: path.gap(x, loc, scale))(carry[0])
        carry = _steps(kernel, path.at(beta, loc, scale), carry, key, steps)
        return carry, (beta - before) * gaps

    draw_key, run_key = jr.split(key)
    xs = jax.vmap(draw)(jr.split(draw_key, chains))
    keys = jr.split(run_key, len(betas) - 1)
    return lax.scan(rung, (xs, states), (betas[:-1], betas[1:], keys))[1]


def _combine(log_weights: np.ndarray) -> LogZ:
    """Log of the mean weight, its jackknife error and interval, the effective sample size."""
    n = len(log_weights)
    value = float(logsumexp(log_weights) - np.log(n))
    if not np.isfinite(value):
        return LogZ(value, np.inf, -np.inf, np.inf, "estimate", 0.0)
    shares = np.exp(log_weights - logsumexp(log_weights))
    ess = float(1 / np.sum(shares**2))
    with np.errstate(divide="ignore"):
        without = value + np.log1p(-shares) + np.log(n / (n - 1))
    error = float(np.sqrt((n - 1) * np.mean((without - without.mean()) ** 2)))
    error = error if np.isfinite(error) else np.inf
    half = float(student.ppf(0.975, n - 1)) * error
    return LogZ(value, error, value - half, value + half, "estimate", ess)


def _finite(ebm: EBM) -> list[Variable]:
    return [v for v in ebm.structure.skeleton.free if v.domain.finite]


def _event(v: Variable) -> tuple[int, ...]:
    return v.shape[len(v.shape) - v.domain.event_ndim :]


def _free_events(v: Variable, held: np.ndarray) -> np.ndarray:
    """Numbers of the events that are not clamped."""
    return np.flatnonzero(~held.reshape(-1, int(np.prod(_event(v), dtype=int)))[:, 0])
