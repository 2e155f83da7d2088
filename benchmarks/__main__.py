"""Run the benchmarks named on the command line, or all of them."""

import importlib
import sys

from benchmarks.measure import table

NAMES = ("startup", "scale", "gibbs", "gradients", "elimination", "learning", "blocks")


def main(names: list[str]) -> int:
    """Run benchmarks and print their table; the exit status is the number of missed limits."""
    unknown = set(names) - set(NAMES)
    if unknown:
        print(f"Unknown benchmarks {sorted(unknown)}; expected some of {', '.join(NAMES)}.")
        return 2
    rows = []
    for name in names or NAMES:
        rows += importlib.import_module(f"benchmarks.{name}").rows()
    print(table(rows))
    return sum("MISSED" in row.verdict for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
