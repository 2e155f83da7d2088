"""`python -m tests.fuzz`: check random models against NumPy, and print what disagrees."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter

import jax

from tests.fuzz.case import HEADER, Case
from tests.fuzz.checks import Asked, Run
from tests.fuzz.generate import generate
from tests.fuzz.shrink import shrink

FALSE_ALARM = 1e-3
"""The chance that any test of draws in a whole run fails a correct package."""

PER_MODEL = 20
"""Tests of draws in one model at most: counts, and each real site."""

CLEAR = 25
"""Models between two clearings of JAX's caches, which would grow without bound."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    warnings.simplefilter("error")
    false_alarm = FALSE_ALARM / (options.models * PER_MODEL)
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    failures: dict[str, list[int]] = {}
    began, done = time.monotonic(), 0
    for seed in range(options.seed, options.seed + options.models):
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        asked = Asked() if options.all else Asked.of(seed)
        run = Run(generate(seed), asked, false_alarm=false_alarm).go()
        done += 1
        counts.update(run.counts)
        skipped.update([run.skipped] if run.skipped else [])
        for check, text in run.failures:
            _report(run.case, check, text, failures, options.shrink, asked, false_alarm)
        if done % CLEAR == 0:
            jax.clear_caches()
            rate = (time.monotonic() - began) / done
            print(f"{done} models, {rate:.2f} s each, {len(failures)} kinds of failure", flush=True)
    _summary(options.seed, done, counts, skipped, failures, time.monotonic() - began)
    return 1 if failures else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--models", type=int, default=2000, help="how many models")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first; each next one has the next"
    )
    parser.add_argument(
        "--seconds", type=float, default=0, help="stop after this time, 0 for never"
    )
    parser.add_argument("--shrink", type=float, default=60, help="seconds to shrink a new failure")
    parser.add_argument("--all", action="store_true", help="make every check on every model")
    return parser.parse_args(arguments)


def _report(
    case: Case,
    check: str,
    text: str,
    failures: dict[str, list[int]],
    seconds: float,
    asked: Asked,
    false_alarm: float,
) -> None:
    """Print a failure with its source; of one that was seen before, only its seed."""
    kind = kind_of(check, text)
    failures.setdefault(kind, []).append(case.seed)
    print(f"seed {case.seed}: {check}: {text}", flush=True)
    if len(failures[kind]) > 1:
        return

    def fails(smaller: Case) -> bool:
        try:
            run = Run(smaller, asked, false_alarm=false_alarm).go()
        except Exception:  # A part left out may leave nothing that the oracle can read.
            return False
        return any(kind_of(c, t) == kind for c, t in run.failures)

    small = shrink(case, fails, seconds) if seconds else case
    print(f"--- {kind}\n{HEADER}{small.source()}\n---", flush=True)


def kind_of(check: str, text: str) -> str:
    """What tells failures apart: an exception and who raised it, or the check that disagreed."""
    if " in " in text.split(":")[0]:
        place, _, message = text.partition(": ")
        return f"{place}: {' '.join(w for w in message.split() if w.isalpha())[:60]}"
    return f"{check}: " + " ".join(w for w in text.split() if w.isalpha())


def _summary(first, done, counts, skipped, failures, seconds) -> None:
    print(f"\nseeds {first} to {first + done - 1}: {done} models in {seconds:.0f} s")
    for reason, count in skipped.most_common():
        print(f"  {count} models not asked, {reason}")
    print(f"{sum(counts.values())} checks:")
    for name, count in counts.most_common():
        print(f"  {count:7} {name}")
    for kind, seeds in failures.items():
        print(f"FAILED {len(seeds)} times: {kind}; seeds {seeds[:20]}")
    print("no failure" if not failures else f"{len(failures)} kinds of failure")


if __name__ == "__main__":
    sys.exit(main())
