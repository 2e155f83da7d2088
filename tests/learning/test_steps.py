"""What a step records, what optimizers see, epochs, and the average of the parameters."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
import pytest

import energydsl as ed
from energydsl.learning.steps import averaged

KEY = jr.key(0)
DATA = (2 * np.random.default_rng(0).integers(0, 2, (30, 4)) - 1).astype(np.int8)


def chain():
    s = ed.spin("s", 4)
    J, b = ed.parameter("J", 0.2), ed.parameter("b", np.float32([0.1, 0.2, 0.3, 0.4]))
    return ed.compile(ed.Model(-(J * (s[1:] * s[:-1]).sum()) - b @ s))


MACHINE = chain()


class Slope(ed.AbstractObjective):
    """A loss that is linear in the parameters: the sum of all."""

    def check(self, ebm, data):
        pass

    def init(self, ebm, data, *, key):
        return None

    def loss(self, ebm, batch, state, *, key):
        return sum(jnp.sum(a) for a in jax.tree.leaves(ebm.parameters)), (None, {})


def fit(objective=None, data=DATA, **options):
    options = {"key": KEY, "steps": 20, "progress": False} | options
    return ed.fit(MACHINE, objective or ed.MaximumLikelihood(), data, **options)


def test_a_learning_rate_is_recorded_where_the_optimizer_tells_it():
    rate = optax.linear_schedule(0.2, 0.1, 10)
    told = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    for optimizer in (told, optax.chain(optax.clip_by_global_norm(1.0), told)):
        _, history = fit(optimizer=optimizer)
        expected = [0.2 - 0.01 * min(t, 10) for t in range(20)]
        np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5)  # float32
    assert list(history) == ["loss", "learning_rate"]
    assert list(fit(optimizer=optax.adam(rate))[1]) == ["loss"]
    two = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    both = optax.multi_transform({"a": told, "b": two}, {"J": "a", "b": "b"})
    assert "learning_rate" not in fit(optimizer=both)[1]


def test_optimizers_treat_parameters_apart_by_name():
    decay = optax.add_decayed_weights(1.0, mask={"J": True, "b": False})
    learnt, _ = fit(Slope(), optimizer=optax.chain(decay, optax.sgd(0.1)), steps=1)
    assert float(learnt.parameters["J"]) == pytest.approx(0.2 - 0.1 * (1 + 0.2))
    np.testing.assert_allclose(learnt.parameters["b"], np.arange(4) * 0.1, atol=1e-7)

    def labels(parameters):
        return {n: "slow" if n == "J" else "fast" for n in parameters}

    rates = {"slow": optax.sgd(0.01), "fast": optax.sgd(1.0)}
    learnt, _ = fit(Slope(), optimizer=optax.multi_transform(rates, labels), steps=1)
    assert float(learnt.parameters["J"]) == pytest.approx(0.19)
    np.testing.assert_allclose(learnt.parameters["b"], np.arange(-9, -5) * 0.1, atol=1e-6)


def test_a_penalty_of_the_optimizer_is_no_term_of_the_energy():
    """Decay shrinks what it is told to; the energy and its log Z are those of the model alone."""
    decay = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    learnt, history = fit(optimizer=decay, steps=1)
    plain, same_history = fit(optimizer=optax.sgd(0.1), steps=1)
    assert history["loss"] == same_history["loss"]
    assert str(learnt.model.expression) == str(MACHINE.model.expression)
    gap = float(plain.parameters["J"]) - float(learnt.parameters["J"])
    assert gap == pytest.approx(0.1 * 0.5 * 0.2, rel=1e-4)  # a difference in float32


def test_wrapped_parameters_are_masked_and_decayed_inside_their_constraint():
    y = ed.real("y", 2)
    mean = ed.parameter("mean", paramax.Parameterize(jnp.exp, jnp.full(2, 0.7)))
    field = ed.Linear(jnp.ones(2))
    ebm = ed.compile(ed.Model(0.5 * ((y - mean) ** 2).sum() + field(y)))

    def learnt(*decay):
        optimizer = optax.chain(*decay, optax.sgd(0.1))
        found, _ = ed.fit(ebm, ed.MaximumLikelihood(), np.zeros((5, 2)), key=KEY, steps=1,
                          optimizer=optimizer, progress=False)  # fmt: skip
        return found.parameters

    mask = {"mean": True, "Linear.bias": False}
    plain, decayed = learnt(), learnt(optax.add_decayed_weights(1.0, mask=mask))
    assert np.array_equal(plain["Linear.bias"], decayed["Linear.bias"])
    gap = jnp.log(paramax.unwrap(plain["mean"])) - jnp.log(paramax.unwrap(decayed["mean"]))
    np.testing.assert_allclose(gap, 0.1 * 0.7, atol=1e-6)


def test_epochs_count_whole_batches():
    _, history = fit(Slope(), steps=None, epochs=3, batch=8)
    assert len(history["loss"]) == 3 * (30 // 8)
    _, history = fit(Slope(), steps=None, epochs=3)
    assert len(history["loss"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2}, "steps=20 and epochs=2; give one of them"),
        ({"steps": None, "epochs": 0}, "epochs=0; expected a whole number"),
        ({"steps": None, "epochs": 1.5}, r"epochs=1\.5; expected a whole number"),
        ({"steps": None, "epochs": 2, "data": iter([DATA])}, "epochs=2 and data that is no array"),
        ({"average": 1.0}, r"average=1\.0; expected the share"),
        ({"average": 0.0}, r"average=0\.0; expected the share"),
        ({"average": True}, "average=True; expected the share"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def trajectory(steps):
    """The field b[0] after each step of the loss that is linear, but for the rate's decay."""
    return 0.1 - np.cumsum([0.5 * 0.9**t for t in range(steps)])


RATE = optax.exponential_decay(0.5, 1, 0.9)


@pytest.mark.parametrize("steps", [1, 2, 13])
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_that_of_the_parameters_after_each_step(steps, decay):
    learnt, _ = fit(Slope(), optimizer=optax.sgd(RATE), steps=steps, average=decay)
    weights = decay ** np.arange(steps)[::-1]
    expected = (weights * trajectory(steps)).sum() / weights.sum()
    np.testing.assert_allclose(learnt.parameters["b"][0], expected, rtol=1e-5)  # float32


def test_an_average_over_very_many_steps_does_not_lose_its_digits():
    """With hardly any decay it is the plain mean, whose weights differ in the last digits only."""
    decay, average = jnp.asarray(0.9999999), jnp.zeros(())
    for step, value in enumerate((0.0, 1.0, 2.0, 3.0, 4.0)):
        average = averaged(average, jnp.asarray(value), decay, step)
    assert float(average) == pytest.approx(2.5, rel=1e-6)


def test_what_is_averaged_is_measured_and_returned():
    learnt, history = fit(held_out=DATA, every=5, average=0.9, optimizer=optax.sgd(0.5))
    bare, _ = fit(optimizer=optax.sgd(0.5))
    again = ed.log_likelihood(learnt, DATA).value
    assert history.held_out.values[-1] == pytest.approx(-again, rel=1e-6)
    assert float(learnt.parameters["J"]) != float(bare.parameters["J"])


def test_other_decays_compile_nothing(compilations):
    fit(average=0.9)
    compilations.clear()
    fit(average=0.99)
    assert not compilations


def test_the_average_up_to_a_broken_step_is_returned():
    class Breaks(Slope):
        def init(self, ebm, data, *, key):
            return jnp.zeros((), int)

        def loss(self, ebm, batch, state, *, key):
            loss, _ = super().loss(ebm, batch, state, key=key)
            return jnp.where(state < 6, loss, jnp.nan), (state + 1, {})

    with pytest.warns(UserWarning, match="stopped after 6 steps"):
        learnt, _ = fit(Breaks(), optimizer=optax.sgd(RATE), average=0.9)
    weights = 0.9 ** np.arange(5)[::-1]  # the sixth update follows from the last sound loss
    expected = (weights * trajectory(5)).sum() / weights.sum()
    np.testing.assert_allclose(learnt.parameters["b"][0], expected, rtol=1e-5)
