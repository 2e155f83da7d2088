"""Models: sums of factors, with parameters stored separately from structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array
from jaxtyping import Float

from energydsl._identity import form
from energydsl._messages import ON_MODEL, brief, described, hinted
from energydsl._types import Configuration, Values, as_numbers, is_traced
from energydsl.language.evidence import Held, clamps, together
from energydsl.language.expression import (
    Environment,
    Expression,
    Value,
    evaluate,
    variables_of,
)
from energydsl.language.expression.operation import as_float
from energydsl.language.merge import merge_like_terms
from energydsl.language.parameters import Parameters, like
from energydsl.language.skeleton import Skeleton, Slot, function_of, put_back, take_out
from energydsl.language.variable import Variable


@described
@hinted(ON_MODEL)
class Model(eqx.Module):
    """A sum of factors: the energy of a configuration, in units of k_B T.

    Models can be added (`a + b`, a product of experts), scaled (`beta * a`, `a / T`) and subtracted
    (`a - beta * b`, NOT); variables of the same name are the same variable.

    Args:
        *energies: scalar expressions or models; their sum is the energy.

    Raises:
        TypeError: an energy is not an expression.
        ValueError: no energy is given, an energy is not a scalar, or two different variables have
            the same name.
    """

    slots: tuple[Any, ...]
    """The numbers, data, parameters and potentials in the order in which the energy uses them; each
    is stored once, however often it is used. ``skeleton.slots`` describes each."""
    indices: tuple[Array, ...]
    evidence: dict[str, Array]
    """The values of clamped variables, each an array of the variable's full shape; inputs that have
    no value yet are not in it."""
    skeleton: Skeleton = eqx.field(static=True)

    def __init__(self, *energies: Expression | Model) -> None:
        if not energies:
            raise ValueError("Model got no energy; give it at least one: ed.Model(-b @ s).")
        parts = [e.expression if isinstance(e, Model) else _scalar(e) for e in energies]
        root = sum(parts[1:], parts[0])
        variables = _distinct(variables_of(root))
        if not variables:
            raise ValueError(f"Model got the energy {root}, which depends on no variable.")
        evidence, clamped = together([e.held for e in energies if isinstance(e, Model)])
        tree, self.slots, self.indices, records = take_out(merge_like_terms(root))
        _check_names(records, variables)
        self.evidence = evidence
        functions = tuple(function_of(value) for value in self.slots)
        self.skeleton = Skeleton(tree, tuple(variables), functions, clamped, records)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, including clamped ones, in the order in which the energy uses them."""
        return self.skeleton.variables

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """The variables declared with ``given=True``."""
        return self.skeleton.inputs

    @property
    def expression(self) -> Expression:
        """The energy as an expression with the present parameters."""
        return put_back(self.skeleton.root, self.slots)

    def energy(self, x: Values) -> Float[Array, ""]:
        r"""The energy E(x) of one configuration; use `jax.vmap` for a batch.

        Args:
            x: an array for each free variable, and for each input that has no value yet. Entries at
                clamped sites are ignored: the evidence is used there.

        Raises:
            ValueError: a name is missing or unknown, a shape is wrong, or a value lies outside its
                variable's domain (inside a JAX transformation, values are not checked).
        """
        values = self.complete(x)
        self.check_values(values)
        return self.energy_of(values)

    def energy_anywhere(self, x: Values) -> Float[Array, ""]:
        """The energy without a check of the values, such as means of labels or blanks."""
        return self.energy_of(self.complete(x))

    def energy_of(self, values: Configuration) -> Float[Array, ""]:
        """The energy of values of all variables, including clamped ones, which are not checked."""
        return as_float(evaluate(self.skeleton.root, self.environment(values)))

    def environment(self, values: Configuration) -> Environment:
        """The values in which the energy's tree is evaluated."""
        for v in self.inputs:
            self._check_given(v, values)
        slots = tuple(
            jax.lax.stop_gradient(value) if record.frozen else value
            for value, record in zip(paramax.unwrap(self.slots), self.skeleton.slots, strict=True)
        )
        return Environment(values, slots, self.indices)

    def blank(self) -> Configuration:
        """A value for every variable: the evidence where there is some, zeros otherwise."""
        values = {}
        for v in self.variables:
            self._check_given(v, self.evidence)
            values[v.name] = self.evidence.get(v.name, jnp.zeros(v.shape, v.domain.dtype))
        return values

    def around(self, values: Configuration) -> Model:
        """The same model whose `blank` gives these values, one array for every variable."""
        return _replace(self, evidence=dict(values))

    def complete(self, x: Values) -> Configuration:
        """The configuration completed with the evidence: a value for every variable."""
        self.check_names(x)
        values = {}
        for v in self.variables:
            if v.name not in x:
                self._check_given(v, self.evidence)
                values[v.name] = self.evidence[v.name]
                continue
            value = as_numbers(x[v.name], f"Variable {v.name!r}")
            if value.shape != v.shape:
                raise ValueError(
                    f"Variable {v.name!r} got an array of shape {value.shape}; expected {v.shape}. "
                    "For a batch of configurations, use jax.vmap."
                )
            mask = self.skeleton.mask(v)
            held = mask.any() and not v.given
            values[v.name] = jnp.where(mask, self.evidence[v.name], value) if held else value
        return values

    def _check_given(self, v: Variable, values: Configuration) -> None:
        if v.given and v.name not in values:
            raise ValueError(
                f"The input {v.name!r} has no value, and the model is a distribution given it. "
                f"Give one of shape {v.shape}: ebm.given({v.name}=array), or "
                f"model.condition({v.name}=array) before compiling."
            )

    def placed(self, x: Configuration) -> Configuration:
        """Values of some variables, with the evidence at the clamped sites."""
        masks = {v.name: self.skeleton.mask(v) for v in self.variables}
        return {
            n: jnp.where(masks[n], self.evidence[n], a) if masks[n].any() else a
            for n, a in x.items()
        }

    def given(self, *given: Mapping[str, Any], **named: Any) -> Model:
        """The same model with values of some of its inputs.

        Args:
            *given: mappings from an input's name to its value.
            **named: values by name.

        Raises:
            ValueError: a name is not that of an input, a shape is wrong, or a value is outside the
                domain.
        """
        values = {name: value for mapping in (*given, named) for name, value in mapping.items()}
        inputs = {v.name: v for v in self.inputs}
        if unknown := [name for name in values if name not in inputs]:
            raise ValueError(
                f"given got {', '.join(map(repr, unknown))}; the inputs are "
                f"{list(inputs) or 'none'}. An input is declared with given=True; other variables "
                "are clamped by model.condition(...)."
            )
        arrays = {name: inputs[name].check(value) for name, value in values.items()}
        return _replace(self, evidence=self.evidence | arrays)

    @property
    def held(self) -> Held:
        """The evidence, and which sites of each variable are clamped."""
        return Held(self.evidence, self.skeleton.clamped)

    @property
    def missing_inputs(self) -> list[str]:
        """The names of the inputs that have no value."""
        return [v.name for v in self.inputs if v.name not in self.evidence]

    @property
    def observed(self) -> list[str]:
        """The names of the variables with clamped sites that are not inputs."""
        return [v.name for v in self.variables if v.name in self.evidence and not v.given]

    @property
    def numeric(self) -> bool:
        """Whether all its numbers can be read: every input has a value, and nothing is traced."""
        return not self.missing_inputs and not is_traced(self)

    def check_names(self, x: Values) -> None:
        """Raise ValueError unless the keys of `x` are the free variables, and perhaps inputs."""
        expected = [v.name for v in self.skeleton.free]
        if not isinstance(x, Mapping):
            raise TypeError(
                f"A configuration is a dict of arrays, one for each of {expected}; got "
                f"{type(x).__name__}."
            )
        inputs = {v.name for v in self.inputs}
        missing, unknown = set(expected) - set(x), set(x) - set(expected) - inputs
        if missing or unknown:
            held = unknown & {v.name for v in self.variables}
            parts = [
                f"{word} {sorted(names)}"
                for word, names in (
                    ("lacks", missing),
                    ("has the clamped", held),
                    ("has the unknown", unknown - held),
                )
                if names
            ]
            raise ValueError(
                f"The configuration {' and '.join(parts)}; the free variables are {expected}."
            )

    def check_values(self, values: Values) -> None:
        """Raise ValueError if a value that is known lies outside its variable's domain."""
        for v in self.variables:
            if v.name in values and not is_traced(values[v.name]):
                v.domain.check_values(np.asarray(values[v.name]), f"Variable {v.name!r}")

    def condition(self, *given: Mapping[Any, Any], **named: Any) -> Model:
        """The model with variables, or some of their sites, clamped to given values.

        Sites that were clamped before get the new value. Within one call each site has one value.

        Args:
            *given: mappings from a view (``s[0, :]``) or a name to its value.
            **named: values by variable name.

        Returns:
            The model of the sites that remain free.

        Raises:
            ValueError: a name is unknown, a shape is wrong, a value is outside the domain, an array
                is masked, or one site is given two values.
        """
        for mapping in given:
            if not isinstance(mapping, Mapping):
                raise TypeError(
                    f"condition got {mapping!s:.80}; expected a mapping or names, as in "
                    "model.condition({s[0]: 1}) or model.condition(s=array)."
                )
        pairs = [pair for mapping in given for pair in mapping.items()] + list(named.items())
        if not pairs:
            raise ValueError(
                "condition got nothing to hold; expected values, as in model.condition(x=array)."
            )
        evidence, clamped = dict(self.evidence), dict(self.skeleton.clamped)
        for variable, sites, values in clamps(self.variables, pairs):
            name, shape = variable.name, variable.shape
            if name not in evidence:
                _check_whole_input(variable, sites)
                evidence[name] = variable.domain.start(shape, key=jax.random.key(0))
            evidence[name] = evidence[name].ravel().at[sites].set(values).reshape(shape)
            mask = clamped.get(name, np.zeros(shape, bool)).copy()
            mask.ravel()[sites] = True
            clamped[name] = mask
        return _replace(self, skeleton=self.skeleton.holding(clamped), evidence=evidence)

    def unconditioned(self) -> Model:
        """The same model with no site clamped but those of inputs, which keep their values."""
        evidence = {v.name: self.evidence[v.name] for v in self.inputs if v.name in self.evidence}
        return _replace(self, skeleton=self.skeleton.holding({}), evidence=evidence)

    def of_clamped_sites(self, x: Values) -> Model:
        """The model of the clamped sites given the free ones, which are clamped to `x`.

        Inputs keep their values.
        """
        masks = {v.name: ~self.skeleton.mask(v) | v.given for v in self.variables}
        held = {name: mask for name, mask in masks.items() if mask.any()}
        values = self.complete(x)
        evidence = {name: values[name] for name in held}
        return _replace(self, skeleton=self.skeleton.holding(held), evidence=evidence)

    @property
    def parameter_count(self) -> int:
        """The number of real parameters that learning updates."""
        learnt = eqx.filter(self.slots, self.learnt)
        return sum(leaf.size for leaf in jax.tree.leaves(learnt))

    @property
    def learnt(self) -> tuple[Any, ...]:
        """True at the arrays of `slots` that learning updates, False at the others."""
        return tuple(
            jax.tree.map(lambda leaf, r=record: _moves(leaf, r), value, is_leaf=_is_frozen)
            for value, record in zip(self.slots, self.skeleton.slots, strict=True)
        )

    @property
    def parameters(self) -> Parameters:
        """The parameters declared by `energydsl.parameter` and those owned by potentials, by name.

        A potential is named after its class, with a number from the second of a class on:
        ``Neural``, ``Neural_2``. Where the compiler reads a potential's formula (`Linear`,
        `Coupling`, `Quadratic`, plain distributions), each of its arrays is a parameter of its own:
        ``Coupling.weight``, ``Normal.loc``.

        Each value has the form that `replace` accepts: an array, a paramax wrapper where the
        parameter was declared with one (``paramax.unwrap`` gives its array), or a potential.
        """
        named = zip(self.skeleton.slots, self.slots, strict=True)
        return Parameters({r.name: value for r, value in named if r.name is not None})

    def replace(self, *given: Mapping[str, Any], **named: Any) -> Model:
        """The same model with other values of some parameters; nothing is recompiled.

        Args:
            *given: mappings from a parameter's name to its value.
            **named: values by name, each of the same form as in `parameters`.

        Raises:
            TypeError: a value is of another form.
            ValueError: a name is unknown, a shape is wrong, or a value has NaN, or an infinity
                where the present one has none.
        """
        for mapping in given:
            if not isinstance(mapping, Mapping):
                raise TypeError(
                    f"replace got {brief(mapping)}; expected names, as in replace(W=array) or "
                    'replace({"W": array}).'
                )
        values = {name: value for mapping in (*given, named) for name, value in mapping.items()}
        places = {r.name: k for k, r in enumerate(self.skeleton.slots) if r.name is not None}
        if unknown := [name for name in values if name not in places]:
            there = ", ".join(places) or "none"
            raise ValueError(f"replace got {', '.join(unknown)}; the parameters are {there}.")
        slots = list(self.slots)
        for name, value in values.items():
            slots[places[name]] = like(value, slots[places[name]], name)
        return _replace(self, slots=tuple(slots))

    def graph(self, path: str | None = None) -> Any:
        """The factor graph as a Matplotlib figure, which is also written to `path` if given."""
        (draw,) = _draw_graph
        return draw(self, path)

    # With None, NumPy leaves `array * model` to the methods of this class.
    __array_ufunc__ = None

    def __add__(self, other: Model | Expression) -> Model:
        return Model(self, other)

    def __radd__(self, other: Expression | int) -> Model:
        # The builtin sum() starts from 0.
        return self if isinstance(other, int) and other == 0 else Model(_scalar(other), self)

    def __sub__(self, other: Model | Expression) -> Model:
        other = Model(other)
        return over(self.expression - other.expression, self, other)

    def __rsub__(self, other: Expression) -> Model:
        return Model(other) - self

    def __neg__(self) -> Model:
        return over(-self.expression, self)

    def __mul__(self, factor: Any) -> Model:
        if isinstance(factor, Model):
            raise TypeError(
                "Models cannot be multiplied. A product of the distributions of two models is the "
                "sum of their energies: write a + b."
            )
        return over(factor * self.expression, self)

    __rmul__ = __mul__

    def __truediv__(self, temperature: Any) -> Model:
        if np.any(np.asarray(known_value(temperature, 1.0)) == 0):
            raise ValueError(f"model / T got T = {temperature}; expected a number other than 0.")
        return over(self.expression / temperature, self)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Model)
            and self.skeleton == other.skeleton
            and form(self.slots) == form(other.slots)
        )

    def __hash__(self) -> int:
        return hash(self.skeleton)

    def __str__(self) -> str:
        lines = [f"Model: E = {self.expression}"]
        for v in self.variables:
            held = 0 if v.given else int(self.skeleton.mask(v).sum())
            note = "" if not held else " clamped" if held == v.size else f" {held} sites clamped"
            lines.append(f"  {v}{note}")
        names = ": " + ", ".join(self.parameter_extents) if self.parameters else ""
        return "\n".join([*lines, f"  {self.parameter_count:,} parameters{names}"])

    @property
    def parameter_extents(self) -> list[str]:
        """For each parameter its name and shape, and for each potential the size of its arrays."""
        held = zip(self.skeleton.slots, self.slots, self.learnt, strict=True)
        return [
            r.name + _extent(value) + ("" if any(jax.tree.leaves(mask)) else " fixed")
            for r, value, mask in held
            if r.name is not None
        ]

    def __repr__(self) -> str:
        return str(self)


def known_value(value: Any, otherwise: Any) -> Any:
    """The value of a number, an array or a parameter; `otherwise` if it is not known yet."""
    plain = paramax.unwrap(value.value if isinstance(value, Value) else value)
    return otherwise if isinstance(plain, Expression) or is_traced(plain) else plain


_draw_graph: list[Callable[[Model, str | None], Any]] = []


def draw_graphs_by(function: Callable[[Model, str | None], Any]) -> None:
    """Set the function that `Model.graph` calls; a later layer of the package provides it."""
    _draw_graph[:] = [function]


def _replace(model: Model, **changes: Any) -> Model:
    new = object.__new__(Model)
    for field in dataclasses.fields(Model):
        object.__setattr__(new, field.name, changes.get(field.name, getattr(model, field.name)))
    return new


def over(expression: Expression, *models: Model) -> Model:
    """A model of this energy, with the evidence of the given models."""
    new = Model(expression)
    evidence, clamped = together([model.held for model in models])
    return _replace(new, skeleton=new.skeleton.holding(clamped), evidence=evidence)


def _scalar(energy: object) -> Expression:
    if not isinstance(energy, Expression):
        raise TypeError(
            f"Model got {type(energy).__name__}; expected a scalar expression of variables, "
            "such as -J * (s[1:] * s[:-1]).sum()."
        )
    if energy.shape:
        raise ValueError(
            f"Model got an energy of shape {energy.shape}; expected a scalar. Sum it with .sum(), "
            "or make a network with out_size='scalar'."
        )
    return energy


def _check_names(slots: Sequence[Slot], variables: list[Variable]) -> None:
    """Refuse a parameter that has the name of a variable, as both are printed by name."""
    both = {v.name for v in variables} & {slot.name for slot in slots}
    if both:
        raise ValueError(f"A variable and a parameter are both named {min(both)!r}; rename one.")


def _distinct(variables: list[Variable]) -> list[Variable]:
    by_name: dict[str, Variable] = {}
    for v in variables:
        if by_name.setdefault(v.name, v) != v:
            raise ValueError(
                f"Two variables are named {v.name!r}: {by_name[v.name]} and {v}. "
                "Rename one, or declare it once and use it twice."
            )
    return variables


def _check_whole_input(variable: Variable, sites: np.ndarray) -> None:
    """Refuse a value of only some sites of an input that has no value yet."""
    lacking = variable.size - len(np.unique(sites))
    if variable.given and lacking:
        raise ValueError(
            f"condition gives {len(np.unique(sites))} of the {variable.size} sites of the input "
            f"{variable.name!r}, which has no value yet; an input is given whole."
        )


def _is_frozen(leaf: Any) -> bool:
    return isinstance(leaf, paramax.NonTrainable)


def _moves(leaf: Any, record: Slot) -> bool:
    """Whether learning updates this leaf of a slot's value."""
    learnt = record.name is not None and not record.frozen
    return learnt and not _is_frozen(leaf) and eqx.is_inexact_array(leaf)


def _extent(value: Any) -> str:
    """The shape of an array parameter, or the total size of a potential's arrays, as text."""
    plain = paramax.unwrap(value)
    if eqx.is_array(plain):
        return f" {plain.shape}" if plain.shape else ""
    return f" ({sum(a.size for a in jax.tree.leaves(plain) if eqx.is_inexact_array(a))} numbers)"
