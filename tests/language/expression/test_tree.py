"""A kind of node is one class: what it computes, what it prints, what it is known by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import energydsl as ed
from energydsl.language.expression import Expression, Parameter, post_order
from energydsl.language.expression.operation import ATOM


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LogSumExp(Expression):
    """A node that the package does not have."""

    axis: int

    @property
    def key(self):
        return (self.axis,)

    def compute(self, env, *values):
        return jax.nn.logsumexp(values[0], axis=self.axis)

    def text(self, *operands):
        return f"logsumexp({operands[0][0]}, {self.axis})", ATOM


def logsumexp(operand, axis):
    shape = tuple(n for i, n in enumerate(operand.shape) if i != axis)
    return LogSumExp((operand,), shape, axis)


def test_a_new_node_needs_its_own_class_and_nothing_else():
    x, w = ed.real("x", (3, 2)), ed.parameter("w", np.ones(2))
    model = ed.Model((2 * logsumexp(x * w, 0)).sum())
    at = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    expected = 2 * np.log(np.exp(at).sum(0)).sum()
    np.testing.assert_allclose(model.energy({"x": at}), expected, rtol=1e-5)
    assert "E = (2 * logsumexp(x * w, 0)).sum()" in str(model)
    other = ed.Model((2 * logsumexp(ed.real("x", (2, 3)).T * w, 0)).sum())
    square = ed.real("x", (2, 2))
    rows, columns = (ed.Model(logsumexp(square, axis).sum()) for axis in (0, 1))
    assert len({model, other, rows, columns}) == 4
    doubled = (model + model).replace(w=[2, 2])
    expected = 4 * np.log(np.exp(2 * at).sum(0)).sum()
    np.testing.assert_allclose(doubled.energy({"x": at}), expected, rtol=1e-5)


def test_operators_make_nodes_of_either_side():
    x, w = ed.real("x", 2), ed.parameter("w", jnp.ones(2))
    made = [x + w, w + x, 1 - w, w @ x, x @ w, -w, w[0], w.T, w.reshape(2, 1), w.sum(), w**2, +w]
    assert all(isinstance(e, Expression) for e in made)
    assert all(any(isinstance(n, Parameter) for n in post_order(e)) for e in made)
    assert made[-1] is w
