"""One rule by name, on a model: its log Z where it applies to every component."""

import jax
import numpy as np

import energydsl as ed
from energydsl.normalizer import RULES, Exact, Plan, log_partition_of

BUDGET = 20


def rule(name):
    return next(r for r in RULES if r.name == name)


def applies(ebm, name):
    return bool(np.isfinite(rule(name).costs(ebm.structure, BUDGET)).all())


def value(ebm, name):
    """log Z by this rule alone, in float64."""
    components = np.arange(len(ebm.structure.component_sizes))
    plan = Plan(rule(name), components, 0.0, 0.0)
    result = log_partition_of(ebm.model, Exact(ebm.structure, (plan,)), np.dtype(np.float64))
    return float(result)


def chosen(ebm):
    assert isinstance(ebm.normalizer, Exact), str(ebm.normalizer)
    return {plan.rule.name for plan in ebm.normalizer.plans}


def reason(ebm, name, component=0):
    return rule(name).reason(ebm.structure, component, BUDGET)


def gradient(model, variables=None):
    """d log Z / d parameters of a model, as a list of arrays."""
    import equinox as eqx

    ebm = ed.compile(model)
    slopes = eqx.filter_grad(ed.log_partition)(ebm)
    return [np.asarray(a) for a in jax.tree.leaves(slopes.model.slots)]
