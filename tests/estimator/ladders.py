"""Draws at a ladder of temperatures from laws whose free energies are known, without chains."""

import numpy as np

from energydsl.estimator.tempered import Tempered


def exponential(rng, betas, rate=0.5, chains=40, draws=500):
    """Gaps that are exponential at the base, with rate + beta at beta.

    The model's log Z is log rate - log(rate + 1): its Z is the mean of exp(-g) at the base.
    """
    scales = 1 / (rate + np.asarray(betas))
    gaps = rng.exponential(size=(len(betas), chains, draws)) * scales[:, None, None]
    return Tempered(np.asarray(betas), gaps, np.ones(gaps.shape, bool), 0.0), -np.log1p(1 / rate)


def normal(rng, betas, mean=3.0, sd=1.0, chains=40, draws=50):
    """Gaps that are normal at the base, and of mean lower by beta sd^2 at beta."""
    noise = rng.normal(size=(len(betas), chains, draws)) * sd
    gaps = mean - np.asarray(betas)[:, None, None] * sd**2 + noise
    return Tempered(np.asarray(betas), gaps, np.ones(gaps.shape, bool), 0.0), sd**2 / 2 - mean


def without(tempered, chain):
    """The same draws without those of one chain."""
    gaps, allowed = (np.delete(a, chain, axis=1) for a in (tempered.gaps, tempered.allowed))
    return Tempered(tempered.betas, gaps, allowed, tempered.log_base)
