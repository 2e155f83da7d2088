"""Expressions: NumPy-like arithmetic over views of variables, kept as a tree.

A tree is plain Python: what it computes is decided by its nodes, what it computes *with*
(parameters, index arrays, potentials) hangs at its leaves until a `Model` takes them out into
slots, so that the tree which remains is pure structure.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import paramax
import scipy.sparse as sp
from jax import Array

from energydsl._types import is_traced
from energydsl.operation import OPERATIONS, Move, broadcast
from energydsl.variable import Variable


@dataclasses.dataclass(frozen=True)
class Environment:
    """What a tree is evaluated in: values of variables, parameters and index arrays."""

    variables: dict[str, Array]
    parameters: Sequence[Any]
    indices: Sequence[Array]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """An array-valued function of variables and parameters; combine it as you would NumPy arrays.

    Indexing, ``+ - * / ** @``, comparisons, `abs`, `.sum`, `.mean`, `.T` and `.reshape` work as
    NumPy's do; `energydsl.exp` and its siblings, `roll`, `where` and `apply` give the rest. An
    elementwise expression is a batch of small factors, one an element.
    """

    children: tuple[Expression, ...]
    shape: tuple[int, ...]

    # NumPy must leave `array @ view` to us.
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def compute(self, env: Environment, *values: Array) -> Array:
        """The node's own step: its value from its children's."""
        raise TypeError(f"{type(self).__name__} has no value of its own.")

    @property
    def key(self) -> tuple:
        """What tells this node from another over the same children."""
        return ()

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        """The node as a user would write it, and how tightly it binds."""
        return f"{type(self).__name__.lower()}({', '.join(t for t, _ in operands)})", 9

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def T(self) -> Expression:
        return Rearrange.of(self, Move.transpose(self.ndim))

    def __add__(self, other: object) -> Expression:
        return elementwise("add", self, other)

    def __radd__(self, other: object) -> Expression:
        # The builtin sum() starts from 0.
        return self if isinstance(other, int) and other == 0 else elementwise("add", other, self)

    def __sub__(self, other: object) -> Expression:
        return elementwise("subtract", self, other)

    def __rsub__(self, other: object) -> Expression:
        return elementwise("subtract", other, self)

    def __mul__(self, other: object) -> Expression:
        return elementwise("multiply", self, other)

    def __rmul__(self, other: object) -> Expression:
        return elementwise("multiply", other, self)

    def __truediv__(self, other: object) -> Expression:
        return elementwise("divide", self, other)

    def __rtruediv__(self, other: object) -> Expression:
        return elementwise("divide", other, self)

    def __pow__(self, exponent: object) -> Expression:
        # A number here is structure: x**2 is quadratic, whatever is learnt.
        if isinstance(exponent, int | float):
            return elementwise("power", self, static=float(exponent))
        return elementwise("power", self, exponent)

    def __rpow__(self, base: object) -> Expression:
        return elementwise("power", base, self)

    def __neg__(self) -> Expression:
        return elementwise("negative", self)

    def __abs__(self) -> Expression:
        return elementwise("abs", self)

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

    def __matmul__(self, other: object) -> Expression:
        if sp.issparse(other):
            return SparseProduct(self, other)  # type: ignore[return-value]
        return matmul(self, other)

    def __rmatmul__(self, other: object) -> Expression:
        return matmul(other, self)

    def __getitem__(self, index: object) -> Expression:
        return _index(self, index)

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """Sum over `axis`, or over all: a sum closes a batch of factors."""
        axes = tuple(range(self.ndim)) if axis is None else _axes(axis, self.ndim)
        return Sum.of(self, axes)

    def mean(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """Mean over `axis`, or over all."""
        total = self.sum(axis)
        return total / (self.size // max(total.size, 1))

    def reshape(self, *shape: int) -> Expression:
        return Rearrange.of(self, Move.reshape(shape))

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

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        return self.variable.name, 9


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Parameter(Expression):
    """An array that learning may move, or a number that it leaves alone.

    `value` is an array, a number, or a paramax wrapper; in a model's own tree it is the number
    of a slot in ``model.parameters``.
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

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        plain = paramax.unwrap(self.value)
        if self.shape or plain is None or is_traced(plain):
            return "f32" + str(list(self.shape)).replace(" ", ""), 9
        number = f"{np.asarray(plain).item():.6g}"
        return number, 9 if not number.startswith("-") else 7


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
        return OPERATIONS[self.operation].function(*values, *extra)

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        extra = () if self.static is None else ((f"{self.static:g}", 9),)
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

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        return self.move.text(_wrap(operands[0], 9)), 9


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

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        return f"{_wrap(operands[0], 9)}[int{list(self.shape)}]".replace(", ", ","), 9


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
        return jnp.sum(values[0], axis=self.axes)

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        axis = ", ".join(map(str, self.axes)) if self.shape else ""
        return f"{_wrap(operands[0], 9)}.sum({axis})", 9


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatMul(Expression):
    """A matrix product: between variables, a dense pairwise factor."""

    def compute(self, env: Environment, *values: Array) -> Array:
        return jnp.matmul(*values)

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        return f"{_wrap(operands[0], 7)} @ {_wrap(operands[1], 8)}", 7


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
        blank = [jax.ShapeDtypeStruct(c.shape, energy_dtype(c)) for c in children]
        shape = jax.eval_shape(lambda *v: node.call(paramax.unwrap(function), *v), *blank).shape
        return dataclasses.replace(node, shape=shape)

    @property
    def key(self) -> tuple:
        return (self.slot, self.event_ndims, self.shape)

    @property
    def name(self) -> str:
        """What to call the function in messages."""
        return str(getattr(self.function, "name", type(self.function).__name__))

    def call(self, function: Any, *values: Array) -> Array:
        """`function.energy` over the batch of events."""
        if self.event_ndims is None:
            return jnp.asarray(function.energy(*values))
        batches = [v.shape[: v.ndim - k] for v, k in zip(values, self.event_ndims, strict=True)]
        batch = broadcast(*batches, what=f"The batches of {self.name}'s arguments")
        call = function.energy
        for _ in batch:
            call = jax.vmap(call)
        events = [v.shape[len(b) :] for v, b in zip(values, batches, strict=True)]
        return call(*(jnp.broadcast_to(v, batch + e) for v, e in zip(values, events, strict=True)))

    def compute(self, env: Environment, *values: Array) -> Array:
        return self.call(env.parameters[self.slot], *values)  # type: ignore[index]

    def text(self, *operands: tuple[str, int]) -> tuple[str, int]:
        return f"{self.name}({', '.join(t for t, _ in operands)})", 9


@dataclasses.dataclass(frozen=True)
class SparseProduct:
    """``x @ S`` with a SciPy sparse matrix, waiting for ``@ y``: only stored entries are edges."""

    left: Expression
    matrix: sp.sparray

    def __matmul__(self, right: Expression) -> Expression:
        m, left = sp.coo_array(self.matrix), self.left
        rows, columns = m.coords
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


def render(root: Expression) -> str:
    """The tree as a user would write it."""
    return fold(root, lambda node, *operands: node.text(*operands))[0]


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
    if any(not isinstance(o, Expression) and _is_model(o) for o in operands):
        return NotImplemented
    children = tuple(as_expression(o) for o in operands)
    shape = broadcast(*(c.shape for c in children), what=f"The operands of {operation}")
    return Elementwise(children, shape, operation, static)


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

    def rule(node: Expression, *below: tuple[Variable, np.ndarray]):
        if isinstance(node, View):
            return node.variable, np.arange(node.size, dtype=np.int32).reshape(node.shape)
        if isinstance(node, Rearrange):
            return below[0][0], node.move(below[0][1])
        if isinstance(node, Gather):
            return below[0][0], np.asarray(below[0][1].ravel()[node.positions])
        raise TypeError(f"Expected a variable or a view of one, such as s[0, :]; got {node}.")

    return fold(view, rule)


def _index(operand: Expression, index: object) -> Expression:
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(p, Expression) for p in parts):
        raise TypeError(
            "An index must be known when the energy is written; to look a parameter up by the "
            "value of a variable, use ed.Table(table)(view)."
        )
    parts = tuple(np.asarray(p) if isinstance(p, list | jax.Array) else p for p in parts)
    numbers_ = np.arange(operand.size, dtype=np.int32).reshape(operand.shape)
    try:
        picked = numbers_[parts]  # type: ignore[index]
    except IndexError as error:
        raise IndexError(f"Index {index!r} does not fit shape {operand.shape}: {error}.") from None
    if any(isinstance(p, np.ndarray) for p in parts):
        return Gather((operand,), picked.shape, np.asarray(picked, order="C"))
    return Rearrange.of(operand, Move.index(parts))


def _axes(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"Axis {axis} is out of range for an expression of {ndim} axes.")
    return tuple(a % ndim for a in axes)


def _check_numbers(array: np.ndarray, infinite: bool) -> None:
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise TypeError(f"A parameter has dtype {array.dtype}; expected real numbers.")
    if np.iscomplexobj(array):
        raise TypeError("A parameter is complex; energies are real.")
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"A parameter of shape {array.shape} has {array[first]} at {first}; expected finite "
            "numbers. (For forbidden configurations, Table takes -inf as log_potential.)"
        )


def _is_model(value: object) -> bool:
    return hasattr(value, "skeleton")


def _wrap(operand: tuple[str, int], level: int) -> str:
    text, precedence = operand
    return text if precedence >= level else f"({text})"
