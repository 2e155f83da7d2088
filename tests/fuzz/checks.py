"""What is asked of a case, and compared with the oracle."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats

import energydsl as ed
from energydsl.normalizer.quadrature.integrand import dimensions
from tests.fuzz import optional
from tests.fuzz.arrays import COMPARISONS
from tests.fuzz.case import Case
from tests.fuzz.compare import Failure, agree, require, typed
from tests.fuzz.oracle import Ambiguous, Improper, Oracle
from tests.fuzz.recipe import positions_of, site_of, walk
from tests.fuzz.rounded import EPSILON
from tests.fuzz.sites import Site
from tests.oracles.enumerate import chisquare_pvalue

CONFIGURATIONS, FEW = 24, 6
"""Configurations at which energies are compared, and other, dearer things."""

MAX_TEXT = 250_000
CHAINS = 20_000


class Asked(NamedTuple):
    """Which of the dearer checks are made: each compiles programs of its own."""

    explain: bool = True
    slopes: bool = True
    eager: bool = True
    draws: bool = True

    @staticmethod
    def of(seed: int) -> Asked:
        """Every second, third, eighth and tenth model."""
        return Asked(seed % 2 == 0, seed % 3 == 0, seed % 8 == 0, seed % 10 == 0)


class Run:
    """One case, checked: what was counted, and what failed."""

    def __init__(self, case: Case, asked: Asked, *, false_alarm: float) -> None:
        self.case, self.asked, self.false_alarm = case, asked, false_alarm
        self.counts: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self.skipped: str | None = None
        self.rng = np.random.default_rng([7, case.seed])

    def go(self) -> Run:
        try:
            with np.errstate(all="ignore"):
                self._go()
        except Ambiguous:
            self.skipped = "ambiguous: float32 may answer a comparison otherwise"
        return self

    def _go(self) -> None:
        self.oracle = oracle = Oracle(self.case)
        improper, self.law = None, None
        try:
            self.law = oracle.law() if oracle.free else None
        except Improper as error:
            improper = error
        if self.law is not None and not np.isfinite(self.law.log_z):
            self.skipped = "empty: every state is forbidden"
            return
        self.values = self._values()
        self.number, self.ties = self.case.energy(self.values)
        if self.ties.unsure.any():
            raise Ambiguous
        self.names = self.check("build", self.case.build)
        if self.names is None:
            return
        self.check("text", self.text)
        if improper is not None:
            self.check("improper is refused", self.improper)
        elif not oracle.free:
            self.check("nothing free is refused", self.nothing_free)
        else:
            self.ebm = self.check("compile", lambda: self.case.compile(self.names["model"]))
            if self.ebm is not None:
                self.compiled()

    def compiled(self) -> None:
        self.xs = self.shown(self.values)
        if self.asked.explain:
            self.check("explain", self.explain)
        self.answers = self.check("jit", self.answer)
        if self.answers is not None:
            for name, (answer, compare) in self.answers.items():
                self.check(name, lambda a=answer, c=compare: c(a))
        self.check("log Z", self.log_z)
        if self.asked.eager:
            self.check("check", self.placed)
            self.check("outside jit", self.outside_jit)
        if self.law is not None and isinstance(self.ebm.normalizer, ed.Exact):
            if optional.MARGINALS is not None:
                self.check("marginals", self.marginals)
            if optional.MODE is not None:
                self.check("mode", self.mode)
        if self.asked.draws and self.law is not None:
            self.check("draws", self.one_step)
            if optional.EXACT_DRAWS is not None:
                self.check("exact draws", self.exact_draws)

    def check(self, name: str, question: Callable[[], Any]) -> Any:
        """Ask, count, and note what was wrong; None where it was."""
        self.counts[name] += 1
        try:
            answer = question()
            return True if answer is None else answer
        except Ambiguous:
            raise
        except Failure as error:
            self.failures.append((name, str(error)))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rsplit('/', 2)[-1]}:{where.name}"
            text = str(error).splitlines()[0] if str(error) else ""
            self.failures.append((name, f"{type(error).__name__} in {place}: {text[:300]}"))
        return None

    # Configurations.

    def _values(self) -> dict[str, np.ndarray]:
        """Configurations all over the domains; where the law is known, of its support."""
        values = self.oracle.random(self.rng, CONFIGURATIONS)
        if self.law is not None:
            rows = self.rng.choice(len(self.law.probs), CONFIGURATIONS, p=self.law.probs)
            for s, k in self.oracle.finite:
                drawn = self.law.states[s.name][rows].reshape(CONFIGURATIONS, -1)[:, k]
                values[s.name].reshape(CONFIGURATIONS, -1)[:, k] = drawn
        return values

    def shown(self, values: dict[str, np.ndarray], count: int | None = None) -> dict[str, Any]:
        """What the package is given: the free variables in their own dtypes."""
        return {s.name: typed(s, values[s.name][:count]) for s in self.oracle.free}

    def first(self, count: int) -> dict[str, np.ndarray]:
        return {n: a[:count] for n, a in self.values.items()}

    # Checks.

    def text(self) -> None:
        text = str(self.names["model"])
        require(text == repr(self.names["model"]), "str and repr differ")
        require(len(text) < MAX_TEXT, f"str(model) has {len(text)} characters")
        require(all(s.name in text for s in self.case.sites), "a variable is not in str(model)")

    def improper(self) -> None:
        try:
            ebm = self.case.compile(self.names["model"])
            found = ed.log_partition(ebm)
        except (ValueError, ed.IntractableError):
            return
        raise Failure(f"log Z = {found} of a model whose exp(-E) has no finite integral")

    def nothing_free(self) -> None:
        try:
            self.case.compile(self.names["model"])
        except ValueError:
            return
        raise Failure("compiled with every site clamped")

    def explain(self) -> None:
        explanation = self.ebm.explain()
        require(len(str(explanation)) < MAX_TEXT, "explain() is too long")
        require(bool(explanation.as_dict()) and bool(repr(self.ebm)), "explain() is empty")

    def placed(self) -> None:
        """`ebm.check` takes a configuration and puts the evidence in its place."""
        found = self.ebm.check({n: a[0] for n, a in self.xs.items()})
        evidence = self.oracle.evidence
        for s in self.oracle.free:
            expected = np.where(*evidence[s.name], self.values[s.name][0])
            require(np.array_equal(found[s.name], expected), f"check moved {s.name}")

    def answer(self) -> dict[str, tuple[Any, Callable[[Any], None]]]:
        """All that one program can answer, each with its comparison."""
        questions = self.questions()
        leaves, rebuild = _leaves(self.ebm)
        asked = {n: q for n, (q, _) in questions.items()}
        refused: dict[str, Exception] = {}

        def all_of(leaves, xs):
            found = {}
            for name, question in asked.items():
                try:
                    found[name] = question(rebuild, leaves, xs)
                except Exception as error:
                    refused[name] = error
            return found

        found = jax.device_get(jax.jit(all_of)(leaves, self.xs))
        result = {}
        for name, (_, compare) in questions.items():
            if name in refused:
                result[name] = (refused[name], _unless_refused(name))
            else:
                result[name] = (found[name], compare)
        return result

    def questions(self) -> dict[str, tuple[Callable, Callable]]:
        def of_ebm(function, count: int | None = None):
            def ask(rebuild, leaves, xs):
                ebm = rebuild(leaves)
                return jax.vmap(lambda x: function(ebm, x))({n: a[:count] for n, a in xs.items()})

            return ask

        def slopes(rebuild, leaves, xs):
            few = {n: a[:FEW] for n, a in xs.items()}
            grad = jax.grad(lambda p, x: rebuild(p).energy(x))
            return jax.vmap(grad, (None, 0))(leaves, few)

        def ratio(rebuild, leaves, xs):
            ebm, other = rebuild(leaves), {n: jnp.roll(a, 1, 0) for n, a in xs.items()}
            return jax.vmap(ebm.log_ratio)(xs, other)

        found = {
            "energy": (of_ebm(lambda ebm, x: ebm.energy(x)), self.energy),
            "log ratio": (ratio, self.log_ratio),
            "gradient in parameters": (slopes, self.slopes),
        }
        if any(s.domain not in ("spin", "binary", "categorical", "integer", "count")
               for s in self.oracle.free):  # fmt: skip
            found["score"] = (of_ebm(lambda ebm, x: ebm.score(x), FEW), self.score)
        for s in self.oracle.free:
            where, positions = s.name, np.arange(s.size).reshape(s.shape)
            found[f"conditional of {s.domain}"] = self.conditional(s, where, positions)
        view = self.case.view
        if view is not None and site_of(view).name in {s.name for s in self.oracle.free}:
            where, positions = self.names["view"], positions_of(view)
            found["conditional of a view"] = self.conditional(site_of(view), where, positions)
        latent = [s.name for s in self.oracle.free if s.latent]
        if latent and len(latent) < len(self.oracle.free):

            def free_energy(ebm, x):
                return ebm.free_energy({n: a for n, a in x.items() if n not in latent})

            found["free energy"] = (of_ebm(free_energy, FEW), self.free_energy)
        return found

    def energy(self, found: np.ndarray) -> None:
        agree(found, self.number.value, self.number.tolerance())

    def log_ratio(self, found: np.ndarray) -> None:
        e, tolerance = self.number.value, self.number.tolerance()
        agree(found, np.roll(e, 1) - e, np.roll(tolerance, 1) + tolerance)

    def slack(self, count: int) -> np.ndarray:
        """What rounding may do to a derivative, judged by what it does to the energy."""
        return 1e-5 + 64 * EPSILON * (self.number.error[:count] + 1)

    def directions(self):
        """Each array that is a leaf of the EBM, a direction in it, its leaf and that one's sign."""
        leaves = [np.asarray(a) for a in _leaves(self.ebm)[0]]
        for a in self.case.arrays:
            others = [b.array for b in self.case.arrays if b is not a]
            equal = [
                (number, sign)
                for number, leaf in enumerate(leaves)
                for sign in (1, -1)
                if leaf.shape == a.shape and np.array_equal(leaf, sign * a.array)
            ]
            # Leaves are known by their values: also a number of the energy may have the same one.
            told_apart = not any(np.array_equal(abs(b), abs(a.array)) for b in others)
            if told_apart and a.size and len({number for number, _ in equal}) == 1:
                finite = np.isfinite(a.array)
                direction = np.where(finite, self.rng.normal(size=a.shape), 0.0)
                yield a, direction, *equal[0]

    def slopes(self, found: list[np.ndarray]) -> None:
        for a, direction, number, sign in self.directions():
            expected = self.oracle.slope_in(self.first(FEW), a.name, direction)
            slope = sign * (found[number] * direction).reshape(FEW, -1).sum(1)
            expected = np.where(self.ties.kink[:FEW], np.nan, expected)
            tolerance = self.slack(FEW) * (1 + np.abs(direction).sum()) + 1e-4 * np.abs(expected)
            agree(slope, expected, tolerance, f"d E / d {a.name}")
            self.counts["slopes in one array"] += 1

    def score(self, found: dict[str, np.ndarray]) -> None:
        names = {s.name for s in self.oracle.free if s.name in found}
        for s, k in self.oracle.continuous:
            require(s.name in names, f"score has no {s.name}")
            expected = -self.oracle.slope_at(self.first(FEW), s, k)
            expected = np.where(self.ties.kink[:FEW], np.nan, expected)
            tolerance = self.slack(FEW) * 4 + 1e-3 * np.abs(expected)
            agree(found[s.name].reshape(FEW, -1)[:, k], expected, tolerance, f"{s.name}[{k}]")

    def conditional(self, s: Site, where, positions: np.ndarray) -> tuple[Callable, Callable]:
        """The question and its comparison, at every free site that is shown."""
        if s.finite:

            def ask_law(ebm, x):
                law = ebm.conditional(where, x)
                require(law.batch_shape == positions.shape, f"batch {law.batch_shape}")
                return law.probs
        else:
            at = [typed(s, s.draw(np.random.default_rng(3 + k), 1)[0]) for k in range(2)]
            at = [jnp.ravel(a)[positions] for a in at]

            def ask_law(ebm, x):
                law = ebm.conditional(where, x)
                return law.log_prob(at[0]) - law.log_prob(at[1])

        def ask(rebuild, leaves, xs):
            ebm = rebuild(leaves)
            return jax.vmap(lambda x: ask_law(ebm, x))({n: a[:FEW] for n, a in xs.items()})

        def compare(found: np.ndarray) -> None:
            free = ~self.oracle.evidence[s.name][0].ravel()
            # The measures of a conditional cancel as the energies do.
            tolerance = 4 * self.number.tolerance()[:FEW] + 1e-5
            levels = (found.shape[-1],) if s.finite else ()
            flat = found.reshape(FEW, positions.size, *levels)
            for p, k in enumerate(positions.ravel()):
                if free[k] and s.finite:
                    energies = self.oracle.level_energies(self.first(FEW), s, int(k))
                    expected = np.exp(energies.min(1, keepdims=True) - energies)
                    expected /= expected.sum(1, keepdims=True)
                    agree(flat[:, p], expected, tolerance[:, None], f"{s.name}[{k}]")
                elif free[k]:
                    e = [
                        self.oracle.energy(
                            self.oracle.with_site(self.first(FEW), s, int(k), float(a.ravel()[p]))
                        )
                        for a in map(np.asarray, at)
                    ]
                    spread = tolerance * 4 + 1e-4 * np.abs(e[0] - e[1])
                    agree(flat[:, p], e[1] - e[0], spread, f"{s.name}[{k}]")

        return ask, compare

    def free_energy(self, found: np.ndarray) -> None:
        expected = self.oracle.free_energy(self.first(FEW))
        if expected is not None:
            expected = np.where(np.isinf(expected), np.nan, expected)
            agree(found, expected, 4 * self.number.tolerance()[:FEW] + 2e-5)
            self.counts["free energy compared"] += 1

    def log_z(self) -> None:
        if isinstance(self.ebm.normalizer, ed.Intractable):
            try:
                found = ed.log_partition(self.ebm)
            except ed.IntractableError:
                self.counts["log Z refused"] += 1
                finite = self.law is not None and not self.oracle.continuous
                count = any(s.domain == "count" for s in self.oracle.free)
                reachable = finite and self.case.budget is None and not count
                require(not reachable, f"refused beside {self.oracle.state_count:.0f} states")
                return
            raise Failure(f"{found} of an intractable model")
        try:
            found = ed.log_partition(self.ebm)
        except ValueError as error:
            # Quadrature in two dimensions may not settle where the energy jumps along a line, in
            # three dimensions it may not settle anywhere, and a density with poles may hold mass
            # where float64 has no numbers.
            hard = self.jumps or dimensions(self.ebm.structure).max() == 3
            unsettled = "did not settle" in str(error) and hard
            require(unsettled or "numbers that float64 holds" in str(error), str(error))
            self.counts["log Z refused"] += 1
            return
        require(np.isfinite(found), f"log Z = {found}")
        if self.law is None:
            return
        self.counts["log Z compared"] += 1
        closed = self.law.error == 0
        tolerance = 1e-6 * (1 + abs(self.law.log_z)) if closed else 1e-3 + 10 * self.law.error
        agree(found, self.law.log_z, tolerance)
        if self.asked.slopes and closed:
            self.check("gradient of log Z", self.slopes_of_log_z)
        if self.asked.eager:
            self.check("log prob", self.log_prob)

    @property
    def jumps(self) -> bool:
        """Whether the energy compares values, beside two real coordinates or more."""
        compares = any(getattr(n, "name", None) in COMPARISONS for n in walk(*self.case.body.terms))
        return compares and len(self.oracle.continuous) > 1

    def slopes_of_log_z(self) -> None:
        wanted = list(self.directions())
        if not wanted:
            return
        leaves, rebuild = _leaves(self.ebm)
        found = jax.jit(jax.grad(lambda p: ed.log_partition(rebuild(p))))(leaves)
        for a, direction, number, sign in wanted:
            expected = self.oracle.slope_of_log_z(a.name, direction)
            slope = sign * np.sum(np.asarray(found[number], float) * direction)
            agree(slope, expected, 2e-5 * (1 + np.abs(direction).sum()), f"d log Z / d {a.name}")
            self.counts["slopes of log Z in one array"] += 1

    def log_prob(self) -> None:
        x = {n: a[0] for n, a in self.xs.items()}
        expected = -self.number.value[0] - self.law.log_z
        rough = 1e-3 + 10 * self.law.error if self.law.error else 1e-5 * (1 + abs(expected))
        agree(self.ebm.log_prob(x), expected, self.number.tolerance()[0] + rough)

    def outside_jit(self) -> None:
        """What users call by hand must not trip over a check of values."""
        x = {n: a[0] for n, a in self.xs.items()}
        agree(self.ebm.energy(x), self.number.value[0], self.number.tolerance()[0])
        for s in self.oracle.free:
            if s.finite and np.isfinite(self.number.value[0]):
                probs = np.asarray(self.ebm.conditional(s.name, x).probs)
                require(np.isfinite(probs).all(), f"conditional of {s.name} is {probs}")

    # Laws.

    def marginals(self) -> None:
        try:
            ed.marginals(self.ebm)
        except ed.IntractableError:
            self.counts["marginals refused"] += 1
            return
        probs = self.law.probs
        for s in self.oracle.free:
            if not s.finite:
                continue
            found = np.asarray(optional.marginal_probabilities(self.ebm, s.name), float)
            require(found.shape == (*s.shape, len(s.levels)), f"{s.name}: shape {found.shape}")
            flat, free = found.reshape(s.size, -1), ~self.oracle.evidence[s.name][0].ravel()
            states = self.law.states[s.name].reshape(len(probs), -1)
            for k in np.flatnonzero(free):
                expected = [probs[states[:, k] == level].sum() for level in s.levels]
                tolerance = 1e-5 if self.law.error == 0 else 1e-3 + 10 * self.law.error
                agree(flat[k], np.array(expected), tolerance, f"{s.name}[{k}]")

    def mode(self) -> None:
        try:
            x, proven = optional.mode(self.ebm)
        except ed.IntractableError:
            self.counts["mode refused"] += 1
            return
        if self.oracle.continuous or not proven:
            return
        values = {s.name: np.asarray(x[s.name], float)[None] for s in self.oracle.free}
        values = {**self.oracle.random(self.rng, 1), **values}
        best = -self.law.log_weights.max()
        agree(self.oracle.energy(values)[0], best, 1e-5 * (1 + abs(best)))

    def exact_starts(self) -> dict[str, np.ndarray]:
        """Independent draws of the law: configurations of all variables."""
        rows = self.rng.choice(len(self.law.probs), CHAINS, p=self.law.probs)
        values = {n: a[rows] for n, a in self.law.states.items()}
        if self.law.gaussian is not None:
            mean, precision = (a[rows] for a in self.law.gaussian)
            root = np.linalg.cholesky(precision)
            noise = self.rng.normal(size=mean.shape)
            drawn = mean + np.linalg.solve(root.swapaxes(1, 2), noise[..., None])[..., 0]
            for (s, k), column in zip(self.oracle.continuous, drawn.T, strict=True):
                values[s.name].reshape(CHAINS, -1)[:, k] = column
        return values

    def one_step(self) -> None:
        """One step of the default kernel from exact draws leaves the law as it was."""
        if self.law.gaussian is None and self.oracle.continuous:
            return
        values = self.exact_starts()
        start = {n: np.asarray(a) for n, a in self.shown(values).items()}
        kernel = None if self.ebm.sweep is None else ed.Gibbs()
        chains = ed.sample(
            self.ebm, kernel, key=jr.key(self.case.seed), chains=CHAINS, warmup=0, draws=1,
            start=start, progress=False,
        )  # fmt: skip
        after = {**values, **{n: np.asarray(a[:, 0], float) for n, a in chains.draws.items()}}
        self.counts["draws compared"] += 1
        self.follows(after)
        energy, _ = self.case.energy(after)
        agree(chains.stats["energy"][:, 0], energy.value, energy.tolerance(), "stats['energy']")
        if kernel is not None and self.law.gaussian is None:
            self.moved(values, after)

    def exact_draws(self) -> None:
        if self.law.gaussian is None and self.oracle.continuous:
            return
        try:
            chains = ed.sample(
                self.ebm, optional.EXACT_DRAWS(), key=jr.key(self.case.seed), chains=CHAINS,
                warmup=0, draws=1, progress=False,
            )  # fmt: skip
        except (TypeError, ValueError, ed.IntractableError):
            self.counts["exact draws refused"] += 1
            return
        after = {n: np.asarray(a[:, 0], float) for n, a in chains.draws.items()}
        self.follows({**self.exact_starts(), **after})

    def follows(self, after: dict[str, np.ndarray]) -> None:
        """Draws follow the law: finite sites by counts, real ones by their standardised values."""
        for s in self.oracle.free:
            mask, held = self.oracle.evidence[s.name]
            kept = after[s.name][:, mask] == held[mask]
            require(bool(kept.all()), f"a clamped site of {s.name} moved")
        index = np.zeros(CHAINS, int)
        for s, k in self.oracle.finite:
            column = after[s.name].reshape(CHAINS, -1)[:, k]
            require(bool(np.isin(column, s.levels).all()), f"{s.name}[{k}] left its domain")
            level = np.searchsorted(s.levels, column)
            index = index * len(s.levels) + level
        probs = self.law.probs
        counts = np.bincount(index, minlength=len(probs))
        require(not counts[probs == 0].any(), "a forbidden state was drawn")
        if np.sort(probs)[::-1][1:].sum() * CHAINS > 50:
            pvalue = chisquare_pvalue(counts, probs, CHAINS)
            require(pvalue > self.false_alarm, f"one step changed the law: p = {pvalue:.1e}")
        if self.law.gaussian is not None:
            mean, precision = (a[index] for a in self.law.gaussian)
            x = np.stack(
                [after[s.name].reshape(CHAINS, -1)[:, k] for s, k in self.oracle.continuous], 1
            )
            root = np.linalg.cholesky(precision)
            noise = (root.swapaxes(1, 2) @ (x - mean)[..., None])[..., 0]
            for column in noise.T:
                pvalue = scipy.stats.kstest(column, "norm").pvalue
                require(pvalue > self.false_alarm, f"one step moved a real site: p = {pvalue:.1e}")

    def moved(self, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
        """A site that Gibbs redraws changes as often as its conditional says."""
        for s, k in self.oracle.finite:
            states = self.law.states
            energies = self.oracle.level_energies(states, s, k)
            conditional = np.exp(energies.min(1, keepdims=True) - energies)
            conditional /= conditional.sum(1, keepdims=True)
            own = np.searchsorted(s.levels, states[s.name].reshape(len(energies), -1)[:, k])
            stay = np.take_along_axis(conditional, own[:, None], 1)[:, 0]
            expected = CHAINS * float(np.nansum(self.law.probs * (1 - stay)))
            column = [v[s.name].reshape(CHAINS, -1)[:, k] for v in (before, after)]
            changes = int((column[0] != column[1]).sum())
            # Fewer than none is e^-30 likely.
            require(changes > 0 or expected < 30, f"{s.name}[{k}] never moved")


def _unless_refused(name: str) -> Callable[[Any], None]:
    """An exception is an answer only where the package says that it may be one."""

    def compare(error: Exception) -> None:
        conditional = name.startswith("conditional") and isinstance(error, TypeError)
        finite = any(f in name for f in ("spin", "binary", "categorical", "integer"))
        if conditional and not finite and "conditional of" in str(error):
            return
        if name == "free energy" and isinstance(error, ed.IntractableError):
            return
        raise error

    return compare


def _leaves(ebm: Any) -> tuple[list[jax.Array], Callable]:
    """The float arrays of an EBM, and the way back."""
    floats, rest = eqx.partition(ebm, eqx.is_inexact_array)
    leaves, shape = jax.tree.flatten(floats)
    return leaves, lambda new: eqx.combine(jax.tree.unflatten(shape, new), rest)
