"""Fixtures that every test may use."""

import gc
import sys
from pathlib import Path

import jax
import jaxtyping
import pytest

MAX_MAPS = 20_000
"""The most memory maps that a process keeps between two files of tests. Each compiled program needs
some, and Linux allows 65,530 to a process: a process that exceeds them crashes."""

# Tracing makes many small objects and hardly any garbage: looking for it took a tenth of the time.
gc.set_threshold(200_000, 20, 50)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_freed():
    yield
    maps = Path("/proc/self/maps")
    if sys.platform == "linux" and maps.read_bytes().count(b"\n") > MAX_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def optimised(monkeypatch):
    """Programs are compiled as users compile them, for tests whose programs run for long."""
    asked = jax.config.read("jax_disable_most_optimizations")
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)  # in new processes
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", asked)


@pytest.fixture
def untyped():
    """Under `tox -e typed` too, the package's own message answers a wrong type, as for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compilations():
    """A list that grows by an entry whenever XLA compiles a program."""
    found = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)
