"""Sampling: runs of Markov chains with any kernel, in compiled chunks.

The device's memory holds one chunk of draws at a time. The random key of step t depends only on t,
so that neither the sizes of the chunks nor a resume from a checkpoint change the draws.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Mapping
from functools import partial
from os import PathLike
from typing import Any, ClassVar, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import Array, lax

from energydsl._messages import ON_CHAINS, brief, described, hinted
from energydsl._types import Configuration, Quantity, check_folder, check_key
from energydsl.analysis.ends import said_of_ends
from energydsl.compiler.ebm import EBM, check_ebm
from energydsl.kernel.base import AbstractEnsemble, AbstractKernel, check_covered
from energydsl.kernel.choose import choose
from energydsl.run.checkpoint import Identity, identity_of, model_identity, settings_identity
from energydsl.run.limits import check_counts, check_memory
from energydsl.run.loop import AbstractRun, At, Store
from energydsl.run.lost import Fallen, Lost, first_broken
from energydsl.run.moments import Moments, Running, RunningMoments
from energydsl.run.quantities import Quantities
from energydsl.run.spread import spread
from energydsl.run.start import Start, initial

BUFFER_BYTES, BUFFER_DRAWS = 2**26, 1024
"""The largest memory in bytes, and the largest number of draws, of a chunk's buffer."""


@hinted(ON_CHAINS)
@dataclasses.dataclass(frozen=True)
class Chains:
    """The result of `sample`, with NumPy arrays of shape (chain, draw, ...).

    Attributes:
        draws: the draws of each variable, or of each quantity in ``keep=``. Spins, bits and labels
            are 8-bit integers if these suffice, other integers 32-bit ones.
        stats: the energy of each draw, and the kernel's statistics.
        last: the final configuration of each chain, which can be given as ``start=``.
        moments: the mean and the variance of each quantity of ``keep=`` that is a `Moments`.
        lost: the chains whose energy became NaN. The other attributes are those of the chains that
            went on; if none did, those of all until the first stopped.
        ebm: the EBM that was sampled.
        kernel: the kernel.
        key: the random key of the run.
        warmup: the number of steps before the first draw.
        thin: the number of steps per draw.
        seconds: the wall time, including compilation.
        stopped: the reason why the run ended before its last draw, or None.
        chosen: the reason for the choice of the kernel, if none was given.
    """

    draws: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    last: Configuration
    ebm: EBM
    kernel: AbstractKernel
    key: Array
    warmup: int
    thin: int
    seconds: float
    stopped: str | None = None
    chosen: str | None = None
    lost: tuple[Lost, ...] = ()
    moments: dict[str, RunningMoments] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: object) -> NoReturn:
        raise TypeError(f"Chains are no dict: write chains.draws[{name!r}] or chains.stats[...].")

    def __repr__(self) -> str:
        chains, draws = self.stats["energy"].shape
        shown = [f"{n}{list(a.shape[2:])}" for n, a in self.draws.items()]
        names = ", ".join([*shown, *(f"moments of {n}" for n in self.moments)])
        note = f"; chosen because {self.chosen}" if self.chosen else ""
        note += f"; stopped: {self.stopped}" if self.stopped else ""
        note += f"; lost: {[lost.chain for lost in self.lost]}" if self.lost else ""
        return f"<Chains of {self.kernel}: {chains} chains x {draws} draws of {names}{note}>"


def lost_at_ends(chains: Chains) -> list[str]:
    """Messages about probability mass near the ends of domains that draws miss: see `near_ends`.

    If a run kept other quantities than a variable, its last configurations are examined.
    """
    found = []
    for v in chains.ebm.structure.skeleton.free:
        drawn = chains.draws.get(v.name)
        if drawn is None or drawn.shape[2:] != v.shape or drawn.dtype != v.domain.dtype:
            drawn = np.asarray(chains.last.get(v.name, ()))
        if said := said_of_ends(v, drawn):
            found.append(said)
    return found


def check_chains(chains: object, function: str) -> None:
    """Raise TypeError unless these are chains."""
    if not isinstance(chains, Chains):
        raise TypeError(
            f"{function} got {brief(chains)}; expected the chains that ed.sample returns: "
            f"chains = ed.sample(ebm, key=key), ed.{function}(chains)."
        )


@described
def sample(
    ebm: EBM,
    kernel: AbstractKernel | None = None,
    *,
    key: Array,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 1000,
    thin: int = 1,
    start: Start | None = None,
    keep: Mapping[str, Quantity | Moments] | None = None,
    checkpoint: str | PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> Chains:
    """Draw from an EBM by Markov chains.

    Args:
        ebm: the compiled model.
        kernel: the kernel, such as ``ed.Gibbs()``. By default the one that `EBM.explain`
            recommends first; ``chains.chosen`` gives the reason.
        key: a `jax.random.key`; the same key gives the same draws.
        chains: the number of chains.
        warmup: the number of steps before the first draw, in which the kernel may adapt.
        draws: the number of draws of each chain.
        thin: the number of steps per draw.
        start: the initial configuration: a dict of arrays, one for all chains or one per chain,
            with the chains on the first axis; or a `Mode`, for all chains. Or what it is drawn from
            for each chain: a dict of NumPyro distributions, one distribution if there is one
            variable, or an EBM that has exact draws. What is not given begins at random.
        keep: functions of one configuration, by name, whose values are kept instead of the
            configurations; they receive discrete variables as 32-bit integers. Of a function in
            `Moments` only the mean and the variance over the draws are kept.
        checkpoint: a folder. If it contains a checkpoint of the same run, the run continues from
            there, with the same draws as without the interruption; `draws` may be larger.
        mesh: devices over which the run is spread: the chains along the mesh's axis "chain", and
            the first axis of each variable along its axis "site". Random words do not depend on it.
        progress: whether to show a progress bar, if the output is a terminal.

    Returns:
        The chains. Ctrl-C ends the run early, and the draws so far are returned. A chain whose
        energy becomes NaN stops alone, with a warning: see `Chains.lost`.

    Raises:
        TypeError, ValueError: the kernel does not fit the model, the start is outside the support,
            a count is invalid, or the checkpoint is of another run.
    """
    check_counts("sample", 1, chains=chains, draws=draws, thin=thin)
    check_counts("sample", 0, warmup=warmup)
    check_ebm(ebm, "sample")
    check_folder(checkpoint, "sample")
    check_key(key, "sample", ebm)
    chosen = None
    if kernel is None:
        kernel, chosen = choose(ebm)
    if not isinstance(kernel, AbstractKernel):
        raise TypeError(f"sample got the kernel {brief(kernel)}; expected one such as ed.Gibbs().")
    check_covered(ebm, kernel)
    run = _Run(ebm, kernel, key, chains, warmup, draws, thin)
    with run:
        run.begin(start, keep, checkpoint, mesh)
        return dataclasses.replace(run.finish(progress), chosen=chosen)


class _Run(AbstractRun):
    """A run of `sample`; its results have the chains on the first axis, the draws on the second."""

    word: ClassVar[str] = "draws"

    def __init__(
        self,
        ebm: EBM,
        kernel: AbstractKernel,
        key: Array,
        chains: int,
        warmup: int,
        draws: int,
        thin: int,
    ) -> None:
        self.ebm, self.kernel, self.key = ebm, kernel, key
        self.chains, self.warmup, self.rows, self.thin = chains, warmup, draws, thin
        self.ensemble = kernel.ensemble(ebm)
        self.start_key, self.init_key, self.step_key = jr.split(key, 3)
        self.began = time.perf_counter()

    def begin(
        self,
        start: Start | None,
        keep: Mapping[str, Quantity | Moments] | None,
        checkpoint: str | PathLike | None,
        mesh: jax.sharding.Mesh | None,
    ) -> None:
        """Initialise the chains, allocate the draws, and resume from a checkpoint if given."""
        xs = initial(self.ebm, start, self.chains, key=self.start_key)
        xs = spread(self.ebm, xs, mesh)
        carry = _begin(self.ebm, self.ensemble, xs, self.init_key, self.warmup)
        one = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in _widened(xs).items()}
        self.keep = None if keep is None else Quantities.of(keep, one)
        shapes = _shapes(self.ebm, self.ensemble, carry, self.keep, self.key)
        running = Running.blank({k[8:]: shapes.pop(k) for k in [*shapes] if k[:8] == "running/"})
        each = sum(math.prod(s.shape) * s.dtype.itemsize for s in shapes.values())
        check_memory(self.rows, self.rows * each)
        arrays = {
            k: np.empty((self.chains, self.rows, *s.shape[1:]), s.dtype) for k, s in shapes.items()
        }
        self.store = Store(arrays, axis=1)
        size = sum(a[:, :1].nbytes for a in arrays.values())
        # The capacity does not depend on the number of draws, so that another is not recompiled.
        self.capacity = int(max(1, min(BUFFER_BYTES // max(size, 1), BUFFER_DRAWS)))
        fallen = Fallen.none(_configurations(self.ebm, self.ensemble, carry))
        self.at = At(((carry, running), fallen), 0, 0)
        if checkpoint is not None:
            self.resume(checkpoint, self._identity(None if start is None else xs))

    def finish(self, progress: bool) -> Chains:
        """Draw the remaining draws, and return the chains."""
        stopped = self.go(self.warmup + self.rows * self.thin, str(self.kernel), progress)
        if stopped is not None:
            warnings.warn(f"sample {stopped}; the draws so far are returned.", stacklevel=4)
        chains = self._chains(stopped)
        for lost in chains.lost if stopped is None else ():
            warnings.warn(f"sample left out a chain: {lost}.", stacklevel=4)
        for said in lost_at_ends(chains):
            warnings.warn(f"{said}.", stacklevel=4)
        return chains

    def note(self) -> str:
        return ""

    def chunk(self, length: int) -> str | None:
        left = self.warmup - self.at.steps
        if left > 0:
            # Warmup uses the same program: one draw of that many steps, which is not kept.
            count, thin = 1, min(left, length)
        else:
            count, thin = min(self.rows - self.at.rows, self.capacity, length), self.thin
        fallen = self.at.carry[1]
        if fallen.mask.all():
            return fallen.reason
        carry, new = self._compute(count, thin)
        broken = first_broken(new["energy"], fallen)
        for chain, row in broken.items():
            fallen = fallen.joined(chain, *self._last_good(chain, row, thin))
        if fallen.mask.all():
            count = max(broken.values())
            carry, new = self._compute(count, thin)
        if count:
            self._commit((carry, fallen), new, count, thin, warm=left > 0)
        return fallen.reason if fallen.mask.all() else None

    def _last_good(self, chain: int, row: int, thin: int) -> tuple[int, Configuration]:
        """The last step at which a chain was good, and all chains there, by bisection."""
        carry, first = self.at.carry[0], self.at.steps
        if row:
            carry, first = self._compute(row, thin)[0], first + row * thin
        good, broken, at = 0, thin, carry
        while broken - good > 1:
            middle = (good + broken) // 2
            moved, seen = self._compute(1, middle, carry, first)
            if np.isnan(seen["energy"][chain, 0]):
                broken = middle
            else:
                good, at = middle, moved
        return first + good, _configurations(self.ebm, self.ensemble, at[0])

    def _compute(
        self, count: int, thin: int, carry: Any = None, first: int | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Draws of the chains, from where the run is unless it is said from where."""
        carry, first = (self.at.carry[0], self.at.steps) if first is None else (carry, first)
        numbers = jnp.asarray([first, count, thin, self.warmup])
        carry, buffer = _run_chunk(
            self.ebm, self.ensemble, carry, self.step_key, numbers, self.keep, self.capacity
        )
        return carry, {k: np.moveaxis(np.asarray(v)[:count], 0, 1) for k, v in buffer.items()}

    def _commit(
        self, carry: Any, new: dict[str, np.ndarray], count: int, thin: int, *, warm: bool
    ) -> None:
        rows = self.at.rows if warm else self.store.put(self.at.rows, new)
        self.at = At(carry, self.at.steps + count * thin, rows)

    def _identity(self, start: Configuration | None) -> Identity:
        """What must agree between a run and one that resumes from its checkpoint."""
        kept = "configurations" if self.keep is None else str(list(self.keep.names))
        numbers = {"chains": self.chains, "warmup": self.warmup, "thin": self.thin}
        return (
            model_identity(self.ebm.model)
            | settings_identity("kernel", self.kernel)
            | {name: identity_of(value, name) for name, value in numbers.items()}
            | {
                "key": identity_of(self.key, "the key"),
                "start": identity_of(start, "the start"),
                "keep": (kept, identity_of(self.keep, "keep")[1]),
            }
        )

    def _chains(self, stopped: str | None) -> Chains:
        whole = self.store.between(0, self.at.rows)
        draws = {k[5:]: a for k, a in whole.items() if k.startswith("draw/")}
        stats = {"energy": whole["energy"]}
        stats |= {k[5:]: a for k, a in whole.items() if k.startswith("stat/")}
        (carry, running), fallen = self.at.carry
        last = _configurations(self.ebm, self.ensemble, carry)
        lost = fallen.told(draws, self.warmup, self.thin)
        if fallen.mask.any():
            draws, stats, last = fallen.left_out(draws, stats, last, self.warmup, self.thin)
        return Chains(
            draws, stats, last, self.ebm, self.kernel, self.key, self.warmup, self.thin,
            time.perf_counter() - self.began, stopped, lost=lost,
            moments=running.told(~fallen.mask),
        )  # fmt: skip


@eqx.filter_jit
def _begin(ebm: EBM, ensemble: AbstractEnsemble, xs: Configuration, key: Array, warmup: int) -> Any:
    return ensemble.start(ebm, xs, key=key, warmup=warmup)


@eqx.filter_jit
def _configurations(ebm: EBM, ensemble: AbstractEnsemble, carry: Any) -> Configuration:
    return ensemble.configurations(ebm, carry)


def _look(
    ebm: EBM, ensemble: AbstractEnsemble, carry: Any, keep: Any, key: Array
) -> dict[str, Array]:
    """Everything that is stored for one draw, after one step."""
    carry, info = ensemble.advance(ebm, ensemble.load(ebm), carry, key=key)
    return _observe(ebm, ensemble, carry, keep) | {f"stat/{k}": v for k, v in info.items()}


def _shapes(*arguments: Any) -> dict[str, Any]:
    """The shapes of everything stored for one draw, cached between similar runs."""
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    leaves, treedef = jax.tree.flatten(rest)
    return _look_at.eval_shape(arrays, tuple(leaves), treedef)


@partial(jax.jit, static_argnums=(1, 2))
def _look_at(arrays: Any, leaves: tuple[Any, ...], treedef: Any) -> dict[str, Array]:
    return _look(*eqx.combine(arrays, jax.tree.unflatten(treedef, leaves)))


def _observe(
    ebm: EBM, ensemble: AbstractEnsemble, carry: Any, keep: Quantities | None
) -> dict[str, Array]:
    """The kept quantities and the energy of each chain's present configuration."""
    if keep is None:
        kept = _shown(ebm, ensemble.configurations(ebm, carry))
    else:
        kept = ensemble.observe(ebm, carry, lambda x: keep(_widened(x)))
    running = () if keep is None else keep.running
    named = {f"running/{k}" if k in running else f"draw/{k}": v for k, v in kept.items()}
    return named | {"energy": ensemble.energies(ebm, carry)}


def _widened(xs: Configuration) -> Configuration:
    """Configurations as the functions of ``keep=`` receive them, with 32-bit integers."""
    small = {n for n, a in xs.items() if jnp.issubdtype(a.dtype, jnp.integer)}
    return {n: a.astype(jnp.int32) if n in small else a for n, a in xs.items()}


def _shown(ebm: EBM, xs: Configuration) -> Configuration:
    """Configurations in the dtypes in which draws are kept."""
    dtypes = {v.name: v.domain.draw_dtype for v in ebm.structure.skeleton.free}
    return {n: a.astype(dtypes[n]) for n, a in xs.items()}


@eqx.filter_jit
def _run_chunk(
    ebm: EBM,
    ensemble: AbstractEnsemble,
    carry: tuple[Any, Running],
    key: Array,
    numbers: Array,
    keep: Quantities | None,
    capacity: int,
) -> tuple[tuple[Any, Running], dict[str, Array]]:
    """`count` draws of `thin` steps each, from step `first` on, into a buffer of `capacity`."""
    first, count, thin, warmup = numbers
    tables = ensemble.load(ebm)

    def advance(t: Array, loop: tuple[Any, dict[str, Array]]) -> tuple[Any, dict[str, Array]]:
        return ensemble.advance(ebm, tables, loop[0], key=jr.fold_in(key, t))

    def draw(i: Array, loop: Any) -> Any:
        carry, running, buffer = loop
        begin = first + i * thin
        carry, info = lax.fori_loop(begin, begin + thin, advance, (carry, blank))
        seen = _observe(ebm, ensemble, carry, keep) | {f"stat/{k}": v for k, v in info.items()}
        summed = running.with_draw({k: seen[f"running/{k}"] for k in running.means})
        running = jax.tree.map(lambda a, b: jnp.where(begin < warmup, a, b), running, summed)
        return carry, running, {k: b.at[i].set(seen[k]) for k, b in buffer.items()}

    shapes = eqx.filter_eval_shape(_look, ebm, ensemble, carry[0], keep, key)
    blank = {k[5:]: jnp.zeros(s.shape, s.dtype) for k, s in shapes.items() if k[:5] == "stat/"}
    # The draws are on the first axis, so that each is contiguous in memory.
    kept = {k: s for k, s in shapes.items() if k[:8] != "running/"}
    buffer = {k: jnp.zeros((capacity, *s.shape), s.dtype) for k, s in kept.items()}
    chains, running, buffer = lax.fori_loop(0, count, draw, (*carry, buffer))
    return (chains, running), buffer
