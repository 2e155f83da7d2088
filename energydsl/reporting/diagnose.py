"""Convergence diagnostics of chains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from energydsl._messages import described
from energydsl.analysis.value_checks import no_growth
from energydsl.reporting.statistics import FEWEST, Trace
from energydsl.run.sampling import Chains, check_chains, lost_at_ends

RHAT_GOOD, RHAT_BAD = 1.01, 1.1
"""Limits of R-hat: the strict one of Vehtari et al. (2021), and the traditional one."""

ESS_PER_CHAIN = 100
"""The least bulk ESS per chain that Vehtari et al. (2021) recommend."""

CHANCE = 0.01
"""The share of entries that may miss RHAT_GOOD or ESS_PER_CHAIN by chance."""

BFMI_LOW = 0.3
"""The limit of E-BFMI below which the tails are poorly explored: Betancourt (2016),
arXiv:1604.00695."""

FEW_TRIPS = 10
"""The least number of round trips of replicas in each chain without a warning."""

ACCEPTED_LOW = 0.05
"""The least acceptance rate without a warning; all targets of kernels are above 0.2."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem of a run.

    Attributes:
        level: "error" if results from the draws are misleading, "warning" if they may be.
        name: the kind of problem, such as "modes".
        message: what was found, and what to do.
    """

    level: Literal["error", "warning"]
    name: str
    message: str


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis:
    """The result of `diagnose`, which prints as a report.

    Attributes:
        title: a line that describes the run.
        findings: the problems found, errors first.
        numbers: for the energy and each variable or kept quantity, a dict with the number of
            ``entries``, how many of them are ``frozen``, the largest ``rhat``, the smallest bulk
            ``ess``, and the latter per second, ``ess_per_second``; for the energy of a continuous
            model also ``e_bfmi``.
    """

    title: str
    findings: tuple[Finding, ...]
    numbers: dict[str, dict[str, float]]

    @property
    def ok(self) -> bool:
        """True if no problem was found."""
        return not self.findings

    def __str__(self) -> str:
        said = [f"{f.level}: {f.message}" for f in self.findings]
        return "\n".join([self.title, *self._table(), *(said or ["Nothing is wrong."])])

    def _table(self) -> list[str]:
        if not self.numbers:
            return []
        width = max(map(len, self.numbers))
        head = f"  {'':{width}}  {'entries':>9} {'frozen':>9} {'R-hat':>7} {'ESS':>8} {'ESS/s':>10}"
        return [head] + [
            f"  {name:{width}}  {n['entries']:9,} {n['frozen']:9,} {n['rhat']:7.3f} "
            f"{n['ess']:8,.0f} {n['ess_per_second']:10,.1f}"
            for name, n in self.numbers.items()
        ]

    __repr__ = __str__


@described
def diagnose(chains: Chains) -> Diagnosis:
    """Check chains for convergence problems.

    Entries that never change are distinguished from converged ones, and chains that stay in
    different modes from chains that mix slowly. Draws that are independent and exact by
    construction, as those of `ExactDraws`, are checked for NaN and infinities only. For a variable
    of more than about 2,000 sites, R-hat is the split R-hat without rank normalisation of every
    site, and ESS is computed for a random subset of the sites.

    Args:
        chains: the result of `energydsl.sample`.

    Returns:
        The findings and the numbers; `Diagnosis.ok` is True if no problem was found.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian Analysis 16(2), 667-718.
    """
    check_chains(chains, "diagnose")
    count, draws = chains.stats["energy"].shape
    title = f"{count} chains x {draws:,} draws of {chains.kernel} in {chains.seconds:.2f} s"
    traces = _traces(chains) if draws >= FEWEST else []
    numbers = {trace.name: _numbers(trace, chains.seconds) for trace in traces}
    findings = [*_of_run(chains), *(f for trace in traces for f in _of_finite(trace))]
    exact = chains.kernel.independent
    if not exact:
        findings += [f for trace in traces for f in _of_trace(trace)]
    if traces and not any(v.domain.discrete for v in chains.ebm.structure.skeleton.free):
        bfmi = _bfmi(chains.stats["energy"])
        numbers["energy"]["e_bfmi"] = float(bfmi.min())
        findings += [] if exact else _of_energy(bfmi)
    findings.sort(key=lambda f: f.level)
    return Diagnosis(title, tuple(findings), numbers)


def _traces(chains: Chains) -> list[Trace]:
    """The traces of the energy and of all draws, without clamped sites."""
    skeleton = chains.ebm.structure.skeleton
    clamped = {(v.name, v.shape): skeleton.mask(v).ravel() for v in skeleton.variables}
    traces = [Trace("energy", (), np.zeros(1, int), chains.stats["energy"][..., None])]
    for name, array in chains.draws.items():
        if np.iscomplexobj(array):
            array = np.stack([np.real(array), np.imag(array)], axis=-1)
        shape = array.shape[2:]
        values = array.reshape(*array.shape[:2], math.prod(shape))
        mask = clamped.get((name, shape), np.zeros(1, bool))
        places = np.flatnonzero(~mask) if mask.any() else np.arange(math.prod(shape))
        traces.append(Trace(name, shape, places, values[:, :, places] if mask.any() else values))
    return [trace for trace in traces if len(trace.places)]


def _numbers(trace: Trace, seconds: float) -> dict[str, float]:
    ess = float(trace.ess.min()) if len(trace.live) else math.nan
    return {
        "entries": len(trace.places),
        "frozen": int(trace.frozen.sum()),
        "rhat": float(trace.rhat.max()) if len(trace.live) else math.nan,
        "ess": ess,
        "ess_per_second": ess / seconds,
    }


def _of_run(chains: Chains) -> Iterator[Finding]:
    count, draws = chains.stats["energy"].shape
    if chains.stopped:
        yield Finding("warning", "stopped", f"The run {chains.stopped}.")
    for lost in chains.lost:
        said = (
            f"A chain was left out: {lost}. The energy is not a number somewhere, or it is too "
            "large for floating point; the other chains only show where they did not meet it."
        )
        yield Finding("error", "lost", said)
    if draws < FEWEST:
        said = f"There are {draws} draws per chain; R-hat and ESS need {FEWEST} or more."
        yield Finding("error", "draws", said)
    if count == 1:
        said = (
            "There is only one chain, so a mode that it misses would not be noticed. Use chains=4."
        )
        yield Finding("warning", "chains", said)
    lost = no_growth(chains.ebm.structure, chains.ebm.model)
    if lost is not None:
        said = f"{lost[0].upper()}{lost[1:]}. The distribution to draw from does not exist."
        yield Finding("error", "improper", said)
    for said in lost_at_ends(chains):
        yield Finding("error", "ends", f"{said}.")
    yield from _of_steps(chains.stats)


def _of_steps(stats: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Findings from the kernel's statistics."""
    diverging = stats.get("diverging", np.zeros(1, bool))
    if diverging.any():
        said = (
            f"{int(diverging.sum()):,} of {diverging.size:,} trajectories diverged: in some region "
            "the curvature of the energy is too large for the step size, so that it is not sampled "
            "correctly. Raise the kernel's target, or choose another parametrisation."
        )
        yield Finding("warning", "diverging", said)
    rates = stats.get("acceptance_rate", np.ones(1))
    # A kernel of a mixture has a rate in the steps for which it was chosen.
    rates = rates[~np.isnan(rates)]
    if len(rates) and (rate := rates.mean()) < ACCEPTED_LOW:
        said = (
            f"Only {rate:.1%} of proposals were accepted; expected at least {ACCEPTED_LOW:.0%}. "
            "Give the kernel a smaller step, or a longer warmup to find one."
        )
        yield Finding("warning", "acceptance", said)
    yield from _of_exchange(stats)


def _of_exchange(stats: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Replica exchange helps a chain as often as a replica comes back from the hottest rung."""
    trips = stats.get("round_trips", np.zeros((1, 0)))
    if not trips.size or trips[:, -1].min() >= FEW_TRIPS:
        return
    rates = stats["swap_rate"].mean(axis=(0, 1))
    pair = int(rates.argmin())
    ladder = stats["ladder"][0, -1]
    said = (
        f"Replicas made {trips[:, -1].min()} round trips between the coldest and the hottest "
        f"temperature in some chain; expected at least {FEW_TRIPS}. The least rate of exchanges is "
        f"{rates[pair]:.2f}, between T = {ladder[pair]:.3g} and {ladder[pair + 1]:.3g}. Give more "
        "replicas, more draws, or a lower hottest temperature."
    )
    yield Finding("warning", "round_trips", said)


def _bfmi(energy: np.ndarray) -> np.ndarray:
    """E-BFMI of each chain: mean squared change of the energy per draw, over its variance."""
    import arviz as az

    with np.errstate(invalid="ignore"):
        return az.bfmi(energy.astype(float))


def _of_energy(bfmi: np.ndarray) -> Iterator[Finding]:
    low = np.flatnonzero(bfmi < BFMI_LOW)
    if len(low):
        said = (
            f"E-BFMI of the energy is {bfmi[low].min():.2f} (chains {low.tolist()}); expected "
            f"above {BFMI_LOW}. The energy changes little from draw to draw, so the tails "
            "are explored slowly: raise thin, or choose another kernel or parametrisation."
        )
        yield Finding("warning", "e_bfmi", said)


def _of_finite(trace: Trace) -> Iterator[Finding]:
    if not trace.finite.all():
        where = trace.describe(np.flatnonzero(~trace.finite))
        said = f"NaN or infinite in some draw, and left out of all other diagnostics: {where}."
        yield Finding("error", "finite", said)


def _of_trace(trace: Trace) -> Iterator[Finding]:
    yield from _of_frozen(trace)
    if len(trace.live):
        yield from _of_mixing(trace)


def _of_frozen(trace: Trace) -> Iterator[Finding]:
    split, alike = np.flatnonzero(trace.split), np.flatnonzero(trace.frozen & ~trace.split)
    if len(split):
        said = (
            f"Constant at values that differ between chains: {trace.describe(split)}. Each chain "
            "kept its initial value; use a kernel that can change it."
        )
        yield Finding("error", "frozen", said)
    # The energy of a uniform distribution is constant.
    if len(alike) and trace.name != "energy":
        said = (
            f"Constant, and equal in all chains: {trace.describe(alike)}. This does not show "
            "convergence: either the value is almost certain, or the kernel cannot change it. "
            "ebm.conditional shows which."
        )
        yield Finding("warning", "frozen", said)


def _of_mixing(trace: Trace) -> Iterator[Finding]:
    """The most serious finding: chains that disagree, nearly agree, or are too short."""
    chains, draws, _ = trace.values.shape
    bad, doubtful = (trace.live[trace.rhat > limit] for limit in (RHAT_BAD, RHAT_GOOD))
    least, enough = trace.ess.min(), ESS_PER_CHAIN * chains
    if len(bad):
        yield _of_disagreement(trace, bad)
    elif len(doubtful) > CHANCE * len(trace.live):
        said = (
            f"R-hat above {RHAT_GOOD}, up to {trace.rhat.max():.3f}: {trace.describe(doubtful)}. "
            "The chains nearly agree; take more draws."
        )
        yield Finding("warning", "rhat", said)
    elif (trace.ess < enough).mean() > CHANCE:
        said = (
            f"The bulk ESS of {trace.name} is {least:,.0f}; expected at least {enough}. "
            f"Take more draws: about draws={100 * math.ceil(draws * enough / least / 100)}."
        )
        yield Finding("warning", "ess", said)


def _of_disagreement(trace: Trace, bad: np.ndarray) -> Finding:
    idle = np.flatnonzero(~trace.moments.moved[:, bad].any(axis=1)).tolist()
    groups = trace.modes(bad)
    where = trace.describe(bad)
    if idle:
        said = f"Constant in chains {idle}, but not in the others: {where}."
        return Finding("error", "frozen", said)
    if len(groups) > 1:
        said = (
            f"Chains {' and '.join(map(str, groups))} are in different modes: {where}. No "
            "chain moves between modes, so averages weight the modes by where the chains began. "
            "Report the modes separately, or use a kernel that moves between them."
        )
        return Finding("error", "modes", said)
    said = (
        f"R-hat above {RHAT_BAD}, up to {trace.rhat.max():.2f}: {where}. The chains do not agree; "
        "give them more warmup and more draws."
    )
    return Finding("error", "rhat", said)
