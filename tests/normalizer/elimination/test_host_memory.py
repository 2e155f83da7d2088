"""What planning takes of the host's memory, under a limit that the system enforces."""

import subprocess
import sys

import pytest

LIMITED = """
import resource
import numpy as np
import energydsl as ed
from energydsl.normalizer.elimination.schedule import CELLS, schedule
from energydsl.normalizer.elimination.steps import Steps

pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**31
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


def run(code: str) -> str:
    """What a process prints that may take two gigabytes beside what is imported."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED + code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_index_arrays_of_irregular_wide_steps_stay_small_and_those_of_many_levels_are_refused():
    said = run("""
# A band of 250 sites of random levels: some 230 different steps of up to 2^29 states.
levels, width = np.random.default_rng(0).integers(2, 6, 250).tolist(), 14
scopes = [(k, k + d) for d in (1, width) for k in range(250 - d)]
separators = [range(k + 1, min(250, k + 1 + width)) for k in range(250)]
steps = Steps(scopes, range(250), separators, levels)
starts = CELLS + np.arange(len(scopes)) * 25
alone, made = schedule(steps, starts, int(starts[-1]) + 25)
print(sum(run.layout is not None for run in made.runs) > 200, made.arena > 2**30)

# Every step of four sites of 150 levels is one gather of 2^29 cells.
c = ed.categorical("c", 7, levels=150)
pairs = np.array([(i + k, j + k) for k in (0, 3) for i in range(4) for j in range(i)])
agree = 1.0 * (c[pairs[:, 0]] == c[pairs[:, 1]])
print(ed.compile(ed.Model(agree.sum()), budget=33, memory=2**28).normalizer)
""")
    band, refused = said.splitlines()
    assert band == "True True"
    assert "of memory; budget" in refused.split("elimination: ")[1]
