"""Which kernels are taken where none is given."""

import jax.random as jr
import numpy as np
import pytest

import energydsl as ed
from energydsl.compiler import recommendation
from energydsl.kernel import choose as choose_module
from energydsl.kernel.choose import cheapest, choose

S, X, P = ed.spin("s", 3), ed.real("x", 2), ed.positive("p")
QUARTIC = (X**4).sum()
MODELS = {
    "Gibbs()": -0.3 * (S[1:] * S[:-1]).sum() + (X**2).sum(),
    "Langevin": QUARTIC + P,
    "Cycle(Gibbs(), Langevin": QUARTIC + P - X[0] * S.sum(),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_cheapest_kernel_moves_every_site(name):
    ebm = ed.compile(ed.Model(MODELS[name]))
    kernel = cheapest(ebm)
    assert str(kernel).startswith(name)
    assert kernel.moves(ebm)[ebm.structure.free].all()


@pytest.mark.slow
def test_draws_are_by_the_kernel_that_explain_names_first():
    ebm = ed.compile(ed.Model(MODELS["Cycle(Gibbs(), Langevin"]))
    kernel, reason = choose(ebm)
    assert str(kernel) == "NUTS(summed=True)"
    chains = ed.sample(ebm, key=jr.key(0), warmup=2, draws=2, chains=2, progress=False)
    assert chains.kernel == kernel and chains.chosen == reason


@pytest.mark.slow
def test_contrastive_divergence_and_annealing_need_no_kernel():
    ebm = ed.compile(ed.Model(MODELS["Cycle(Gibbs(), Langevin"] * ed.parameter("scale", 0.5)))
    data = {"s": np.ones((4, 3), int), "x": np.zeros((4, 2)), "p": np.ones(4)}
    _, history = ed.fit(ebm, ed.ContrastiveDivergence(), data, key=jr.key(0), steps=2)
    assert np.isfinite(history["loss"]).all()
    found = ed.estimate_log_partition(ebm, ed.AIS(chains=8, temperatures=10), key=jr.key(0))
    assert np.isfinite(found.value)


def test_a_cycle_takes_kernels_only(untyped):
    with pytest.raises(TypeError, match=r"Cycle got Gibbs \(the class.*expected kernels such as"):
        ed.Cycle(ed.Gibbs)
    with pytest.raises(ValueError, match="Cycle got no kernels"):
        ed.Cycle()


def test_explain_and_the_choice_read_one_list(monkeypatch):
    """A kernel entered in the list is recommended, or refused with its reason."""

    class First(ed.MetropolisHastings):
        def merit(self, ebm):
            return "it comes first"

    monkeypatch.setattr(recommendation, "SAMPLERS", [First(), *recommendation.SAMPLERS])
    monkeypatch.setattr(choose_module, "SAMPLERS", recommendation.SAMPLERS)
    ebm = ed.compile(ed.Model(MODELS["Gibbs()"]))
    said = ebm.explain().as_dict()
    assert next(iter(said["samplers"].items())) == ("First", "it comes first")
    assert choose(ebm) == (First(), "it comes first")
    assert "it needs gradients" in said["samplers_refused"]["NUTS"]
    assert "Gibbs alone" in said["samplers_refused"]["Cycle(Gibbs, NUTS)"]


def test_explain_names_exact_draws_which_are_taken_only_if_nothing_else_suits():
    ebm = ed.compile(ed.Model(MODELS["Gibbs()"]))
    said = ebm.explain().as_dict()["samplers"]
    assert list(said)[:3] == ["Gibbs", "NUTS(summed=True)", "ExactDraws"]
    assert said["ExactDraws"].startswith("its draws are independent, by gaussian of 2 components,")
    assert str(choose(ebm)[0]) == str(cheapest(ebm)) == "Gibbs()"
    counts = ed.compile(ed.Model(0.5 * ed.count("n", 2).sum()))
    assert str(choose(counts)[0]) == "ExactDraws()"
    assert str(cheapest(counts)).startswith("MetropolisHastings")


@pytest.mark.parametrize(
    ("energy", "why"),
    [
        (QUARTIC * X.sum() ** 2 + P**3 * X[0] ** 2 + P, "no rule gives draws of this model"),
        ((ed.real("y", 9).sum() ** 2 + 1) ** 2, "no rule gives log Z"),
    ],
)
def test_explain_says_why_there_are_no_exact_draws(energy, why):
    assert ed.compile(ed.Model(energy)).explain().as_dict()["samplers_refused"]["ExactDraws"] == why
