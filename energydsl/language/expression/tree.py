"""Expressions: NumPy-like arithmetic over views of variables, kept as a tree.

A tree is plain Python: what it computes is decided by its nodes, what it computes *with*
(parameters, index arrays, potentials) hangs at its leaves until a `Model` takes them out into
slots, so that the tree which remains is pure structure.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import paramax
import scipy.sparse as sp
from jax import Array

from energydsl._types import is_traced
from energydsl.language.expression.operation import (
    ATOM,
    MULTIPLY,
    NEGATE,
    OPERATIONS,
    Move,
    Text,
    as_float,
    bracket,
    broadcast,
)
from energydsl.language.variable import Variable


@dataclasses.dataclass(frozen=True)
class Environment:
    """What a tree is evaluated in: values of variables, parameters and index arrays."""

    variables: dict[str, Array]
    parameters: Sequence[Any]
    indices: Sequence[Array]


class Arithmetic:
    """What combines with views and arrays into expressions, by Python's operators."""

    # NumPy must leave `array @ view` to us.
    __array_ufunc__ = None

    def __pos__(self) -> Expression:
        return as_expression(self)

    def __neg__(self) -> Expression:
        return elementwise("negative", self)

    def __abs__(self) -> Expression:
        return elementwise("abs", self)

    def __add__(self, other: object) -> Expression:
        return _operator("add", self, other)

    def __radd__(self, other: object) -> Expression:
        # The builtin sum() starts from 0.
        if isinstance(other, int) and other == 0:
            return as_expression(self)
        return elementwise("add", other, self)

    def __sub__(self, other: object) -> Expression:
        return _operator("subtract", self, other)

    def __rsub__(self, other: object) -> Expression:
        return elementwise("subtract", other, self)

    def __mul__(self, other: object) -> Expression:
        return _operator("multiply", self, other)

    def __rmul__(self, other: object) -> Expression:
        return elementwise("multiply", other, self)

    def __truediv__(self, other: object) -> Expression:
        return _operator("divide", self, other)

    def __rtruediv__(self, other: object) -> Expression:
        return elementwise("divide", other, self)

    def __pow__(self, exponent: object) -> Expression:
        # A number here is structure: x**2 is quadratic, whatever is learnt.
        if isinstance(exponent, numbers.Real):
            return elementwise("power", self, static=_exponent(exponent))
        return elementwise("power", self, exponent)

    def __rpow__(self, base: object) -> Expression:
        return elementwise("power", base, self)

    def __matmul__(self, other: object) -> Expression:
        if sp.issparse(other):
            return SparseProduct(as_expression(self), other)  # type: ignore[return-value]
        return matmul(self, other)

    def __rmatmul__(self, other: object) -> Expression:
        return matmul(other, self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Expression(Arithmetic):
    """An array-valued function of variables and parameters; combine it as you would NumPy arrays.

    Indexing, ``+ - * / ** @``, comparisons, `abs`, `.sum`, `.mean`, `.T` and `.reshape` work as
    NumPy's do; `energydsl.exp` and its siblings, `roll`, `where` and `apply` give the rest. An
    elementwise expression is a batch of small factors, one an element.
    """

    children: tuple[Expression, ...]
    shape: tuple[int, ...]

    __hash__ = object.__hash__

    def compute(self, env: Environment, *values: Array) -> Array:
        """The node's own step: its value from its children's."""
        raise TypeError(f"{type(self).__name__} has no value of its own.")

    @property
    def key(self) -> tuple:
        """What tells this node from another over the same children."""
        return ()

    def text(self, *operands: Text) -> Text:
        """The node as a user would write it, and how tightly it binds."""
        return f"{type(self).__name__.lower()}({', '.join(t for t, _ in operands)})", ATOM

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def T(self) -> Expression:
        return Rearrange.of(self, Move.transpose(self.ndim))

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return elementwise("equal", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return elementwise("not_equal", self, other)

    def __lt__(self, other: object) -> Expression:
        return elementwise("less", self, other)

    def __le__(self, other: object) -> Expression:
        return elementwise("less_equal", self, other)

    def __gt__(self, other: object) -> Expression:
        return elementwise("greater", self, other)

    def __ge__(self, other: object) -> Expression:
        return elementwise("greater_equal", self, other)

    def __getitem__(self, index: object) -> Expression:
        return _index(self, index)

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """Sum over `axis`, or over all: a sum closes a batch of factors."""
        return Sum.of(self, _axes(axis, self.ndim))

    def mean(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """Mean over `axis`, or over all."""
        if not self.size:
            raise ValueError(f"mean got {self}, of shape {self.shape}: no elements to average.")
        total = self.sum(axis)
        return total / (self.size // total.size)

    def reshape(self, *shape: int | tuple[int, ...]) -> Expression:
        """The same elements in another shape, given as NumPy takes it."""
        axes: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        return Rearrange.of(self, Move.reshape(tuple(operator.index(n) for n in axes)))

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"{self!r} is no array, so NumPy, SciPy and jax.numpy cannot take it. Use its own "
            "methods and energydsl's functions, ed.apply(function, view) for any JAX function, "
            "and x @ S @ y for a sparse matrix S."
        )

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "An expression has no truth value: `==` and `<` build energies. "
            "Use ed.where(condition, a, b), and `a.shape == b.shape` to compare arrays."
        )

    def __iter__(self) -> Iterator[Expression]:
        if not self.shape:
            raise TypeError("An expression of one element cannot be iterated.")
        return (self[i] for i in range(self.shape[0]))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("An expression of one element has no len().")
        return self.shape[0]

    def __str__(self) -> str:
        return render(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape}: {render(self)}>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class View(Expression):
    """All of one variable: the leaf that declarations return."""

    variable: Variable

    @staticmethod
    def of(variable: Variable) -> View:
        return View((), variable.shape, variable)

    @property
    def key(self) -> tuple:
        return (str(self.variable),)

    def compute(self, env: Environment, *values: Array) -> Array:
        return env.variables[self.variable.name].astype(self.variable.domain.energy_dtype)

    def text(self, *operands: Text) -> Text:
        return self.variable.name, ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Parameter(Expression):
    """An array that learning may move, or a number that it leaves alone.

    Arrays of integers and truth values (masks, counts) are left alone too. `value` is an array, a
    number, or a paramax wrapper; in a model's own tree it is the number of a slot in
    ``model.parameters``.
    """

    value: Any
    slot: int | None = None

    @staticmethod
    def of(value: Any, *, infinite: bool = False) -> Parameter:
        plain = paramax.unwrap(value)
        if not is_traced(plain):
            _check_numbers(np.asarray(plain), infinite)
        return Parameter((), tuple(jnp.shape(plain)), value)

    @property
    def key(self) -> tuple:
        return (self.slot, self.shape)

    def compute(self, env: Environment, *values: Array) -> Array:
        return env.parameters[self.slot]  # type: ignore[index]

    def text(self, *operands: Text) -> Text:
        plain = paramax.unwrap(self.value)
        if self.shape or plain is None or is_traced(plain):
            return "f32" + str(list(self.shape)).replace(" ", ""), ATOM
        return _number(np.asarray(plain).item())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Elementwise(Expression):
    """An operation applied element by element, operands broadcast."""

    operation: str
    static: float | None = None

    @property
    def key(self) -> tuple:
        return (self.operation, self.static)

    def compute(self, env: Environment, *values: Array) -> Array:
        return self.combine(*values)

    def combine(self, *values: Array) -> Array:
        """The operation on values: it needs nothing else."""
        extra = () if self.static is None else (self.static,)
        return OPERATIONS[self.operation].function(*map(as_float, values), *extra)

    def text(self, *operands: Text) -> Text:
        extra = () if self.static is None else (_number(self.static),)
        return OPERATIONS[self.operation].text(*operands, *extra)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rearrange(Expression):
    """The operand's elements, elsewhere: slices, rolls, transposes, reshapes."""

    move: Move

    @staticmethod
    def of(operand: Expression, move: Move) -> Rearrange:
        return Rearrange((operand,), move.shape(operand.shape), move)

    @property
    def key(self) -> tuple:
        return (str(self.move),)

    def compute(self, env: Environment, *values: Array) -> Array:
        return self.move(values[0])

    def text(self, *operands: Text) -> Text:
        return self.move.text(bracket(operands[0], ATOM)), ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Gather(Expression):
    """The operand's elements at the flat `positions` of an index array or a mask."""

    positions: np.ndarray
    slot: int | None = None

    @property
    def key(self) -> tuple:
        # The content of an index array is structure: it decides who interacts.
        return (self.slot, self.shape, self.positions.tobytes())

    def compute(self, env: Environment, *values: Array) -> Array:
        return values[0].ravel()[env.indices[self.slot]]  # type: ignore[index]

    def text(self, *operands: Text) -> Text:
        shape = ",".join(map(str, self.shape))
        return f"{bracket(operands[0], ATOM)}[int[{shape}]]", ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sum(Expression):
    """The sum over some axes."""

    axes: tuple[int, ...]

    @staticmethod
    def of(operand: Expression, axes: tuple[int, ...]) -> Expression:
        if not operand.shape:
            return operand
        shape = tuple(n for i, n in enumerate(operand.shape) if i not in axes)
        return Sum((operand,), shape, axes)

    @property
    def key(self) -> tuple:
        return self.axes

    def compute(self, env: Environment, *values: Array) -> Array:
        return jnp.sum(as_float(values[0]), axis=self.axes)

    def text(self, *operands: Text) -> Text:
        axis = str(self.axes if len(self.axes) != 1 else self.axes[0]) if self.shape else ""
        return f"{bracket(operands[0], ATOM)}.sum({axis})", ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatMul(Expression):
    """A matrix product: between variables, a dense pairwise factor."""

    def compute(self, env: Environment, *values: Array) -> Array:
        return jnp.matmul(*map(as_float, values))

    def text(self, *operands: Text) -> Text:
        left, right = bracket(operands[0], MULTIPLY), bracket(operands[1], MULTIPLY + 1)
        return f"{left} @ {right}", MULTIPLY


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Apply(Expression):
    """A function that the compiler does not look into, on the whole or on each event.

    `function` has an ``energy`` method. `event_ndims` says for each operand how many trailing
    axes one call takes, the rest being a batch; None means one call on everything.
    """

    function: Any
    event_ndims: tuple[int, ...] | None
    slot: int | None = None

    @staticmethod
    def of(
        function: Any, operands: Sequence[object], event_ndims: tuple[int, ...] | None = None
    ) -> Apply:
        children = tuple(as_expression(o) for o in operands)
        node = Apply(children, (), function, event_ndims)
        plain = paramax.unwrap(function)
        _check_owned(plain, node.name)
        _check_events(node)
        blank = [jax.ShapeDtypeStruct(c.shape, energy_dtype(c)) for c in children]
        result = jax.eval_shape(lambda *v: node.call(plain, *v), *blank)
        return dataclasses.replace(node, shape=result.shape)

    @property
    def key(self) -> tuple:
        return (self.slot, self.name, self.event_ndims, self.shape)

    @property
    def name(self) -> str:
        """What to call the function in messages."""
        return str(getattr(self.function, "name", type(self.function).__name__))

    @property
    def batch(self) -> tuple[int, ...]:
        """The shape of the batch of calls."""
        ndims = self.event_ndims or [c.ndim for c in self.children]
        shapes = [c.shape[: c.ndim - k] for c, k in zip(self.children, ndims, strict=True)]
        return broadcast(*shapes, what=f"The batches of {self.name}'s arguments")

    def one(self, function: Any, *values: Array) -> Array:
        """`function.energy` of one event, as floats."""
        value = function.energy(*values)
        if isinstance(value, Array | np.ndarray | numbers.Real) and _is_real(
            jnp.result_type(value)
        ):
            return as_float(jnp.asarray(value))
        what = f"dtype {value.dtype}" if isinstance(value, Array) else type(value).__name__
        raise TypeError(f"{self.name} returned {what}; expected one array of real numbers.")

    def call(self, function: Any, *values: Array) -> Array:
        """`function.energy` over the batch of events."""
        batch, ndims = self.batch, self.event_ndims or [v.ndim for v in values]
        call = functools.partial(self.one, function)
        for _ in batch:
            call = jax.vmap(call)
        events = [v.shape[v.ndim - k :] for v, k in zip(values, ndims, strict=True)]
        return call(*(jnp.broadcast_to(v, batch + e) for v, e in zip(values, events, strict=True)))

    def compute(self, env: Environment, *values: Array) -> Array:
        return self.call(env.parameters[self.slot], *values)  # type: ignore[index]

    def text(self, *operands: Text) -> Text:
        return f"{self.name}({', '.join(t for t, _ in operands)})", ATOM


@dataclasses.dataclass(frozen=True)
class SparseProduct:
    """``x @ S`` with a SciPy sparse matrix, waiting for ``@ y``: only stored entries are edges."""

    left: Expression
    matrix: sp.sparray | sp.spmatrix

    def __matmul__(self, right: Expression) -> Expression:
        m: Any = sp.coo_array(self.matrix)
        left, (rows, columns) = self.left, m.coords
        if left.shape != (m.shape[0],) or getattr(right, "shape", None) != (m.shape[1],):
            raise ValueError(
                f"x @ S @ y got x {left.shape}, S {m.shape}, y {getattr(right, 'shape', '?')}; "
                "expected x of S's rows and y of S's columns."
            )
        return (np.asarray(m.data) * left[rows] * right[columns]).sum()

    def __getattr__(self, name: str) -> NoReturn:
        raise TypeError(
            "A sparse matrix stands between two views: write x @ S @ y. For another use of S, "
            "take its edge list: (S.data * x[S.row] * y[S.col]).sum()."
        )


def post_order(root: Expression) -> Iterator[Expression]:
    """Every node once, children first; no recursion, so long sums are safe."""
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if id(node) in seen:
            continue
        if ready:
            seen.add(id(node))
            yield node
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.children))


def fold(root: Expression, rule: Callable[..., Any]) -> Any:
    """``rule(node, *results of its children)`` up the tree, shared nodes once."""
    results: dict[int, Any] = {}
    for node in post_order(root):
        results[id(node)] = rule(node, *(results[id(c)] for c in node.children))
    return results[id(root)]


def evaluate(root: Expression, env: Environment) -> Array:
    """The value of a tree."""
    return fold(root, lambda node, *values: node.compute(env, *values))


MAX_TEXT = 200_000
"""Characters of an energy that are printed: a part used twice is written out twice."""


def render(root: Expression) -> str:
    """The tree as a user would write it."""

    def rule(node: Expression, *operands: Text) -> Text:
        text, precedence = node.text(*operands)
        return (text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " ..."), precedence

    return fold(root, rule)[0]


def energy_dtype(root: Expression) -> np.dtype:
    """The dtype a tree evaluates to: integer for bare labels, otherwise float."""
    while isinstance(root, Rearrange | Gather):
        root = root.children[0]
    if isinstance(root, View):
        return root.variable.domain.energy_dtype
    if isinstance(root, Parameter):
        return np.dtype(jnp.result_type(paramax.unwrap(root.value)))
    return jnp.zeros(()).dtype


def as_expression(value: object) -> Expression:
    """Views stay; arrays and numbers become parameters."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, numbers.Number | np.ndarray | jax.Array | paramax.AbstractUnwrappable):
        return Parameter.of(value)
    raise TypeError(
        f"An energy got {type(value).__name__} {value!r:.60}; expected a view, an array or a "
        "number. (A model joins models: ed.Model(expression) first.)"
    )


def elementwise(operation: str, *operands: object, static: float | None = None) -> Expression:
    """Apply one of `OPERATIONS`, operands broadcast by NumPy's rules."""
    children = tuple(as_expression(o) for o in operands)
    shape = broadcast(*(c.shape for c in children), what=f"The operands of {operation}")
    return Elementwise(children, shape, operation, static)


def _operator(operation: str, left: object, right: object) -> Any:
    """An operation by its sign; a model on the right has signs of its own."""
    return NotImplemented if hasattr(right, "skeleton") else elementwise(operation, left, right)


def matmul(left: object, right: object) -> Expression:
    """``left @ right`` for vectors and matrices."""
    a, b = as_expression(left), as_expression(right)
    if not (1 <= a.ndim <= 2 and 1 <= b.ndim <= 2) or a.shape[-1] != b.shape[0]:
        raise ValueError(
            f"@ got shapes {a.shape} and {b.shape}; expected vectors or matrices whose inner "
            "sizes agree."
        )
    return MatMul((a, b), a.shape[:-1] + b.shape[1:])


def variables_of(root: Expression) -> list[Variable]:
    """The variables of a tree in the order of their first use."""
    found: dict[Variable, None] = {}
    for node in post_order(root):
        if isinstance(node, View):
            found.setdefault(node.variable)
    return list(found)


def sites_of(view: Expression) -> tuple[Variable, np.ndarray]:
    """The variable a view shows and the flat number of every site it shows.

    Raises:
        TypeError: the expression computes something, so that it is not a view.
    """

    def rule(node: Expression, *below: tuple[Variable, np.ndarray] | None):
        if isinstance(node, View):
            return node.variable, np.arange(node.size, dtype=np.int32).reshape(node.shape)
        if isinstance(node, Rearrange) and below[0]:
            return below[0][0], node.move(below[0][1])
        if isinstance(node, Gather) and below[0]:
            return below[0][0], np.asarray(below[0][1].ravel()[node.positions])
        return None

    found = fold(view, rule)
    if found is None:
        raise TypeError(f"Expected a variable or a view of one, such as s[0, :]; got {view}.")
    return found


def _index(operand: Expression, index: object) -> Expression:
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(p, Expression) for p in parts):
        raise TypeError(
            "An index must be known when the energy is written; to look a parameter up by the "
            "value of a variable, use ed.Table(table)(view)."
        )
    parts = tuple(np.asarray(p)[()] if isinstance(p, Array | np.ndarray) else p for p in parts)
    numbers_ = np.arange(operand.size, dtype=np.int32).reshape(operand.shape)
    try:
        picked = numbers_[parts]  # type: ignore[index]
    except IndexError as error:
        raise IndexError(f"Index {index!r} does not fit shape {operand.shape}: {error}.") from None
    if all(map(_is_basic, parts)):
        return Rearrange.of(operand, Move.index(parts))
    return Gather((operand,), picked.shape, np.asarray(picked, order="C"))


def _is_basic(part: object) -> bool:
    """Whether an index moves whole axes, so that no index array is needed."""
    whole = isinstance(part, int | np.integer) and not isinstance(part, bool)
    return whole or part is None or part is Ellipsis or isinstance(part, slice)


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Axes counted from 0, each once, in rising order; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple) else (axis,)))
    counted = {a % ndim for a in axes if -ndim <= a < ndim}
    if len(counted) < len(axes):
        raise ValueError(f"Axis {axis} is out of range, or given twice, for {ndim} axes.")
    return tuple(sorted(counted))


def _number(value: float) -> Text:
    # Python has no integer -0, and reads one back as 0.
    text = f"{value:.6g}" if value or math.copysign(1, value) > 0 else "-0.0"
    return text, NEGATE if text.startswith("-") else ATOM


def _exponent(value: numbers.Real) -> float:
    exponent = float(value)
    if not np.isfinite(exponent):
        raise ValueError(f"An exponent is {exponent}; expected a finite number.")
    # A whole exponent stays a product, defined and smooth below zero.
    return int(exponent) if exponent.is_integer() else exponent


def _check_numbers(array: np.ndarray, infinite: bool) -> None:
    if not _is_real(array.dtype):
        raise TypeError(f"A parameter has dtype {array.dtype}; expected real numbers.")
    with np.errstate(over="ignore"):
        # What float32 cannot hold would be infinite in the energy.
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"A parameter of shape {array.shape} has {array[first]} at {first}; expected finite "
            "numbers. (For forbidden configurations, Table takes -inf as log_potential.)"
        )


def _check_events(node: Apply) -> None:
    """Refuse operands that are too few, or have fewer axes than one call takes."""
    if node.event_ndims is None:
        return
    shapes = [c.shape for c in node.children]
    if len(shapes) != len(node.event_ndims) or any(
        len(shape) < k for shape, k in zip(shapes, node.event_ndims, strict=True)
    ):
        raise ValueError(
            f"{node.name} got arguments of shapes {shapes}; expected {len(node.event_ndims)}, "
            f"of at least {node.event_ndims} axes."
        )


def _check_owned(function: Any, name: str) -> None:
    """Refuse NaN in what a potential owns; infinities may be meant (a mask, a bound)."""
    for leaf in jax.tree.leaves(function):
        known = isinstance(leaf, Array | np.ndarray) and not is_traced(leaf)
        if known and jnp.issubdtype(leaf.dtype, jnp.floating) and np.isnan(leaf).any():
            raise ValueError(f"A parameter of {name}, of shape {leaf.shape}, has NaN.")


def _is_real(dtype: np.dtype) -> bool:
    """Whether numbers of this dtype, truth values among them, can be an energy."""
    numeric = jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)
    return numeric and not jnp.issubdtype(dtype, jnp.complexfloating)
