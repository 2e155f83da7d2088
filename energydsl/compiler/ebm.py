"""EBM: a model, and what the compiler concluded about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float

from energydsl._types import Configuration, IntractableError, Refusal, Values, is_traced
from energydsl.analysis.conditional import conditional_for
from energydsl.analysis.layer import latent_layer, sum_out
from energydsl.analysis.structure import Structure
from energydsl.compiler.conclusions import Findings
from energydsl.compiler.explain import Explanation, explain
from energydsl.language.expression import Expression, as_expression, sites_of
from energydsl.language.model import Model
from energydsl.language.parameters import Parameters
from energydsl.normalizer import Intractable, Normalizer, log_partition_of, trouble
from energydsl.sweep.base import AbstractSweep
from energydsl.sweep.gather import first_of, gather_block, load_block, totals


class EBM(eqx.Module):
    r"""$p(x) = e^{-E(x)}/Z$, compiled: what `energydsl.compile` returns.

    A pytree: parameters, evidence and index arrays are leaves, structure is one static object, so
    new parameter values never recompile. Functions take one configuration (a dict with an array
    for each free variable); batches are `jax.vmap`.
    """

    model: Model
    sweep: AbstractSweep | None
    normalizer: Normalizer
    """`Exact` (or `Numerical`), with each component's plan and its cost, or `Intractable`, with
    the reason."""
    findings: Findings = eqx.field(static=True)

    @property
    def structure(self) -> Structure:
        """Who interacts with whom, and how."""
        return self.findings.structure

    @property
    def parameters(self) -> Parameters:
        """The model's parameters by name: see `Model.parameters`."""
        return self.model.parameters

    def replace(self, *given: Mapping[str, Any], **named: Any) -> EBM:
        """The same EBM at other values of some parameters; nothing is compiled anew.

        Args:
            *given: mappings from a parameter's name to its value.
            **named: values by name, each in the form that `parameters` shows.

        Raises:
            TypeError: a value in another form.
            ValueError: an unknown name, a wrong shape, NaN, or an infinity where there was none.
        """
        model = self.model.replace(*given, **named)
        return EBM(model, self.sweep, self.normalizer, self.findings)

    def energy(self, x: Values) -> Float[Array, ""]:
        """E(x), in units of k_B T.

        Raises:
            ValueError: a variable missing, unknown or of a wrong shape.
        """
        return self.model.energy(x)

    def score(self, x: Values) -> Configuration:
        """-dE/dx for each free real variable (any continuous domain).

        Raises:
            TypeError: no free variable is continuous.
        """
        smooth = [v.name for v in self.structure.skeleton.free if not v.domain.discrete]
        if not smooth:
            raise TypeError(
                "score is -dE/dx, and every free variable is discrete; "
                "energy differences are ebm.log_ratio(x, y)."
            )
        moving = {n: jnp.asarray(x[n], float) for n in smooth}
        slope = jax.grad(lambda m: self.energy({**x, **m}))(moving)
        return jax.tree.map(jnp.negative, slope)

    def free_energy(self, v: Values) -> Float[Array, ""]:
        r"""$F(v) = -\log \sum_h e^{-E(v, h)}$, the declared latents h summed or integrated out.

        Latents that are independent given v are summed in closed form from one gradient (softplus
        for an RBM); others by the exact log Z of the model conditioned on v.

        Args:
            v: an array for each free variable that is not latent.

        Raises:
            ValueError: no free variable is latent, or the names or shapes of `v` do not fit.
            IntractableError: no exact rule applies to the latents; the message says why.
        """
        free = self.structure.skeleton.free
        latents = [w for w in free if w.latent]
        if not latents:
            raise ValueError(
                "free_energy sums latents out, and no free variable is one. Declare some by "
                "latent=True; without, -log p(v) up to log Z is ebm.energy(v)."
            )
        self._check_shown(v)
        layer = latent_layer(self.structure)
        if isinstance(layer, Refusal):
            return -self._conditioned_log_partition(v)
        blank = {w.name: jnp.zeros(w.shape, w.domain.energy_dtype) for w in latents}
        return sum_out(self.model.energy, {**v, **blank}, layer)

    def _check_shown(self, v: Values) -> None:
        shown = [w.name for w in self.structure.skeleton.free if not w.latent]
        if set(v) != set(shown):
            raise ValueError(
                f"free_energy got {sorted(v)}; the variables that are not latent are {shown}."
            )

    def _conditioned_log_partition(self, v: Values) -> Array:
        rest = self.model.condition(self.model.placed({n: jnp.asarray(a) for n, a in v.items()}))
        normalizer = self.findings.normalizer_of(rest)
        if isinstance(normalizer, Intractable):
            raise IntractableError(
                f"The latents cannot be summed out: given the rest, log Z is {normalizer}."
            )
        return log_partition_of(rest, normalizer, jnp.zeros(()).dtype)

    def log_prob(self, x: Values) -> Float[Array, ""]:
        """-E(x) - log Z, where log Z is exact.

        Raises:
            IntractableError: no exact rule applies; the message says why.
        """
        return -self.energy(x) - log_partition(self)

    def log_ratio(self, x: Values, y: Values) -> Float[Array, ""]:
        """Log p(x)/p(y) = E(y) - E(x): needs no Z."""
        return self.energy(y) - self.energy(x)

    def conditional(self, where: Expression | str, x: Values) -> dist.Distribution:
        """The law of every shown site given all other sites, each site on its own.

        Args:
            where: a variable's name or a view, such as ``s[3, 4]``.
            x: the configuration that gives the others their values.

        Returns:
            A NumPyro distribution whose batch has the view's shape. It is Normal, or Categorical
            over the levels, which count from 0 (for spins, 0 is -1 and 1 is +1).

        Raises:
            TypeError: a site whose conditional is of no known family.
            ValueError: a site whose energy does not rise on both sides, given the others.
        """
        variable, sites = self._view(where)
        law = conditional_for(variable.domain, self.structure.degree_in(variable))
        if law is None:
            raise TypeError(
                f"The conditional of {variable.name!r} is of no known family: it is "
                f"{variable.domain} and its energy is not shown to be quadratic in it."
            )
        block = gather_block(self.structure, variable, law, sites.reshape(1, -1))
        if isinstance(block, Refusal):
            raise TypeError(f"The conditional of {where} is out of reach: {block.reason}.")
        values = self.model.complete(x)
        free = self.structure.skeleton.free
        state = {v.name: values[v.name].reshape(-1, 1) for v in free}
        each, shared = load_block(self.structure, free, block, self.model.environment(values))
        block, each = first_of((block, each))
        total = totals(self.structure, block, (each, shared), state)
        total = total[..., 0].reshape(-1, *sites.shape)
        improper = law.improper(total)
        if not is_traced(improper) and improper.any():
            raise ValueError(
                f"The conditional of {where} has no finite integral at {int(improper.sum())} of "
                f"{improper.size} sites: given the others, the energy does not rise on both sides. "
                "Energies are minus log-densities: check the signs."
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
        """A random configuration of the support, evidence in its place."""
        free = self.structure.skeleton.free
        keys = jr.split(key, len(free))
        drawn = {v.name: v.domain.start(v.shape, key=k) for v, k in zip(free, keys, strict=True)}
        values = self.model.complete(drawn)
        return {v.name: values[v.name] for v in free}

    def check(self, x: Values) -> Configuration:
        """A configuration in its variables' dtypes, evidence in its place, or what is wrong."""
        self.model.check_names(x)
        free = self.structure.skeleton.free
        values = self.model.complete({v.name: v.check(x[v.name]) for v in free})
        return {v.name: values[v.name] for v in free}

    def explain(self) -> Explanation:
        """What was found and chosen: a table when printed, `as_dict` as data."""
        return explain(self.model, self.sweep, self.normalizer, self.findings)

    def __hash__(self) -> int:
        # So that jax.jit(ebm.energy) finds its program; equality compares the numbers as well.
        return hash(self.findings)

    def __repr__(self) -> str:
        return f"EBM({self.model.expression}; log Z {self.normalizer})"


def check_ebm(ebm: object, function: str) -> None:
    """Raise TypeError unless this is an EBM."""
    if not isinstance(ebm, EBM):
        raise TypeError(
            f"{function} got {type(ebm).__name__}; compile it first: ed.compile(model)."
        )


def log_partition(ebm: EBM) -> Float[Array | np.ndarray, ""]:
    """Log Z, computed in float64 and twice differentiable in the parameters.

    It is exact where ``ebm.normalizer`` is `Exact`. Where that is `Numerical`, some integral was
    taken by quadrature, with an error that `log_likelihood` reports.

    Returns:
        A NumPy float64; inside a JAX transformation, an array of JAX's default float.

    Raises:
        IntractableError: no exact rule applies; the message says why.
        TypeError: a model that is not compiled.
        ValueError: the rule fails on these values (a precision that is not positive definite, a
            quadrature that does not settle). Inside a JAX transformation the result is NaN.
    """
    check_ebm(ebm, "log_partition")
    if isinstance(ebm.normalizer, Intractable):
        raise IntractableError(f"log Z is {ebm.normalizer}.")
    default = jnp.zeros(()).dtype
    dtype = default if is_traced(ebm.model) else np.dtype(np.float64)
    value = log_partition_of(ebm.model, ebm.normalizer, dtype)
    if not is_traced(value) and np.isnan(value):
        raise ValueError(f"log Z has no value here: {trouble(ebm.model, ebm.normalizer)}.")
    # A float64 array of JAX's own would be truncated, with a warning, by the first addition. The
    # parameters of an EBM may be concrete where configurations are not: under vmap, say.
    return value.astype(default) if is_traced(value) else np.asarray(value)
