"""Variables of a random model: a domain, a shape, and how values of it are drawn."""

from __future__ import annotations

import dataclasses

import numpy as np

FINITE = ("spin", "binary", "categorical", "integer")
CONTINUOUS = ("real", "positive", "interval", "simplex", "positive_definite")
COUNTS = 40
"""Levels of a count that the oracle sums: the energies grow so fast that the rest do not tell."""


@dataclasses.dataclass(frozen=True)
class Site:
    """A variable, as the recipe knows it."""

    name: str
    domain: str
    shape: tuple[int, ...]
    settings: tuple[tuple[str, float], ...] = ()
    latent: bool = False

    @property
    def finite(self) -> bool:
        return self.domain in FINITE

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def levels(self) -> np.ndarray:
        settings = dict(self.settings)
        if self.domain == "spin":
            return np.array([-1, 1])
        if self.domain == "binary":
            return np.array([0, 1])
        if self.domain == "categorical":
            return np.arange(settings["levels"])
        if self.domain == "count":
            return np.arange(COUNTS)
        return np.arange(settings["low"], settings["high"] + 1)

    def source(self) -> str:
        parts = [repr(self.name)] + [repr(self.shape)] * bool(self.shape)
        parts += [f"{k}={v!r}" for k, v in self.settings] + ["latent=True"] * self.latent
        return f"{self.name} = ed.{self.domain}({', '.join(parts)})"

    def draw(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """Values all over the domain, in float32's numbers."""
        shape = (batch, *self.shape)
        if self.finite or self.domain == "count":
            levels = self.levels if self.finite else self.levels[:5]
            return rng.choice(levels, shape)
        if self.domain == "real":
            value = rng.normal(size=shape) * 1.5
        elif self.domain == "positive":
            value = np.exp(rng.normal(size=shape) * 0.7)
        elif self.domain == "interval":
            low, high = (dict(self.settings)[k] for k in ("low", "high"))
            value = low + (high - low) * rng.uniform(0.02, 0.98, shape)
        elif self.domain == "simplex":
            value = rng.dirichlet(np.full(self.shape[-1], 2.0), (batch, *self.shape[:-1]))
        else:
            root = rng.normal(size=shape) * 0.5
            value = root @ root.swapaxes(-1, -2) + np.eye(self.shape[-1])
        return value.astype(np.float32).astype(np.float64)
