r"""Exact results for the square-lattice Ising model in zero field.

The law is $p(s) \propto \exp(K \sum_{\langle ij \rangle} s_i s_j)$. Energies are per site and in
units of $J = K\, k_B T$, that is $-\langle \sum_{\langle ij \rangle} s_i s_j \rangle / N$.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ellipkm1

CRITICAL_COUPLING = 0.5 * np.log1p(np.sqrt(2.0))


class Torus(NamedTuple):
    """What is known exactly of one finite torus at one coupling."""

    log_z: float
    energy: float  # per site, in units of J
    heat_capacity: float  # per site, in units of k_B


def kaufman(rows: int, columns: int, coupling: float) -> Torus:
    r"""The `rows` x `columns` torus with coupling $K > 0$; both sides at least 2.

    Each site is bonded to its right and lower neighbour, so that a side of 2 has double bonds.
    Mean energy and heat capacity are $-\partial_K \log Z / N$ and $K^2 \partial_K^2 \log Z / N$,
    the derivatives by Cauchy's formula on a circle that keeps clear of the zeros of $Z$, which
    lie about 1 / side away from the real axis.

    Source: Kaufman (1949), Phys. Rev. 76, 1232; Ferdinand & Fisher (1969), Phys. Rev. 185, 832.
    """
    radius = 0.1 * min(coupling, 1 / max(rows, columns))
    circle = np.exp(2j * np.pi * np.arange(16) / 16)
    values = _log_z(rows, columns, coupling + radius * circle)
    slope = np.mean(values / circle).real / radius
    curvature = 2 * np.mean(values / circle**2).real / radius**2

    sites = rows * columns
    log_z = _log_z(rows, columns, np.array([coupling + 0j]))[0].real
    return Torus(float(log_z), float(-slope / sites), float(coupling**2 * curvature / sites))


def _log_z(rows, columns, coupling):
    r"""Kaufman's $\log Z$, analytic in the complex coupling.

    $Z = \frac12 (2 \sinh 2K)^{nm/2} \sum_i Z_i$, where the $Z_i$ are products over modes $r$ of
    $2\cosh$ or $2\sinh(m \gamma / 2)$, with $\gamma_{2r+1}$ or $\gamma_{2r}$ and
    $\cosh \gamma_r = \cosh 2K \coth 2K - \cos(\pi r / n)$. Half angles keep $\gamma$ accurate
    where it is small; $\gamma_0$ changes sign at the critical coupling.
    """
    s = np.sinh(2 * coupling)[:, None]
    gap = (s - 1) / np.sqrt(2 * s)
    angle = np.pi * np.arange(2 * rows) / rows
    gamma = 2 * np.arcsinh(np.sqrt(gap**2 + np.sin(angle / 2) ** 2))
    gamma[:, 0] = 2 * np.arcsinh(gap[:, 0])

    even, odd = columns * gamma[:, ::2] / 2, columns * gamma[:, 1::2] / 2
    terms = np.stack([_log_2cosh(odd), _log_2sinh(odd), _log_2cosh(even), _log_2sinh(even)]).sum(-1)
    total = terms[0] + np.log(np.exp(terms - terms[0]).sum(0))
    return total - np.log(2) + rows * columns / 2 * np.log(2 * s[:, 0])


def _log_2cosh(x):
    x = np.where(x.real < 0, -x, x)
    return x + np.log1p(np.exp(-2 * x))


def _log_2sinh(x):
    """A logarithm whose exponential is 2 sinh(x), of either sign."""
    negative = x.real < 0
    x = np.where(negative, -x, x)
    with np.errstate(divide="ignore"):  # sinh(0): a term that is exactly zero
        return x + np.log(-np.expm1(-2 * x)) + np.where(negative, 1j * np.pi, 0)


def onsager_energy(coupling: float) -> float:
    r"""Mean energy per site of the infinite lattice, in units of $J$.

    $-\coth 2K\,[1 + \frac2\pi (2\tanh^2 2K - 1)\, K_1(k)]$ with $k = 2\sinh 2K / \cosh^2 2K$, whose
    complementary modulus is $k' = 2\tanh^2 2K - 1$.

    Source: Onsager (1944), Phys. Rev. 65, 117.
    """
    modulus = 2 * np.tanh(2 * coupling) ** 2 - 1
    # The integral grows like log(1 / modulus): at the critical point the product vanishes.
    integral = ellipkm1(max(modulus**2, np.finfo(float).tiny))
    return float(-(1 + 2 / np.pi * modulus * integral) / np.tanh(2 * coupling))


def yang_magnetisation(coupling: float) -> float:
    r"""Spontaneous magnetisation $(1 - \sinh^{-4} 2K)^{1/8}$, zero up to the critical coupling.

    Source: Yang (1952), Phys. Rev. 85, 808.
    """
    return float(max(0.0, 1 - np.sinh(2 * coupling) ** -4.0) ** 0.125)
