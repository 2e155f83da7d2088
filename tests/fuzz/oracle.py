"""What is true of a case, by enumeration, Gaussian formulas and sums on grids, in NumPy."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from tests.fuzz.case import Case
from tests.fuzz.sites import Site

MAX_STATES = 2**12
MAX_REAL = 4
STEP = 2.0**-13
"""Of a central difference: its error, of order STEP squared, is then 1e-8."""

GRID, HALF_WIDTH = 3001, 12.0


class Ambiguous(Exception):
    """A comparison that float32 rounding may answer otherwise: the case has no one answer."""


class Law(NamedTuple):
    """The exact law of a case.

    `levels` holds each joint value of the finite free sites, a row of `states` in full
    configurations; `log_weights` minus the energies, the continuous sites integrated out.
    `gaussian` has the mean and the precision of the real free sites in each row.
    """

    states: dict[str, np.ndarray]
    log_weights: np.ndarray
    gaussian: tuple[np.ndarray, np.ndarray] | None
    error: float

    @property
    def log_z(self) -> float:
        return float(logsumexp(self.log_weights))

    @property
    def probs(self) -> np.ndarray:
        return np.exp(self.log_weights - self.log_z)


class Oracle:
    """A case's free sites, and questions about its energy."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.evidence = case.evidence()
        self.free = [s for s in case.sites if not self.evidence[s.name][0].all()]
        self.places = [
            (s, k) for s in self.free for k in np.flatnonzero(~self.evidence[s.name][0].ravel())
        ]
        self.finite = [(s, k) for s, k in self.places if s.finite or s.domain == "count"]
        self.continuous = [(s, k) for s, k in self.places if not (s.finite or s.domain == "count")]

    @property
    def state_count(self) -> float:
        return float(np.prod([float(len(s.levels)) for s, _ in self.finite]))

    def states(self) -> dict[str, np.ndarray]:
        """Every joint level of the finite free sites; continuous ones stand at 0."""
        grid = np.meshgrid(*(s.levels for s, _ in self.finite), indexing="ij")
        rows = [axis.ravel() for axis in grid]
        return self.placed(self.finite, rows, len(rows[0]) if rows else 1)

    def placed(self, places, rows, batch: int) -> dict[str, np.ndarray]:
        """Configurations with `rows` at these places, the evidence, and zeros elsewhere."""
        values = {}
        for s in self.case.sites:
            mask, held = self.evidence[s.name]
            values[s.name] = np.broadcast_to(np.where(mask, held, 0.0), (batch, *s.shape)).copy()
        for (s, k), row in zip(places, rows, strict=True):
            values[s.name].reshape(batch, -1)[:, k] = row
        return values

    def random(self, rng: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Configurations all over the domains, what is held included: it must be ignored."""
        return {s.name: s.draw(rng, batch) for s in self.case.sites}

    def energy(self, values: dict[str, np.ndarray], arrays=None) -> np.ndarray:
        """In float64."""
        number, ties = self.case.energy(values, arrays)
        if ties.unsure.any():
            raise Ambiguous
        return number.value

    def with_site(self, values: dict[str, np.ndarray], site: Site, k: int, to) -> dict:
        """The configurations, one entry of one variable set to `to`."""
        changed = values[site.name].copy()
        changed.reshape(len(changed), -1)[:, k] = to
        return {**values, site.name: changed}

    # The law.

    def law(self, arrays=None) -> Law | None:
        """The exact law where it can be had, else None."""
        if self.state_count > MAX_STATES:
            return None
        states = self.states()
        if not self.continuous:
            return Law(states, -self.energy(states, arrays), None, 0.0)
        real = all(s.domain == "real" for s, _ in self.continuous)
        if real and len(self.continuous) <= MAX_REAL:
            found = self._gaussian(states, arrays)
            if found is not None:
                return found
        if len(self.continuous) == 1 and self.state_count <= 64:
            return self._integrated(states, arrays)
        return None

    def _at(self, states: dict, points: np.ndarray, arrays) -> np.ndarray:
        """Energies (state, point) with the continuous sites at each of the points."""
        m, batch = len(points), len(next(iter(states.values())))
        values = {n: np.repeat(a, m, axis=0) for n, a in states.items()}
        for (s, k), column in zip(self.continuous, points.T, strict=True):
            values[s.name].reshape(batch * m, -1)[:, k] = np.tile(column, batch)
        return self.energy(values, arrays).reshape(batch, m)

    def _gaussian(self, states: dict, arrays) -> Law | None:
        """The law where the energy is quadratic in the real sites, as is tried at random points."""
        n = len(self.continuous)
        pairs = list(itertools.combinations(range(n), 2))
        eye = np.eye(n)
        # Many and far apart: a kink, as of |x - 2|, has some of them on either side.
        trial = np.random.default_rng(7).normal(size=(64, n)) * 4
        points = np.concatenate(
            [np.zeros((1, n)), eye, -eye, *[(eye[i] + eye[j])[None] for i, j in pairs], trial]
        )
        e = self._at(states, points, arrays)
        zero, plus, minus = e[:, 0], e[:, 1 : n + 1], e[:, n + 1 : 2 * n + 1]
        with np.errstate(invalid="ignore"):
            slope = (plus - minus) / 2
            precision = np.zeros((len(e), n, n))
            precision[:, range(n), range(n)] = plus + minus - 2 * zero[:, None]
            for c, (i, j) in enumerate(pairs):
                cross = e[:, 2 * n + 1 + c] - plus[:, i] - plus[:, j] + zero
                precision[:, i, j] = precision[:, j, i] = cross
        possible = np.isfinite(zero)
        fit = zero[:, None] + slope @ trial.T
        fit = fit + 0.5 * np.einsum("pi,sij,pj->sp", trial, precision, trial)
        gap = np.abs(fit - e[:, -len(trial) :])[possible]
        if gap.size and gap.max() > 1e-8 * (1 + np.abs(e[possible]).max()):
            return None
        log_weights = np.full(len(e), -np.inf)
        mean = np.zeros((len(e), n))
        for s in np.flatnonzero(possible):
            lowest = np.linalg.eigvalsh(precision[s])[0]
            if lowest <= 1e-6:
                raise Improper(f"a Hessian's least eigenvalue is {lowest:.3g}")
            mean[s] = -np.linalg.solve(precision[s], slope[s])
            half = np.linalg.slogdet(precision[s])[1] / 2
            peak = -zero[s] - slope[s] @ mean[s] / 2
            log_weights[s] = peak + n / 2 * np.log(2 * np.pi) - half
        return Law(states, log_weights, (mean, precision), 0.0)

    def _integrated(self, states: dict, arrays) -> Law | None:
        """The law with one continuous site, summed on a grid of its unconstrained line."""
        site = self.continuous[0][0]
        t = np.linspace(-HALF_WIDTH, HALF_WIDTH, GRID)
        if site.domain == "real":
            points, log_slope = t, np.zeros_like(t)
        elif site.domain == "positive":
            points, log_slope = np.exp(t), t
        elif site.domain == "interval":
            low, high = (dict(site.settings)[k] for k in ("low", "high"))
            share = 1 / (1 + np.exp(-3 * t))
            points = low + (high - low) * share
            log_slope = np.log(3 * (high - low) * share) - np.logaddexp(0, 3 * t)
        else:
            return None
        with np.errstate(all="ignore"):
            try:
                e = self._at(states, points[:, None], arrays)
            except Ambiguous:
                # A jump that happens to fall on a grid's point decides nothing.
                number, _ = self.case.energy(self._repeated(states, points[:, None]))
                e = number.value.reshape(-1, GRID)
            e = np.where(np.isnan(e), np.inf, e)
        fine = logsumexp(log_slope - e, axis=1) + np.log(t[1] - t[0])
        coarse = logsumexp((log_slope - e)[:, ::2], axis=1) + np.log(t[2] - t[0])
        total, rough = logsumexp(fine), logsumexp(coarse)
        beyond = _beyond(log_slope - e) + _beyond((log_slope - e)[:, ::-1])
        return Law(states, fine, None, float(abs(total - rough) + beyond) + 1e-9)

    def _repeated(self, states: dict, points: np.ndarray) -> dict:
        m, batch = len(points), len(next(iter(states.values())))
        values = {n: np.repeat(a, m, axis=0) for n, a in states.items()}
        for (s, k), column in zip(self.continuous, points.T, strict=True):
            values[s.name].reshape(batch * m, -1)[:, k] = np.tile(column, batch)
        return values

    # Derivatives.

    def slope_in(self, values: dict, name: str, direction: np.ndarray) -> np.ndarray:
        """d E / d t of each configuration, an array of the recipe moved along a direction."""
        base = self._array(name)
        return _slope(lambda t: self.energy(values, {name: base + t * direction}), STEP)

    def slope_of_log_z(self, name: str, direction: np.ndarray) -> np.ndarray:
        """d log Z / d t, likewise; NaN where log Z is out of the oracle's reach."""
        base = self._array(name)

        def log_z(t: float) -> float:
            law = self.law({name: base + t * direction})
            return np.nan if law is None else law.log_z

        return _slope(log_z, STEP)

    def _array(self, name: str) -> np.ndarray:
        array = next(a.array for a in self.case.arrays if a.name == name)
        return array.astype(np.float64)

    def slope_at(self, values: dict, site: Site, k: int) -> np.ndarray:
        """d E / d x of each configuration, at one entry of a continuous variable."""
        x = values[site.name].reshape(len(values[site.name]), -1)[:, k]
        step = STEP * np.minimum(1.0, np.abs(x) + 0.01) * 0.25
        return _slope(lambda t: self.energy(self.with_site(values, site, k, x + t)), step)

    # Laws of parts.

    def level_energies(self, values: dict, site: Site, k: int) -> np.ndarray:
        """(configuration, level): the energy with one finite site at each of its levels."""
        return np.stack(
            [self.energy(self.with_site(values, site, k, level)) for level in site.levels], 1
        )

    def free_energy(self, values: dict) -> np.ndarray | None:
        """-log of the sum over latent finite sites, at each configuration of what is shown."""
        latent = [(s, k) for s, k in self.places if s.latent]
        if not latent or any(not s.finite for s, _ in latent):
            return None
        if np.prod([float(len(s.levels)) for s, _ in latent]) > 256:
            return None
        grid = np.meshgrid(*(s.levels for s, _ in latent), indexing="ij")
        joint = np.stack([axis.ravel() for axis in grid], 1)
        energies = []
        for row in joint:
            changed = values
            for (s, k), level in zip(latent, row, strict=True):
                changed = self.with_site(changed, s, k, level)
            energies.append(self.energy(changed))
        return -logsumexp(-np.stack(energies), axis=0)


def _beyond(log_weights: np.ndarray) -> float:
    """The share of all mass before a grid, if it goes on to fall as at its first points."""
    total, last = logsumexp(log_weights), logsumexp(log_weights[:, 0])
    if np.isneginf(last):
        return 0.0
    falls = 1 - np.exp(min(last - logsumexp(log_weights[:, 1]), 0.0))
    return float(np.exp(last - total) / max(falls, 1e-3))


def _slope(function, step) -> np.ndarray:
    """A central difference; NaN where half the step says otherwise, as it does beside a kink."""
    with np.errstate(invalid="ignore"):
        wide = (function(step) - function(-step)) / (2 * step)
        half = (function(step / 2) - function(-step / 2)) / step
        return np.where(np.abs(wide - half) > 1e-5 * (1 + np.abs(half)), np.nan, half)


class Improper(Exception):
    """exp(-E) has no finite integral, as is plain from its Hessian."""
