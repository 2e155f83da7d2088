"""Expressions: NumPy-like arithmetic over views of variables, represented as a tree.

The nodes of a tree are its operations. The values that they use (numbers, data, parameters, index
arrays, potentials) are at its leaves until a `Model` moves them into slots; the tree that remains
is the model's structure.

Each kind of node has a file of its own. Operators are methods of every node and create nodes, so
they cannot import the other files: they look up the function that creates a node by its name, under
which the node's file registers it with `makes`.
"""

from __future__ import annotations

import dataclasses
import numbers
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
from jax import Array
from jax.interpreters import xla

from energydsl._messages import ON_EXPRESSION, hinted
from energydsl.language.expression.operation import ATOM, Text


@dataclasses.dataclass(frozen=True)
class Environment:
    """The values in which a tree is evaluated: of variables, of slots, and the index arrays."""

    variables: dict[str, Array]
    slots: Sequence[Any]
    indices: Sequence[Array]


def slot_number(slot: int | None) -> int:
    """The number of a slot, which only the nodes of a model's own tree have."""
    if slot is None:
        raise ValueError("Only a model's own tree has slots: model.skeleton.root.")
    return slot


_MAKERS: dict[str, Callable[..., Any]] = {}


def makes[F: Callable[..., Any]](name: str) -> Callable[[F], F]:
    """A decorator that registers a function by which operators create nodes."""

    def register(function: F) -> F:
        _MAKERS[name] = function
        return function

    return register


def make(name: str, *arguments: object, **settings: object) -> Any:
    """A new node, by the function that is registered under this name."""
    return _MAKERS[name](*arguments, **settings)


@hinted(ON_EXPRESSION)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """An array-valued function of variables and parameters, which is used as NumPy arrays are.

    Indexing, ``+ - * / ** @``, comparisons, ``& | ~`` of conditions, `abs`, `.sum`, `.mean`,
    `.max`, `.min`, `.T`, `.transpose` and `.reshape` work as NumPy's do, and so do NumPy's own
    functions: ``np.exp(x)``, ``np.where(x > 0, a, b)``. An index may be a variable of labels:
    ``mu[k]``. Other operations are functions of the package, such as `roll`, `conv` and `apply`.
    The sum of an elementwise expression is a batch of factors, one for each element.
    """

    children: tuple[Expression, ...]
    shape: tuple[int, ...]

    __hash__ = object.__hash__

    def compute(self, env: Environment, *values: Array) -> Array:
        """The value of the node from the values of its children."""
        return self.combine(*values)

    def combine(self, *values: Array) -> Array:
        """The value of a node that depends only on its children's values.

        A new kind of operation must implement this method and no other. The compiler then treats
        it as one function of all sites below it and assumes nothing about its values.
        """
        raise TypeError(f"{type(self).__name__} has no value of its own.")

    @property
    def events(self) -> tuple[int, ...] | None:
        """For each child, the number of trailing axes that one event has; the others are a batch.

        None where `combine` needs all axes. Otherwise `combine` must accept single events as well.
        """
        return None

    @property
    def stays_finite(self) -> bool:
        """Whether the value is certainly finite wherever its children's values are finite."""
        return False

    @property
    def key(self) -> tuple:
        """The fields that distinguish this node from another with the same children."""
        own = dataclasses.fields(self)[len(dataclasses.fields(Expression)) :]
        return tuple(getattr(self, field.name) for field in own)

    def text(self, *operands: Text) -> Text:
        """The node's text, as a user would write it, and its operator precedence."""
        return f"{type(self).__name__.lower()}({', '.join(t for t, _ in operands)})", ATOM

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def T(self) -> Expression:
        return make("transpose", self)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *operands: object, out: tuple = (), **settings: object
    ) -> Any:
        # `array += view` asks for the result in `array`, but then gives that name to the result.
        if out and not (len(out) == 1 and out[0] is operands[0]):
            settings["out"] = out
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        return make("numpy", function, operands, settings)

    def __array_function__(
        self, function: Any, types: object, operands: Sequence, settings: Any
    ) -> Any:
        return make("numpy", function, operands, settings)

    # A lambda, so that the caller is the one who asks.
    __jax_array__ = property(lambda self: _refuse_in_jax(self, sys._getframe(1)))

    def __pos__(self) -> Expression:
        return self

    # Operations that energies do not have: the message says what to write.
    def __mod__(self, other: object) -> Expression:
        return make("numpy", np.remainder, (self, other), {})

    def __rmod__(self, other: object) -> Expression:
        return make("numpy", np.remainder, (other, self), {})

    def __floordiv__(self, other: object) -> Expression:
        return make("numpy", np.floor_divide, (self, other), {})

    def __rfloordiv__(self, other: object) -> Expression:
        return make("numpy", np.floor_divide, (other, self), {})

    def __divmod__(self, other: object) -> Expression:
        return make("numpy", np.divmod, (self, other), {})

    def __lshift__(self, other: object) -> Expression:
        return make("numpy", np.left_shift, (self, other), {})

    def __rshift__(self, other: object) -> Expression:
        return make("numpy", np.right_shift, (self, other), {})

    def __neg__(self) -> Expression:
        return make("elementwise", "negative", self)

    def __abs__(self) -> Expression:
        return make("elementwise", "abs", self)

    def __add__(self, other: object) -> Expression:
        return make("operator", "add", self, other)

    def __radd__(self, other: object) -> Expression:
        # The builtin sum() starts from 0.
        if isinstance(other, int) and other == 0:
            return self
        return make("elementwise", "add", other, self)

    def __sub__(self, other: object) -> Expression:
        return make("operator", "subtract", self, other)

    def __rsub__(self, other: object) -> Expression:
        return make("elementwise", "subtract", other, self)

    def __mul__(self, other: object) -> Expression:
        return make("operator", "multiply", self, other)

    def __rmul__(self, other: object) -> Expression:
        return make("elementwise", "multiply", other, self)

    def __truediv__(self, other: object) -> Expression:
        return make("operator", "divide", self, other)

    def __rtruediv__(self, other: object) -> Expression:
        return make("elementwise", "divide", other, self)

    def __pow__(self, exponent: object) -> Expression:
        # A number here is part of the structure: x**2 remains quadratic, whatever is learnt.
        if isinstance(exponent, numbers.Real):
            return make("power", self, exponent)
        return make("elementwise", "power", self, exponent)

    def __rpow__(self, base: object) -> Expression:
        return make("elementwise", "power", base, self)

    def __matmul__(self, other: object) -> Expression:
        return make("matmul", self, other)

    def __rmatmul__(self, other: object) -> Expression:
        return make("matmul", other, self)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return make("elementwise", "equal", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return make("elementwise", "not_equal", self, other)

    def __lt__(self, other: object) -> Expression:
        return make("elementwise", "less", self, other)

    def __le__(self, other: object) -> Expression:
        return make("elementwise", "less_equal", self, other)

    def __gt__(self, other: object) -> Expression:
        return make("elementwise", "greater", self, other)

    def __ge__(self, other: object) -> Expression:
        return make("elementwise", "greater_equal", self, other)

    def __and__(self, other: object) -> Expression:
        return make("condition", "and", self, other)

    def __rand__(self, other: object) -> Expression:
        return make("condition", "and", other, self)

    def __or__(self, other: object) -> Expression:
        return make("condition", "or", self, other)

    def __ror__(self, other: object) -> Expression:
        return make("condition", "or", other, self)

    def __xor__(self, other: object) -> Expression:
        return make("condition", "xor", self, other)

    def __rxor__(self, other: object) -> Expression:
        return make("condition", "xor", other, self)

    def __invert__(self) -> Expression:
        return make("condition", "not", self)

    def __getitem__(self, index: object) -> Expression:
        return make("index", self, index)

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """The sum over `axis`, or over all elements, as in the sum of a batch of factors."""
        return make("sum", self, axis)

    def max(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """The largest element along `axis`, or of all."""
        return make("max", self, axis)

    def min(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """The smallest element along `axis`, or of all."""
        return make("min", self, axis)

    def mean(self, axis: int | tuple[int, ...] | None = None) -> Expression:
        """The mean over `axis`, or over all elements."""
        if not self.size:
            raise ValueError(f"mean got {self}, of shape {self.shape}: no elements to average.")
        total = self.sum(axis)
        return total / (self.size // total.size)

    def transpose(self, *axes: int | tuple[int, ...]) -> Expression:
        """The axes in another order, given as in NumPy; reversed if not given."""
        order: Any = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
        return make("transpose", self, *(operator.index(n) for n in order))

    def reshape(self, *shape: int | tuple[int, ...]) -> Expression:
        """The same elements in another shape, given as in NumPy."""
        axes: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        return make("reshape", self, axes)

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        if sys._getframe(1).f_code.co_name.startswith("_matmul"):
            # SciPy leaves S @ x to the operand on the right if that is no array of numbers.
            opaque = np.empty((), object)
            opaque[()] = self
            return opaque
        raise TypeError(
            f"{self!r:.200} is no array: its values are not known yet. NumPy's functions make "
            "expressions of it, such as np.exp(x), and ed.apply(function, x) calls any function of "
            "JAX. Write ed.take(array, k) for array[k] with a variable k as the index, and "
            "S @ x for products with a sparse matrix S. A masked array goes to the right of x; a "
            "table of pandas enters as an array: table.to_numpy()."
        )

    def __float__(self) -> NoReturn:
        raise TypeError(
            f"{self!r:.200} is no number: its value is not known yet. Write np.exp(x) or ed.exp(x) "
            "for math.exp(x), and leave out float(x)."
        )

    __int__ = __round__ = __float__

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "An expression has no truth value: `==` and `<` make expressions. For 0 < x < 1 write "
            "(0 < x) & (x < 1), for `and`, `or`, `not` write &, |, ~ between conditions in "
            "brackets, for `if` write ed.where(condition, a, b). Compare shapes by "
            "`a.shape == b.shape`."
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


def _refuse_in_jax(value: Expression, asker: FrameType | None = None) -> NoReturn:
    """Raise the message for a function of JAX, unless another asks for ``__jax_array__``.

    JAX's arrays ask for it in ``array * view``, which must be left to the methods of expressions.
    """
    if asker is not None:
        by_array = isinstance(asker.f_locals.get("self"), Array)
        if by_array or not str(asker.f_globals.get("__name__")).startswith("jax."):
            raise AttributeError("__jax_array__")
    # Not a TypeError, in place of which `jax.jit` raises an error of its own.
    raise ValueError(
        f"JAX got {value!s:.80}, which stands for values that are not known yet; expected an "
        "array. NumPy's functions make expressions: np.exp(x), np.dot(a, x), np.where(x > 0, a, "
        "b). Any function of JAX is one factor: ed.apply(lambda x: jnp.sort(x)[0], x), and so is a "
        "network: ed.Neural(network)(x). An array indexed by a variable k is ed.take(array, k)."
    )


# JAX's primitives, which networks call without `jax.numpy`, look for a type here.
if hasattr(xla, "canonicalize_dtype_handlers"):
    xla.canonicalize_dtype_handlers[Expression] = _refuse_in_jax


@runtime_checkable
class Branching(Protocol):
    """An object that has children of its own kind."""

    @property
    def children(self) -> tuple[Any, ...]: ...


def post_order[N: Branching](root: N) -> Iterator[N]:
    """Every node once, children first. Not recursive, so long sums reach no recursion limit."""
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


def fold(root: Branching, rule: Callable[..., Any]) -> Any:
    """The result of ``rule(node, *results of its children)`` at the root; visits nodes once."""
    results: dict[int, Any] = {}
    for node in post_order(root):
        results[id(node)] = rule(node, *(results[id(c)] for c in node.children))
    return results[id(root)]


def evaluate(root: Expression, env: Environment) -> Array:
    """The value of a tree."""
    return fold(root, lambda node, *values: node.compute(env, *values))


MAX_TEXT = 200_000
"""The most characters of an energy that are printed. A part that is used twice is printed twice,
so a small tree may have a long text."""


def render(root: Expression) -> str:
    """The text of a tree, as a user would write it."""

    def rule(node: Expression, *operands: Text) -> Text:
        text, precedence = node.text(*operands)
        return (text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " ..."), precedence

    return fold(root, rule)[0]
