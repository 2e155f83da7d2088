"""The losses of objectives and their gradients, as `fit` computes them."""

import jax
import jax.numpy as jnp
import paramax

from energydsl.learning.moving import moved, moving_of

KEY = jax.random.key(0)


def loss_of(ebm, objective, data, key=KEY):
    """The loss as a function of what learning moves and of the key."""
    data = {n: jnp.asarray(a) for n, a in data.items()}
    state = objective.init(ebm, data, key=key)

    def loss(moving, key=key):
        learning, own = moved(ebm, objective, moving)
        return paramax.unwrap(own).loss(learning, data, state, key=key)[0]

    return loss


def slope(ebm, objective, data):
    """The loss and its gradient in what learning moves, compiled as `fit` compiles them."""
    loss = loss_of(ebm, objective, data)
    value, slopes = jax.jit(jax.value_and_grad(loss))(moving_of(ebm, objective))
    return float(value), jax.tree.leaves(slopes)
