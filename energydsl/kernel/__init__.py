"""Kernels: Markov transitions, one a file."""

from energydsl.kernel.base import AbstractEnsemble as AbstractEnsemble
from energydsl.kernel.base import AbstractKernel as AbstractKernel
from energydsl.kernel.gibbs import Gibbs as Gibbs
