"""One rule by name, on a model: its log Z where it applies to every component, and its memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energydsl as ed
from energydsl.analysis.evaluation import as_double
from energydsl.normalizer import RULES, Budget, Intractable, error_of, evaluate, log_partition_of
from energydsl.normalizer.base import planned
from energydsl.normalizer.quadrature.rule import _integrals


def rule(name):
    return next(r for r in RULES if r.name == name)


def reason(ebm, name, component=0, question="log_partition"):
    return rule(name).offer(ebm.structure).refusal(component, question, Budget())


def applies(ebm, name, question="log_partition"):
    components = range(len(ebm.structure.component_sizes))
    return all(reason(ebm, name, c, question) is None for c in components)


def plans(ebm, name, budget=None):
    """This rule alone, as a normalizer."""
    budget = budget or Budget()
    components = np.arange(len(ebm.structure.component_sizes))
    offer = rule(name).offer(ebm.structure)
    offer = offer.within(budget) if offer.within else offer
    return planned(ebm.structure, offer.plan(components), budget)


def value(ebm, name):
    """log Z by this rule alone, in float64."""
    return float(log_partition_of(ebm.model, plans(ebm, name), np.dtype(np.float64)))


def error(ebm, name):
    """The numerical error that this rule alone claims."""
    return error_of(ebm.model, plans(ebm, name))


def integral(ebm):
    """log Z by quadrature, NaN where it is refused, and the error it claims, by one program."""
    components = tuple(range(len(ebm.structure.component_sizes)))
    with jax.enable_x64(True):
        parts = _integrals(ebm.structure, as_double(ebm.model), components)
    total, error = (
        np.concatenate(found).sum() for found in zip(*(p[:2] for p in parts), strict=True)
    )
    return float(total), float(error)


def chosen(ebm):
    assert not isinstance(ebm.normalizer, Intractable), str(ebm.normalizer)
    return {plan.rule.name for plan in ebm.normalizer.plans}


class Logistic(ed.AbstractPotential):
    """A user's own density: normalised, without draws."""

    event_ndims = (0,)

    def energy(self, x):
        return x + 2 * jnp.logaddexp(0.0, -x)

    def normalised(self, domain, shape):
        return True


def memory(ebm, normalizer=None, *, derivatives=True):
    """Bytes that log Z takes with its gradient, as XLA lays them out: nothing is run."""
    with jax.enable_x64(True):
        function = evaluate._log_partition
        program = eqx.filter_jit(eqx.filter_grad(function)) if derivatives else function
        lowered = program.lower(ebm.model, normalizer or ebm.normalizer).compile().compiled
    found = lowered.memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes
