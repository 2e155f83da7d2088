"""Constraints of parameters, each with the unconstrained numbers that learning updates.

A constraint is stored in place of a parameter's array. `unwrap` gives the constrained array, which
the energy uses; `at` finds the unconstrained numbers of another array.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import numbers
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax import Array

from energydsl._messages import brief
from energydsl._types import is_traced

ROUNDING = 16
"""How many roundings of its largest entry may separate a matrix from its transpose: matrix products
that are symmetric on paper are so only up to rounding."""


class AbstractConstraint(paramax.AbstractUnwrappable[Array]):
    """An array with a constraint, stored as unconstrained numbers."""

    @property
    @abc.abstractmethod
    def words(self) -> str:
        """The constraint in words, to follow the parameter's name and shape."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """The number of real numbers that learning updates."""

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds of all entries, whatever the unconstrained numbers."""
        return -math.inf, math.inf

    @property
    def positive(self) -> bool:
        """Whether all entries are above 0, whatever the unconstrained numbers."""
        return False

    @abc.abstractmethod
    def at(self, value: Any, what: str) -> Self:
        """The same constraint at another value.

        Args:
            value: a finite array of the present shape and dtype; for `LowRank` also two factors.
            what: the name of the parameter in messages.

        Raises:
            ValueError: the value violates the constraint. Traced values are not checked.
        """


@dataclasses.dataclass(frozen=True)
class Everywhere:
    """All real numbers."""

    low: ClassVar[float] = -math.inf
    high: ClassVar[float] = math.inf
    words: ClassVar[str] = ""
    expected: ClassVar[str] = "real numbers"

    def forward(self, free: Array) -> Array:
        return free

    def inverse(self, value: Any) -> Any:
        return value

    def outside(self, value: np.ndarray) -> np.ndarray:
        """True at the entries that violate the constraint."""
        return np.zeros(value.shape, bool)


@dataclasses.dataclass(frozen=True)
class Positive:
    r"""The numbers above 0: $v = e^a$, within the range of normal floats.

    The unconstrained $a = \log v$ is rounded to a float, so that in float32 $v$ between $10^{-6}$
    and $10^6$ is kept with a relative error below $10^{-6}$.
    """

    low: ClassVar[float] = 0.0
    high: ClassVar[float] = math.inf
    words: ClassVar[str] = "positive"
    expected: ClassVar[str] = "numbers above 0"

    def forward(self, free: Array) -> Array:
        limits = np.finfo(free.dtype)
        low, high = math.log(float(limits.tiny)), math.log(float(limits.max))
        # Within a margin of the limits, which the rounded exponential must not pass.
        return jnp.exp(jnp.clip(free, low + 0.1, high - 0.1))

    def inverse(self, value: Any) -> Any:
        return _module(value).log(value)

    def outside(self, value: np.ndarray) -> np.ndarray:
        """True at the entries that violate the constraint."""
        return ~(value > 0)


@dataclasses.dataclass(frozen=True)
class Between:
    r"""The numbers between two ends, without these: $v = l + (h - l) / (1 + e^{-a})$."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return f"between {self.low:g} and {self.high:g}"

    @property
    def expected(self) -> str:
        return f"numbers above {self.low:g} and below {self.high:g}, these two not included"

    def ends(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """The ends in the dtype of the parameter."""
        return np.asarray(self.low, dtype), np.asarray(self.high, dtype)

    def forward(self, free: Array) -> Array:
        low, high = self.ends(free.dtype)
        value = low + (high - low) * jax.nn.sigmoid(free)
        # The logistic function of a large number is rounded to an end.
        return jnp.clip(value, _beside(low, high), _beside(high, low))

    def inverse(self, value: Any) -> Any:
        low, high = self.ends(jnp.zeros(()).dtype)
        log = _module(value).log
        return log(value - low) - log(high - value)

    def outside(self, value: np.ndarray) -> np.ndarray:
        """True at the entries that violate the constraint."""
        low, high = self.ends(value.dtype)
        return ~((value > low) & (value < high))


class Entries(AbstractConstraint):
    """An array whose entries lie in a range, or matrices that are symmetric or have no diagonal.

    `free` has the array's shape. Of a symmetric matrix it is the upper triangle, whose entries are
    each used twice: the derivative in one of them is the sum over both places. Entries that are not
    used are 0, and so are the derivatives in them.
    """

    free: Array
    range: Everywhere | Positive | Between = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    zero_diagonal: bool = eqx.field(static=True)

    def unwrap(self) -> Array:
        value = self.range.forward(self.free)
        if self.symmetric or self.zero_diagonal:
            value = jnp.where(self._used(jnp), value, 0.0)
        return value + jnp.triu(value, 1).mT if self.symmetric else value

    def at(self, value: Any, what: str) -> Entries:
        dtype = value.dtype
        if not is_traced(value):
            value = np.asarray(value)
            self._check(value, what)
            value = value.astype(np.float64)
        m, used = _module(value), self._used(np)
        if self.symmetric:
            value = (value + m.swapaxes(value, -1, -2)) / 2
        # Unused entries, such as the zeros of a diagonal, may lie outside the range.
        inside = self.range.forward(jnp.zeros((), dtype))
        free = m.where(used, self.range.inverse(m.where(used, value, inside)), 0.0)
        return dataclasses.replace(self, free=jnp.asarray(free, dtype))

    @property
    def words(self) -> str:
        kinds = [w for w in ("symmetric" * self.symmetric, self.range.words) if w]
        said = [" and ".join(kinds)] if kinds else []
        return " ".join([*said, "with zero diagonal"] if self.zero_diagonal else said)

    @property
    def count(self) -> int:
        batch = math.prod(self.free.shape[:-2]) if self.symmetric or self.zero_diagonal else 1
        return batch * int(self._used(np).sum())

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self.range.low, self.range.high
        return (min(low, 0.0), max(high, 0.0)) if self.zero_diagonal else (low, high)

    @property
    def positive(self) -> bool:
        return self.range.low >= 0 and not self.zero_diagonal

    def _used(self, m: Any) -> Any:
        """True at the entries that hold a number of their own."""
        if not self.symmetric and not self.zero_diagonal:
            return m.ones(self.free.shape, bool)
        square = m.ones(self.free.shape[-2:], bool)
        if self.symmetric:
            return m.triu(square, int(self.zero_diagonal))
        return ~m.eye(len(square), dtype=bool)

    def _check(self, value: np.ndarray, what: str) -> None:
        if self.symmetric:
            turned = np.swapaxes(value, -1, -2)
            limit = ROUNDING * np.finfo(value.dtype).eps * np.abs(value).max(initial=0.0)
            where = _first(np.abs(value - turned) > limit)
            if where is not None:
                back = (*where[:-2], where[-1], where[-2])
                raise ValueError(
                    f"{what} is symmetric, but the given array has {value[where]:g} at {where} and "
                    f"{turned[where]:g} at {back}. Give a symmetric one, such as (W + W.T) / 2."
                )
        if self.zero_diagonal:
            where = _first((value != 0) & np.eye(value.shape[-1], dtype=bool))
            if where is not None:
                raise ValueError(
                    f"{what} has a zero diagonal, but the given array has {value[where]:g} at "
                    f"{where}. Give zeros there: W * (1 - np.eye({value.shape[-1]}))."
                )
        outside = self.range.outside(value)
        if self.zero_diagonal:
            outside &= ~np.eye(value.shape[-1], dtype=bool)
        where = _first(outside)
        if where is not None:
            place = f" at {where}" if where else ""
            raise ValueError(
                f"{what} is {self.range.words}, but is given {value[where]:g}{place}; expected "
                f"{self.range.expected}."
            )


class LowRank(AbstractConstraint):
    """Matrices of rank r, stored as two factors: W = L R^T."""

    left: Array
    right: Array

    def unwrap(self) -> Array:
        return self.left @ self.right.mT

    def at(self, value: Any, what: str) -> LowRank:
        if isinstance(value, tuple):
            return LowRank(*map(jnp.asarray, value))
        rank = self.left.shape[-1]
        if is_traced(value):
            raise TypeError(
                f"{what} is of rank {rank}, and is given a matrix inside a JAX transformation, "
                f"where its factors are not found. Give the factors (L, R) of W = L @ R.T, of "
                f"shapes {self.left.shape} and {self.right.shape}."
            )
        left, sizes, right = np.linalg.svd(np.asarray(value, np.float64), full_matrices=False)
        above = sizes[..., rank:] > _rounding(value) * sizes[..., :1]
        if above.any():
            raise ValueError(
                f"{what} is of rank {rank}, but the given matrix is of a higher one: its singular "
                f"values begin with {_listed(sizes, rank + 1)}. Give a matrix of rank {rank}, or "
                "its factors (L, R) with W = L @ R.T."
            )
        scale = np.sqrt(sizes[..., None, :rank])
        left, right = left[..., :rank] * scale, np.swapaxes(right[..., :rank, :], -1, -2) * scale
        return LowRank(jnp.asarray(left, value.dtype), jnp.asarray(right, value.dtype))

    @property
    def words(self) -> str:
        return f"of rank {self.left.shape[-1]}"

    @property
    def count(self) -> int:
        return self.left.size + self.right.size


def constrained(
    value: Any,
    what: str,
    *,
    symmetric: bool = False,
    zero_diagonal: bool = False,
    positive: bool = False,
    bounded: tuple[float, float] | None = None,
    low_rank: int | None = None,
) -> Any:
    """The array with these constraints, or unchanged if there are none.

    Args:
        value: the initial value, an array; with `low_rank` also a tuple of two factors.
        what: the name of the parameter in messages.
        symmetric: whether the last two axes are those of symmetric matrices.
        zero_diagonal: whether they are those of square matrices with zeros on the diagonal.
        positive: whether the entries are positive.
        bounded: the ends between which the entries lie.
        low_rank: the rank of the matrices in the last two axes.

    Raises:
        TypeError: a setting is of another type.
        ValueError: the constraints exclude each other, or do not fit the value.
    """
    for name, flag in (
        ("symmetric", symmetric), ("zero_diagonal", zero_diagonal), ("positive", positive)
    ):  # fmt: skip
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{what} got {name}={brief(flag)}; expected True or False.")
    if low_rank is not None:
        others = {
            "symmetric": symmetric,
            "zero_diagonal": zero_diagonal,
            "positive": positive,
            "bounded": bounded is not None,
        }
        _check_alone([name for name, asked in others.items() if asked], what)
        return _low_rank(value, low_rank, what)
    if positive and bounded is not None:
        raise ValueError(
            f"{what} got positive=True and bounded={bounded}; give one of the two: with "
            "bounded=(low, high), numbers are positive where low is at least 0."
        )
    range = Between(*_ends(bounded, what)) if bounded is not None else Everywhere()
    range = Positive() if positive else range
    if symmetric or zero_diagonal:
        _check_square(value, "symmetric" if symmetric else "zero_diagonal", what)
    elif range == Everywhere():
        return value
    return Entries(value, range, bool(symmetric), bool(zero_diagonal)).at(value, what)


def are_factors(value: Any) -> bool:
    """Whether a value is two factors of a matrix: a tuple of two arrays of at least two axes."""
    return isinstance(value, tuple) and len(value) == 2 and all(np.ndim(a) >= 2 for a in value)


def shown(value: Any) -> Any:
    """A parameter's stored value as users see it: the array that a constraint stands for."""
    return value.unwrap() if isinstance(value, AbstractConstraint) else value


def _low_rank(value: Any, rank: Any, what: str) -> LowRank:
    if not isinstance(rank, int | np.integer) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"{what} got low_rank={brief(rank)}; expected a whole number, 1 or more.")
    if isinstance(value, tuple):
        left, right = value
        same = left.shape[:-2] == right.shape[:-2]
        if not same or not left.shape[-1] == right.shape[-1] == rank:
            raise ValueError(
                f"{what} of rank {rank} got factors of shapes {left.shape} and {right.shape}; "
                f"expected (n, {rank}) and (m, {rank}) for a matrix (n, m) = L @ R.T."
            )
        if not is_traced(value):
            moves = np.asarray(left).any(axis=-2) | np.asarray(right).any(axis=-2)
            _check_moving(moves.all(), "two factors with a common column of zeros", what)
        return LowRank(left, right)
    if value.ndim < 2 or min(value.shape[-2:]) < rank:
        raise ValueError(
            f"{what} got low_rank={rank} and the shape {value.shape}; expected a matrix of at "
            f"least {rank} rows and columns."
        )
    *batch, n, m = value.shape
    blank = [jnp.zeros((*batch, k, int(rank)), value.dtype) for k in (n, m)]
    if not is_traced(value):
        sizes = np.linalg.svd(np.asarray(value, np.float64), compute_uv=False)
        moves = sizes[..., rank - 1] > _rounding(value) * sizes[..., 0]
        _check_moving(moves.all(), f"a matrix of a rank below {rank}", what)
    return LowRank(*blank).at(value, what)


def _check_moving(moves: np.bool_, given: str, what: str) -> None:
    if not moves:
        raise ValueError(
            f"{what} is given {given}. Learning would never move the missing part, as the "
            "derivative in two factors of 0 is 0. Give small random factors (L, R), with "
            "W = L @ R.T."
        )


def _rounding(value: Any) -> float:
    """The largest singular value, relative to the largest one, that rounding may cause."""
    return max(value.shape[-2:]) * float(np.finfo(value.dtype).eps)


def _listed(sizes: np.ndarray, count: int) -> str:
    return ", ".join(f"{s:.3g}" for s in sizes.reshape(-1, sizes.shape[-1])[0][:count])


def _check_alone(others: list[str], what: str) -> None:
    if not others:
        return
    why = {
        "symmetric": "a product of two different factors is not symmetric; declare one factor F, "
        "of shape (n, r), and write ((x @ F)**2).sum() for x' F F' x",
        "zero_diagonal": "without its diagonal a matrix is of higher rank; subtract the diagonal's "
        "share of the energy instead, as in (x @ F) @ (y @ G) - ((F * G).sum(1) * x * y).sum()",
        "positive": "the factors may have either sign; declare two positive factors instead and "
        "write (x @ F) @ (y @ G)",
        "bounded": "the entries of a product of factors are not bounded by themselves; declare "
        "two bounded factors instead and write (x @ F) @ (y @ G)",
    }
    raise ValueError(f"{what} got low_rank and {others[0]}: {why[others[0]]}.")


def _check_square(value: Any, name: str, what: str) -> None:
    if value.ndim < 2 or value.shape[-1] != value.shape[-2]:
        raise ValueError(
            f"{what} got {name}=True and the shape {tuple(value.shape)}; expected a square matrix, "
            "or a batch of them in the last two axes."
        )


def _ends(bounded: Any, what: str) -> tuple[float, float]:
    pair = isinstance(bounded, tuple | list) and len(bounded) == 2
    if not pair or not all(isinstance(e, numbers.Real) for e in bounded):
        raise TypeError(
            f"{what} got bounded={brief(bounded)}; expected two numbers, bounded=(low, high)."
        )
    low, high = map(float, bounded)
    if math.isinf(low) or math.isinf(high):
        raise ValueError(
            f"{what} got bounded=({low:g}, {high:g}); expected finite ends. Numbers above 0 are "
            "positive=True; for another half-line, add a number to a positive parameter."
        )
    dtype = jnp.zeros(()).dtype
    first, last = (np.asarray(e, dtype) for e in (low, high))
    if not first < _beside(first, last) < last:
        raise ValueError(
            f"{what} got bounded=({low:g}, {high:g}); expected low below high, with numbers of "
            f"{dtype} between them."
        )
    return low, high


def _beside(end: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The number next to one end of an interval, towards the other; 0 has no denormal neighbour."""
    near, tiny = np.nextafter(end, other), np.finfo(end.dtype).tiny
    return np.where(np.abs(near) < tiny, np.copysign(tiny, near), near).astype(end.dtype)


def _first(bad: np.ndarray) -> tuple[int, ...] | None:
    """The first place that is True."""
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None


def _module(value: Any) -> Any:
    """NumPy for arrays that can be read, which keeps float64; JAX for traced ones."""
    return jnp if is_traced(value) else np
