"""EBM: a compiled energy-based model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from jaxtyping import Float

from energydsl._messages import ON_EBM, brief, described, hinted
from energydsl._types import Configuration, IntractableError, Refusal, Values, is_traced
from energydsl.analysis.conditional import conditional_for
from energydsl.analysis.incidence import measures, site_factors
from energydsl.analysis.layer import latent_layer, sum_out
from energydsl.analysis.structure import Structure
from energydsl.compiler.conclusions import Conclusions
from energydsl.compiler.explain import Explanation, explain
from energydsl.compiler.recommendation import samplers
from energydsl.language.expression import Expression, as_expression, sites_of
from energydsl.language.model import Model
from energydsl.language.parameters import Parameters
from energydsl.normalizer import Intractable, Normalizer, log_partition_of, trouble
from energydsl.normalizer.base import Planned
from energydsl.sweep.base import AbstractSweep

EXAMPLES = 64
"""The number of examples whose log Z is computed at once."""


@hinted(ON_EBM)
class EBM(eqx.Module):
    r"""The compiled model $p(x) = e^{-E(x)}/Z$, which `energydsl.compile` returns.

    An EBM is a pytree: parameters, evidence and index arrays are leaves, and the structure is one
    static object, so that new parameter values never cause a recompilation. Methods take one
    configuration, a dict with an array for each free variable; use `jax.vmap` for batches.
    """

    model: Model
    sweep: AbstractSweep | None
    normalizer: Normalizer
    """How log Z is computed: `Exact` or `Numerical`, with plans and costs, or `Intractable`, with
    the reason."""
    conclusions: Conclusions = eqx.field(static=True)

    @property
    def structure(self) -> Structure:
        """The model's factors, the graph of their interactions, and its connected components."""
        return self.conclusions.structure

    @property
    def parameters(self) -> Parameters:
        """The model's parameters by name, as in `Model.parameters`."""
        return self.model.parameters

    def replace(self, *given: Mapping[str, Any], **named: Any) -> EBM:
        """The same EBM with other values of some parameters, without a recompilation.

        Args:
            *given: mappings from a parameter's name to its value.
            **named: values by name, each in the form that `parameters` shows.

        Raises:
            TypeError: a value of another type than the parameter.
            ValueError: an unknown name, a wrong shape, NaN, a new infinity, or a value that does
                not obey the parameter's constraint.
        """
        return self._with(self.model.replace(*given, **named))

    def freeze(self, *names: str) -> EBM:
        """The same EBM, in which learning does not change these parameters.

        See `Model.freeze`; nothing is analysed anew.
        """
        return self._with(self.model.freeze(*names))

    def unfreeze(self, *names: str) -> EBM:
        """The same EBM, in which learning changes these parameters; see `Model.unfreeze`."""
        return self._with(self.model.unfreeze(*names))

    def _with(self, model: Model) -> EBM:
        """The EBM with another model of the same structure."""
        return EBM(model, self.sweep, self.normalizer, self.conclusions)

    def given(self, *given: Mapping[str, Any], **named: Any) -> EBM:
        """The same EBM with values of some of its inputs, without a recompilation.

        Args:
            *given: mappings from an input's name to its value.
            **named: values by name: ``crf.given(x=features)``.

        Raises:
            ValueError: a name is not that of an input, a shape is wrong, or a value is outside the
                domain.
        """
        return self._with(self.model.given(*given, **named))

    def at_inputs(self, x: Values) -> tuple[EBM, Values]:
        """The EBM with the values of inputs that `x` contains, and the rest of `x`."""
        inputs = {v.name for v in self.model.inputs}
        if not isinstance(x, Mapping) or inputs.isdisjoint(x):
            return self, x
        ebm = self.given({n: a for n, a in x.items() if n in inputs})
        return ebm, {n: a for n, a in x.items() if n not in inputs}

    def energy(self, x: Values) -> Float[Array, ""]:
        """E(x), in units of k_B T.

        Here and in the other methods, `x` may contain values of inputs, which then count instead of
        those that `given` set.

        Raises:
            ValueError: a variable is missing, unknown or of the wrong shape, or an input has no
                value.
        """
        return self.model.energy(x)

    def score(self, x: Values) -> Configuration:
        """The score -dE/dx for each free variable of a continuous domain.

        Raises:
            TypeError: no free variable is continuous.
            ValueError: as in `energy`.
        """
        self.model.check_values(self.model.complete(x))
        smooth = [v.name for v in self.structure.skeleton.free if not v.domain.discrete]
        if not smooth:
            raise TypeError(
                "score is -dE/dx, but every free variable is discrete; "
                "use ebm.log_ratio(x, y) for energy differences."
            )
        moving = {n: jnp.asarray(x[n], float) for n in smooth}
        slope = jax.grad(lambda m: self.energy({**x, **m}))(moving)
        return jax.tree.map(jnp.negative, slope)

    def free_energy(self, v: Values) -> Float[Array, ""]:
        r"""The free energy $F(v) = -\log \sum_h e^{-E(v, h)}$ over the latent variables h.

        Latent sites that are independent given v are summed or integrated out in closed form
        (softplus terms for an RBM), others by the exact log Z of the model conditioned on v.

        Args:
            v: an array for each free variable that is not latent.

        Raises:
            ValueError: no free variable is latent, or the names or shapes of `v` do not fit.
            IntractableError: no exact rule applies to the latent sites; the message says why.
        """
        self, v = self.at_inputs(v)
        free = self.structure.skeleton.free
        latents = [w for w in free if w.latent]
        if not latents:
            raise ValueError(
                "free_energy sums out latent variables, but no free variable is latent. Declare "
                "some with latent=True; without any, -log p(v) is ebm.energy(v) + log Z."
            )
        self._check_shown(v)
        layer = latent_layer(self.structure)
        if isinstance(layer, Refusal):
            return -self._conditioned_log_partition(v)
        blank = {w.name: jnp.zeros(w.shape, w.domain.energy_dtype) for w in latents}
        return sum_out(self.model.energy_anywhere, {**v, **blank}, layer)

    def _check_shown(self, v: Values) -> None:
        shown = [w.name for w in self.structure.skeleton.free if not w.latent]
        if set(v) != set(shown):
            raise ValueError(
                f"free_energy got {sorted(v)}; the variables that are not latent are {shown}."
            )
        self.model.check_values(v)

    def _conditioned_log_partition(self, v: Values) -> Array:
        rest = self.model.condition(self.model.placed({n: jnp.asarray(a) for n, a in v.items()}))
        normalizer = self.conclusions.normalizer_of(rest)
        if isinstance(normalizer, Intractable):
            raise IntractableError(
                f"The latents cannot be summed out exactly: log Z given the rest is {normalizer}."
            )
        return log_partition_of(rest, normalizer, jnp.zeros(()).dtype)

    def log_prob(self, x: Values) -> Float[Array, ""]:
        """Log p(x) = -E(x) - log Z.

        Raises:
            IntractableError: no exact rule applies; the message says why.
            ValueError: a value lies outside its variable's domain, or no configuration has a
                probability above 0.
        """
        self, x = self.at_inputs(x)
        energy, log_z = self.energy(x), log_partition(self)
        if not is_traced(log_z) and np.isneginf(log_z):
            raise ValueError(
                "Every configuration has infinite energy, so none has a probability. A table or a "
                "clamp forbids all combinations: give one a finite energy at least."
            )
        return -energy - log_z

    def log_ratio(self, x: Values, y: Values) -> Float[Array, ""]:
        """Log p(x)/p(y) = E(y) - E(x), which does not need Z."""
        return self.energy(y) - self.energy(x)

    def conditional(self, where: Expression | str, x: Values) -> dist.Distribution:
        """The conditional distribution of each selected site given all other sites.

        Args:
            where: a variable's name or a view, such as ``s[3, 4]``.
            x: the configuration that gives the values of the other sites.

        Returns:
            A NumPyro distribution whose batch has the view's shape. It is Normal, Exponential,
            Gamma, Beta, Poisson, a Normal or Exponential truncated to the domain, or Categorical
            over the levels, which count from 0 (for spins, 0 is -1 and 1 is +1).

        Raises:
            TypeError: the conditional distribution of a site belongs to no known family.
            ValueError: a name, a shape or a value does not fit the variables, or the conditional
                distribution of a site does not exist: all its levels have infinite energy, or its
                density cannot be normalised.
        """
        self, x = self.at_inputs(x)
        variable, sites = self._view(where)
        law = conditional_for(self.structure, variable)
        if isinstance(law, Refusal):
            raise TypeError(
                f"The conditional of {variable.name!r} ({variable.domain}) is of no known family: "
                f"{law.reason}."
            )
        seen = site_factors(self.structure, variable, law, sites.reshape(1, -1))
        if isinstance(seen, Refusal):
            raise TypeError(f"The conditional of {where} cannot be computed: {seen.reason}.")
        values = self.model.complete(x)
        self.model.check_values(values)
        one = {v.name: values[v.name][None] for v in self.structure.skeleton.free}
        total = measures(self.structure, self.model, seen, one)
        total = total[..., 0].reshape(-1, *sites.shape)
        improper = law.improper(total)
        if not is_traced(improper) and improper.any():
            raise ValueError(
                f"The conditional of {where} {law.no_law}. This is so at {int(improper.sum())} of "
                f"{improper.size} sites."
            )
        return law.distribution(total)

    def _view(self, where: Expression | str) -> tuple[Any, np.ndarray]:
        by_name = {v.name: v for v in self.structure.skeleton.free}
        if isinstance(where, str) and where in by_name:
            v = by_name[where]
            return v, np.arange(v.size, dtype=np.int32).reshape(v.shape)
        if isinstance(where, Expression):
            v, sites = sites_of(as_expression(where))
            if by_name.get(v.name) == v:
                return v, sites
        raise ValueError(f"conditional got {where}; the free variables are {list(by_name)}.")

    def start(self, *, key: Array) -> Configuration:
        """A random configuration in the variables' domains, with evidence at clamped sites."""
        free = self.structure.skeleton.free
        keys = jr.split(key, len(free))
        drawn = {v.name: v.domain.start(v.shape, key=k) for v, k in zip(free, keys, strict=True)}
        values = self.model.complete(drawn)
        return {v.name: values[v.name] for v in free}

    def check(self, x: Values) -> Configuration:
        """The configuration in its variables' dtypes, with the evidence at clamped sites.

        Raises:
            ValueError: a variable is missing, unknown, of the wrong shape or outside its domain.
        """
        self, x = self.at_inputs(x)
        self.model.check_names(x)
        free = self.structure.skeleton.free
        values = self.model.complete({v.name: v.check(x[v.name]) for v in free})
        return {v.name: values[v.name] for v in free}

    def explain(self) -> Explanation:
        """What the compiler concluded, and what it chose; `as_dict` of it returns plain data."""
        return explain(self.model, self.sweep, self.normalizer, self.conclusions, samplers(self))

    def __hash__(self) -> int:
        # Lets jax.jit(ebm.energy) find its compiled program; equality also compares the numbers.
        return hash(self.conclusions)

    def __repr__(self) -> str:
        return f"EBM({self.model.expression}; log Z {self.normalizer})"


def check_ebm(ebm: object, function: str) -> None:
    """Raise TypeError unless this is an EBM, and ValueError if one of its inputs has no value."""
    check_compiled(ebm, function)
    assert isinstance(ebm, EBM)
    if missing := ebm.model.missing_inputs:
        raise ValueError(
            f"{function} got a model whose inputs {missing} have no value; give each one: "
            f"{function}(ebm.given({missing[0]}=array), ...)."
        )


def check_compiled(ebm: object, function: str) -> None:
    """Raise TypeError unless this is an EBM."""
    if not isinstance(ebm, EBM):
        what = "compile it first: ed.compile(model)"
        if not isinstance(ebm, Model):
            what = f"expected a compiled model first: ebm = ed.compile(model), {function}(ebm, ...)"
        raise TypeError(f"{function} got {brief(ebm)}; {what}.")


def check_numbers(model: Model, function: str) -> None:
    """Raise TypeError unless the model's parameters are numbers, which can be read."""
    if is_traced(model):
        raise TypeError(
            f"{function} was called inside a JAX transformation; call it outside of jit, grad and "
            "vmap, on an EBM whose parameters are numbers."
        )


@described
def log_partition(ebm: EBM) -> Float[Array | np.ndarray, ""]:
    """Log Z, computed in float64 and twice differentiable in the parameters.

    The result is exact if ``ebm.normalizer`` is `Exact`. If it is `Numerical`, at least one
    integral is computed by quadrature, with an error that `log_likelihood` reports.

    Returns:
        A NumPy float64; inside a JAX transformation, an array of JAX's default float.

    Raises:
        IntractableError: no exact rule applies; the message says why.
        TypeError: a model that is not compiled.
        ValueError: log Z cannot be computed for the present parameter values (a precision that is
            not positive definite, a quadrature that does not converge). Inside a JAX
            transformation the result is NaN instead.
    """
    check_ebm(ebm, "log_partition")
    if isinstance(ebm.normalizer, Intractable):
        raise IntractableError(f"log Z is {ebm.normalizer}.")
    default = jnp.zeros(()).dtype
    dtype = default if is_traced(ebm.model) else np.dtype(np.float64)
    value = log_partition_of(ebm.model, ebm.normalizer, dtype)
    if not is_traced(value) and np.isnan(value):
        raise ValueError(f"log Z cannot be computed: {trouble(ebm.model, ebm.normalizer)}.")
    # With float64 disabled, the first operation on a float64 JAX array would truncate it, with a
    # warning; a NumPy array keeps its precision.
    return value.astype(default) if is_traced(value) else np.asarray(value)


def log_partitions(ebm: EBM, plans: Planned, inputs: Configuration) -> np.ndarray:
    """Log Z given each of several values of the inputs, which are along the first axis.

    Raises:
        ValueError: log Z cannot be computed for one of them.
    """
    with jax.enable_x64(True):
        values = np.asarray(_log_partitions(ebm, plans, inputs))
    if np.isnan(values).any():
        first = int(np.isnan(values).argmax())
        model = ebm.given({n: a[first] for n, a in inputs.items()}).model
        raise ValueError(
            f"log Z cannot be computed given the inputs of example {first}: "
            f"{trouble(model, plans)}."
        )
    return values


@eqx.filter_jit
def _log_partitions(ebm: EBM, plans: Planned, inputs: Configuration) -> Array:
    def one(given: Configuration) -> Array:
        return log_partition_of(ebm.given(given).model, plans, np.dtype(np.float64))

    return lax.map(one, inputs, batch_size=EXAMPLES)
