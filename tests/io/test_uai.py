"""UAI files: what is read and written agrees with enumeration; bad files are refused in words."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import energydsl as ed
from energydsl.analysis.evaluation import as_double
from tests.oracles import network as oracle
from tests.oracles.network import Tables

ROUNDING = 1e-12
"""The error of a few hundred operations in float64 on numbers of order 1."""


def table(rng, *shape):
    return rng.gamma(1.0, size=shape)


def odd_network(seed=0):
    """Unequal cardinalities, scopes out of order, a constant, hard zeros, and a lone variable.

    Variables 5 and 6, of cardinalities that no other has, are in no function.
    """
    rng = np.random.default_rng(seed)
    cards = (3, 2, 4, 2, 1, 5, 2)
    scopes = [(2, 0), (1,), (3, 0, 2), (2, 3, 0), (0, 3, 1), (), (2, 4), (1, 3), (4,), ()]
    functions = [(s, table(rng, *(cards[i] for i in s))) for s in scopes]
    functions[2][1][1, :, 2] = 0.0
    functions[7][1][0, 1] = 0.0
    return Tables(cards, functions)


def bayes_network(seed=0):
    """Conditional probabilities: the last variable of each scope is the child."""
    rng = np.random.default_rng(seed)
    cards = (2, 3, 2, 4)
    scopes = [(3, 0), (2, 3, 1), (3,), (3, 2)]
    functions = []
    for scope in scopes:
        t = table(rng, *(cards[i] for i in scope))
        functions.append((scope, t / t.sum(axis=-1, keepdims=True)))
    return Tables(cards, functions)


@pytest.fixture
def file(tmp_path):
    def write(text, name="net.uai"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """JAX's default precision; enumeration must round the energies as it does."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def rounded(network, dtype):
    """The network with its energies rounded to the precision in which the package holds them."""
    with np.errstate(divide="ignore"):
        tables = [(s, -np.log(t)) for s, t in network.functions]
    lone = sum(t for s, t in tables if not s)
    functions = [(s, np.exp(-t.astype(dtype).astype(float))) for s, t in tables if s]
    return Tables(
        network.cards, [*functions, ((), np.exp(-np.asarray(lone).astype(dtype).astype(float)))]
    )


def energies(model, sites, rows):
    """The energies of configurations in the file's order of variables, in float64."""
    with jax.enable_x64(True):
        values = {
            v.name: np.zeros((len(rows), *v.shape), v.domain.dtype) for v in model.skeleton.free
        }
        for i, (name, index) in enumerate(sites):
            v = next(v for v in model.variables if v.name == name)
            values[name][(slice(None), *index)] = v.domain.values[rows[:, i]]
        double = as_double(model)
        moved = {name: jnp.asarray(array) for name, array in values.items()}
        return np.asarray(jax.vmap(double.energy)(moved))


def agree(model, sites, network, given=None):
    """Log Z, all marginals and the mode of a model are those of enumeration."""
    exact = oracle.law(network, given)
    ebm = ed.compile(model)
    assert float(ed.log_partition(ebm)) == pytest.approx(exact.log_z, abs=1e-9)
    found = ed.marginals(ebm)
    for (name, index), law in zip(sites, exact.marginals, strict=True):
        np.testing.assert_allclose(found[name].probabilities[index], law, atol=1e-9)
    best = model.complete(ed.map_configuration(ebm).configuration)
    levels = tuple(int(best[name][index]) for name, index in sites)
    row = np.ravel_multi_index(levels, network.cards)
    assert exact.joint[row] == pytest.approx(exact.joint.max(), rel=1e-6)


def test_a_file_has_the_energies_of_its_tables(file, precision):
    network = odd_network()
    path = file(oracle.text(network))
    model, sites = ed.io.read_uai(path), ed.io.uai_sites(path)
    assert sites == [
        ("x3", (0,)),
        ("x2", (0,)),
        ("x4", (0,)),
        ("x2", (1,)),
        ("x1", (0,)),
        ("x5", (0,)),
        ("x2", (2,)),
    ]
    with np.errstate(divide="ignore"):
        expected = -np.log(oracle.potential(rounded(network, precision)))
    found = energies(model, sites, oracle.states(network.cards))
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_a_file_has_the_law_of_its_tables(file, precision):
    network = odd_network()
    path = file(oracle.text(network))
    agree(ed.io.read_uai(path), ed.io.uai_sites(path), rounded(network, precision))


@st.composite
def networks(draw):
    """Up to five variables of one to four levels, and up to six functions of any scopes."""
    cards = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    scope = st.permutations(range(len(cards))).flatmap(
        lambda order: st.integers(0, min(3, len(cards))).map(lambda size: tuple(order[:size]))
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scopes = draw(st.lists(scope, max_size=6))
    tables = [table(rng, *(cards[i] for i in s)) * (rng.random() < 0.9) for s in scopes]
    return Tables(cards, list(zip(scopes, tables, strict=True)))


@settings(deadline=None, max_examples=8)
@given(network=networks())
def test_a_file_that_is_read_and_written_keeps_its_potentials(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("round")
    (folder / "net.uai").write_text(oracle.text(network))
    with jax.enable_x64(True):
        model = ed.io.read_uai(folder / "net.uai")
    back = ed.io.write_uai(model, folder / "again.uai")
    again = oracle.parsed((folder / "again.uai").read_text())
    number = {site: i for i, site in enumerate(back)}
    order = [number[site] for site in ed.io.uai_sites(folder / "net.uai")]
    found = oracle.potential(again).reshape(again.cards).transpose(order).ravel()
    np.testing.assert_allclose(found, oracle.potential(network), rtol=1e-12)


def test_evidence_conditions(file):
    network, given = odd_network(1), {3: 1, 2: 3, 0: 2}
    path = file(oracle.text(network))
    with jax.enable_x64(True):
        model = ed.io.read_uai(path, given)
        agree(model, ed.io.uai_sites(path), network, given)


def test_a_bayesian_network_is_normalised(file):
    network, given = bayes_network(), {1: 2, 0: 0}
    path = file(oracle.text(network, "BAYES"))
    with jax.enable_x64(True):
        free, held = (ed.compile(ed.io.read_uai(path, e)) for e in (None, given))
        assert float(ed.log_partition(free)) == pytest.approx(0.0, abs=1e-12)
        exact = oracle.law(network, given).log_z
        assert float(ed.log_partition(held)) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("where", [(), (0,)])
def test_tables_of_zeros_have_no_mass(file, where):
    network = Tables((2, 3), [((0, 1), np.ones((2, 3))), (where, np.zeros((2,) * len(where)))])
    ebm = ed.compile(ed.io.read_uai(file(oracle.text(network))))
    assert float(ed.log_partition(ebm)) == -np.inf
    for ask in (ed.marginals, ed.map_configuration):
        with pytest.raises(ValueError, match="Every configuration has infinite energy"):
            ask(ebm)


def test_variables_in_no_function_are_uniform(file):
    path = file("MARKOV 3 2 3 2 0")
    ebm = ed.compile(ed.io.read_uai(path))
    assert float(ed.log_partition(ebm)) == pytest.approx(np.log(12), abs=1e-9)


def test_like_tables_are_one_batch_and_many_are_read_fast(file, untyped):
    """10^4 tables of a tree whose variables have 2 or 3 levels, scopes in both orders."""
    rng, n = np.random.default_rng(0), 10_000
    cards = rng.integers(2, 4, n)
    scopes = [(0,)] + [
        tuple(rng.permutation([i, rng.integers(max(0, i - 50), i)])) for i in range(1, n)
    ]
    functions = [(s, table(rng, *cards[list(s)])) for s in scopes]
    path = file(oracle.text(Tables(cards, functions)))
    began = time.process_time()
    ebm = ed.compile(ed.io.read_uai(path))
    assert time.process_time() - began < 5
    assert len(ebm.structure.factors) <= 2 + 3


EVIDENCE = [
    ("2 0 1 3 0", {0: 1, 3: 0}),
    ("2\n0 1\n3 0\n", {0: 1, 3: 0}),
    ("1\n2 0 1 3 0\n", {0: 1, 3: 0}),
    ("1 2 0 1 3 0", {0: 1, 3: 0}),
    ("1 1 1", {1: 1}),
    ("1\n1 1 1\n", {1: 1}),
    ("0", {}),
    ("1\n0\n", {}),
    ("2 1 0 3 0", {1: 0, 3: 0}),
    ("2 1 1 1 1", {1: 1}),
]


@pytest.mark.parametrize(("text", "expected"), EVIDENCE)
def test_both_forms_of_evidence_are_understood(file, text, expected):
    path = file(oracle.text(odd_network()))
    model = ed.io.read_uai(path, file(text, "net.evid"))
    assert model == ed.io.read_uai(path, expected)
    sites = ed.io.uai_sites(path)
    held = {
        i: int(model.evidence[name][index])
        for i, (name, index) in enumerate(sites)
        if model.skeleton.mask(next(v for v in model.variables if v.name == name))[index]
    }
    assert held == expected


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "found the end of the file; expected the number of observed variables"),
        ("x", 1, "found 'x'; expected the number of observed variables, a whole number of at"),
        ("-1", 1, "found '-1'"),
        ("1\n7 0\n", 2, "found '7'; expected an observed variable"),
        ("1\n1 7 0\n", 2, "found '7'; expected an observed variable, a whole number from 0 to 6"),
        ("1 -1 0", 1, "found '-1'; expected an observed variable"),
        ("2 0 1\n1 2", 2, "found '2'; expected the level of variable 1, a whole number from 0 to"),
        ("2 0 1\n0 2", 2, "variable 0 has level 2 here and level 1 above; expected one level"),
        ("2 0 1", 1, "found the end of the file; expected an observed variable"),
        ("2 0 1 1", 1, "found the end of the file; expected the level of variable 1"),
        ("1 0 1\n3 0", 2, "found '3'; expected nothing after the 1 observed variables"),
        ("2\n1 0 1\n1 0 2\n", 1, "found 2 samples; expected one. Write each sample into a file"),
        ("2\n1 1 0\n0\n", 1, "found 2 samples"),
        ("1.0 0 1", 1, "found '1.0'"),
        ("1 0", 1, "found the end of the file; expected the level of variable 0"),
    ],
)
def test_bad_evidence_files_are_refused_with_the_line(file, text, line, said):
    path, given = file(oracle.text(odd_network())), file(text, "net.evid")
    with pytest.raises(ValueError) as caught:
        ed.io.read_uai(path, given)
    assert str(caught.value).startswith(f"{given}, line {line}: ")
    assert said in str(caught.value)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("evidence", "error", "said"),
    [
        ({7: 0}, ValueError, "has variable 7; the file's variables are 0 to 6"),
        ({-1: 0}, ValueError, "has variable -1"),
        ({1: 2}, ValueError, "level 2 of variable 1; expected a whole number from 0 to 1"),
        ({1: -1}, ValueError, "level -1 of variable 1"),
        ({1: 0.5}, TypeError, "float"),
    ],
)
def test_bad_evidence_mappings_are_refused(file, evidence, error, said):
    with pytest.raises(error, match=said):
        ed.io.read_uai(file(oracle.text(odd_network())), evidence)


GOOD = "MARKOV\n3\n2 2 3\n2\n2 0 1\n2 2 1\n\n4\n .5 0\n 1 2e-1\n\n6\n 1 2 3 4 5 6\n"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("MARKOV", "markov", 1, "found 'markov'; expected the header MARKOV or BAYES"),
        ("MARKOV", "LIMID", 1, "found 'LIMID'"),
        ("\n3\n", "\n0\n", 2, "found '0'; expected the number of variables, a whole number of at"),
        ("\n3\n", "\n-3\n", 2, "found '-3'"),
        ("\n3\n", "\n3.0\n", 2, "found '3.0'"),
        ("\n3\n", "\n99999999999\n", 3, "found '2'; expected 99999999999 cardinalities"),
        ("2 2 3", "2 0 3", 3, "found '0'; expected the cardinality of variable 1, a whole number"),
        ("2 2 3", "2 1e9 3", 3, "found '1e9'"),
        ("2 2 3", "2 99999999 3", 3, "found '99999999'; expected the cardinality of variable 1"),
        ("\n2\n2 0 1", "\n-2\n2 0 1", 4, "found '-2'; expected the number of functions"),
        ("2 0 1", "4 0 1", 5, "found '4'; expected the number of variables of function 0, a whole"),
        ("2 2 1", "2 3 1", 6, "found '3'; expected a variable of function 1, a whole number from"),
        ("2 2 1", "2 -1 1", 6, "found '-1'; expected a variable of function 1"),
        ("2 2 1", "2 1 1", 6, "found '1'; expected variables of function 1 that differ"),
        ("\n4\n", "\n5\n", 8, "found '5'; expected the number of entries of the table of function"),
        ("\n6\n", "\n6.\n", 12, "found '6.'; expected the number of entries of the table of funct"),
        (".5 0", "-.5 0", 9, "found '-.5'; expected a potential: 0, or a positive number that"),
        (".5 0", ".5 nan", 9, "found 'nan'"),
        (".5 0", ".5 inf", 9, "found 'inf'"),
        (".5 0", ".5 zero", 9, "found 'zero'"),
        (".5 0", ".5 1e-400", 9, "found '1e-400'"),
        (".5 0", ".5 1e400", 9, "found '1e400'"),
        (".5 0", ".5 1_0", 9, "found '1_0'"),
        ("\n3\n", "\n3_\n", 2, "found '3_'"),
        ("\n3\n", "\n0_3\n", 2, "found '0_3'"),
        ("2e-1", "", 13, "expected the number of entries of the table of function 1, which is 6"),
        ("5 6", "5", 13, "found the end of the file; expected 6 entries of the table of function"),
        ("5 6", "5 6 7", 13, "found '7'; expected nothing after the last table"),
        ("MARKOV", "M" * 100, 1, "MMM...; expected the header"),
        ("5 6\n", "5 6\n\n\nend", 16, "found 'end'; expected nothing after the last table"),
    ],
)
def test_bad_files_are_refused_with_the_line(file, old, new, line, said):
    assert GOOD.count(old) >= 1
    path = file(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError) as caught:
        ed.io.read_uai(path)
    assert str(caught.value).startswith(f"{path}, line {line}: "), caught.value
    assert said in str(caught.value)


def test_zeros_in_any_notation_are_zeros(file):
    path = file("MARKOV 1 4 1 1 0 4 0 0.0 -0e5 +00.0E-9")
    assert float(ed.log_partition(ed.compile(ed.io.read_uai(path)))) == -np.inf


SAID = re.compile(r".*net\.uai, line \d+: found .*; expected .*\.", re.DOTALL)


@pytest.mark.parametrize("cut", ["\n", " "])
def test_a_file_cut_anywhere_is_refused(file, cut):
    """At every line, and at every word."""
    whole = oracle.text(odd_network()).rstrip()
    words = re.split(r"(\s+)", whole)
    pieces = whole.splitlines(keepends=True) if cut == "\n" else words
    lines = whole.count("\n") + 1
    ends = range(len(pieces)) if cut == "\n" else range(0, len(pieces), 2)
    for end in ends:
        text = "".join(pieces[:end])
        path = file(text)
        with pytest.raises(ValueError) as caught:
            ed.io.read_uai(path)
        assert SAID.fullmatch(str(caught.value))
        assert int(re.search(r"line (\d+):", str(caught.value))[1]) <= lines
        assert "found the end of the file" in str(caught.value) or "too short" in str(caught.value)


@pytest.mark.parametrize("text", ["3 0 1 2 0 4 0", "1 2 0", "2\n0 1\n2 0\n"])
def test_evidence_cut_at_any_word_is_refused(file, text):
    path, words = file(oracle.text(odd_network())), re.split(r"(\s+)", text.rstrip())
    assert ed.io.read_uai(path, file(text, "net.evid")).evidence
    for end in range(0, len(words), 2):
        given = file("".join(words[:end]), "net.evid")
        with pytest.raises(ValueError, match="found the end of the file; expected"):
            ed.io.read_uai(path, given)


WORDS = st.sampled_from(
    ["-1", "0", "1", "2", "7", "nan", "inf", "1e999", "x", "", "0.5", "\n", "é"]
)


@settings(deadline=None, max_examples=80)
@given(place=st.integers(0, 60), words=st.lists(WORDS, max_size=3), gone=st.integers(0, 3))
def test_a_changed_file_is_read_or_refused_in_words(tmp_path_factory, place, words, gone):
    text = re.split(r"(\s+)", GOOD)
    text[place : place + gone] = " ".join(words)
    path = tmp_path_factory.mktemp("fuzz") / "net.uai"
    path.write_text("".join(text), encoding="utf-8")
    try:
        ed.io.read_uai(path)
    except ValueError as error:
        assert SAID.fullmatch(str(error)), error


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused_in_words(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "net.uai"
    path.write_bytes(b"MARKOV 1 " + data)
    try:
        ed.io.read_uai(path)
    except ValueError as error:
        assert SAID.fullmatch(str(error)), error


def some_models():
    rng = np.random.default_rng(3)
    s = ed.spin("s", (2, 3))
    ising = -0.7 * (s[1:] * s[:-1]).sum() - 0.3 * (s[:, 1:] * s[:, :-1]).sum() - 0.2 * s.sum()
    b, n = ed.binary("b", 3), ed.integer("n", 2, low=-1, high=2)
    c = ed.categorical("c", (2, 2), levels=3)
    mixed = (
        (b @ rng.normal(size=(3, 2)) @ n)
        + (n[0] * n[0] * b[1])
        + ed.Table(rng.normal(size=(3, 2, 4)))(c[1, 0], b[2], n[1])
        + ed.apply(lambda v, w: jnp.sin(v[0] * v[1] + w), n, b[0])
        + ed.apply(lambda v: v[0] * v[1] ** 2 - v[2], n[np.array([1, 0, 1])])
        + 0.25
    )
    forbidden = np.where(np.eye(3) > 0, np.inf, rng.normal(size=(3, 3)))
    batch = ed.Table(forbidden)(c[:, 0], c[:, 1]).sum() - 3.0 * (c[0] == c[1]).sum()
    great = 1500.0 * s[0, 0] * s[0, 1] - 900.0 * s[1, 1] + 800.0
    return {
        "ising": ed.Model(ising),
        "mixed": ed.Model(mixed),
        "table": ed.Model(batch),
        "great": ed.Model(great),
        "clamped": ed.Model(ising + 2.0 * s[0, 1] * s[1, 1] * s[1, 2]).condition(
            {s[0, 1:]: [1, -1]}
        ),
    }


@pytest.mark.parametrize("name", some_models())
def test_a_written_model_keeps_its_energies(tmp_path, name):
    model, path = some_models()[name], tmp_path / "net.uai"
    sites = ed.io.write_uai(model, path)
    network = oracle.parsed(path.read_text())
    rows = oracle.states(network.cards)
    with np.errstate(divide="ignore"):
        expected = sum(-np.log(t[tuple(rows[:, i] for i in s)]) for s, t in network.functions)
    found = energies(model, sites, rows)
    scale = np.abs(found[np.isfinite(found)]).max()
    np.testing.assert_allclose(expected, found, rtol=1e-12, atol=1e-12 * max(scale, 1))


@pytest.mark.parametrize("name", ["mixed", "clamped"])
def test_reading_what_was_written_gives_the_same_law(tmp_path, name):
    model, path = some_models()[name], tmp_path / "net.uai"
    sites = ed.io.write_uai(model, path)
    with jax.enable_x64(True):
        again = ed.compile(ed.io.read_uai(path))
        found, log_z = ed.marginals(again), float(ed.log_partition(again))
    ebm = ed.compile(model)
    assert log_z == pytest.approx(float(ed.log_partition(ebm)), abs=1e-9)
    own = ed.marginals(ebm)
    for here, (name_there, index) in zip(ed.io.uai_sites(path), sites, strict=True):
        law = own[name_there].probabilities[index]
        np.testing.assert_allclose(found[here[0]].probabilities[here[1]], law, atol=1e-9)


def test_a_model_without_mass_is_written_so(tmp_path):
    s = ed.spin("s", 2)
    model = ed.Model(ed.Table([np.inf, 0.0])(s[0]) + s[1]).condition({s[0]: -1})
    ed.io.write_uai(model, tmp_path / "net.uai")
    network = oracle.parsed((tmp_path / "net.uai").read_text())
    assert network.cards == [2] and (oracle.potential(network) == 0).all()


@pytest.mark.usefixtures("untyped")
def test_what_no_file_represents_is_refused(tmp_path):
    x, y, s = ed.real("x", 2), ed.binary("y", 30), ed.spin("s")
    far = ed.Model(ed.Table([0.0, 1e6])(s))
    cases = [
        (ed.Model((x**2).sum() + s * x[0]), "2 free sites without a finite list of levels, x.0. "),
        (ed.Model(y.sum() ** 2 * s), r"factor of 31 free sites \(y.0., y.1., .* 2.31 joint states"),
        (ed.Model(s * 1.0).condition(s=1), "sites are all clamped; expected a free one"),
        (far, r"the energy 1e.06 in a factor of s; expected a number within \+-70000"),
        (ed.Model(ed.apply(lambda v: jnp.log(v - 1), s)), "the energy nan in a factor of s"),
    ]
    for model, said in cases:
        with pytest.raises(ValueError, match=said):
            ed.io.write_uai(model, tmp_path / "net.uai")
    with pytest.raises(TypeError, match=r"write_uai got EBM; expected an ed\.Model"):
        ed.io.write_uai(ed.compile(ed.Model(s * 1.0)), tmp_path / "net.uai")
    assert not list(tmp_path.iterdir())


def test_factors_of_real_and_clamped_sites_are_written(tmp_path):
    """A real site that is clamped is a number in the tables."""
    x, s = ed.real("x", 2), ed.spin("s", 2)
    model = ed.Model((x**2).sum() - (x * s).sum()).condition(x=[0.5, -1.25])
    sites = ed.io.write_uai(model, tmp_path / "net.uai")
    network = oracle.parsed((tmp_path / "net.uai").read_text())
    rows = oracle.states(network.cards)
    signs = 2.0 * rows - 1
    expected = 0.25 + 1.5625 - signs @ [0.5, -1.25]
    np.testing.assert_allclose(-np.log(oracle.potential(network)), expected, atol=ROUNDING)
    assert sites == [("s", (0,)), ("s", (1,))]
