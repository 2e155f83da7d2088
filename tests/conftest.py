"""Fixtures that every test may use."""

import jaxtyping
import pytest


@pytest.fixture
def untyped():
    """No annotation is checked: the package's own message answers a wrong type, as for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
