"""Pictures: what is in them, judged by their parts; how they look is judged by eye."""

import dataclasses

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

import energydsl as ed
from energydsl.reporting import factor_graph, plot
from energydsl.reporting.factor_graph import draw_factor_graph
from energydsl.reporting.plot import plot_energy, plot_history, plot_samples


def ising(shape):
    s = ed.spin("s", shape)
    return ed.Model(-0.3 * (s[1:] * s[:-1]).sum() - 0.3 * (s[:, 1:] * s[:, :-1]).sum())


@pytest.fixture(scope="module")
def chains():
    return ed.sample(ed.compile(ising((6, 8))), ed.Gibbs(), key=jax.random.key(0), chains=3,
                     draws=20, warmup=0, progress=False)  # fmt: skip


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def legend(figure):
    return [t.get_text() for t in figure.legends[0].get_texts()]


def marks(figure):
    """How many marks each scatter has."""
    return [len(c.get_offsets()) for c in figure.axes[0].collections if hasattr(c, "get_sizes")]


def test_a_small_graph_shows_every_site_and_every_factor():
    figure = draw_factor_graph(ising((3, 4)))
    assert sorted(texts(figure)) == sorted(f"{r},{c}" for r in range(3) for c in range(4))
    assert 17 in marks(figure) and 12 in marks(figure)
    assert legend(figure) == ["s: spin[3, 4]"]


def test_a_dense_graph_of_few_sites_shows_batches():
    x = ed.real("x", 16)
    figure = draw_factor_graph(ed.Model(x @ np.eye(16) @ x))
    assert "256 factors" in " ".join(texts(figure))


def test_the_legend_is_as_wide_as_the_picture(tmp_path):
    long = [ed.interval(f"a_rather_long_name_{k}", low=0.0, high=1.0) for k in range(5)]
    figure = draw_factor_graph(ed.Model(sum(x**2 for x in long)))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_scalars_latents_and_clamped_sites_are_told():
    z, h = ed.binary("z"), ed.binary("h", 2, latent=True)
    figure = draw_factor_graph(ed.Model(z * h.sum()).condition(z=1))
    assert sorted(texts(figure)) == ["0", "1", "z"]
    assert legend(figure) == ["z: binary[]", "h: binary[2] latent", "clamped"]
    faces = [tuple(c.get_facecolor()[0]) for c in figure.axes[0].collections[2:5:2]]
    assert faces[0] == matplotlib.colors.to_rgba(factor_graph.CLAMPED) and faces[1] == (1, 1, 1, 1)


def test_a_site_alone_and_a_model_in_pieces_can_be_drawn(tmp_path):
    draw_factor_graph(ed.Model(ed.spin("s") * 1.0), tmp_path / "one.png")
    draw_factor_graph(ed.Model(ed.spin("s", 7).sum()), tmp_path / "seven.png")
    assert imread(tmp_path / "seven.png").shape[:2] == (960, 960)


def test_a_large_graph_shows_variables_and_batches():
    s, y = ed.spin("s", (256, 256)), ed.spin("y", (256, 256))
    model = ed.Model(-0.3 * (s[1:] * s[:-1]).sum() - (s * y).sum())
    figure = draw_factor_graph(model.condition({s[0]: 1}, y=np.ones((256, 256), int)))
    assert texts(figure) == [
        "65,280 factors of s[i, j] and s[i-1, j]",
        "65,536 factors of s[i, j] and y[i, j]",
        "s: spin[256, 256]\n256 clamped",
        "y: spin[256, 256] clamped",
    ]
    assert len(figure.axes[0].lines) == 3


def test_the_sites_of_a_batch_are_written_as_a_reader_would():
    s, x, h = ed.spin("s", (30, 20)), ed.binary("x", 40), ed.binary("h", 30)
    z, m = ed.spin("z", 61), ed.spin("m")
    model = ed.Model(
        (s * ed.roll(s, 1, axis=1)).sum(),
        (s[2:, 1:] * s[:-2, :-1]).sum(),
        x @ np.ones((40, 30)) @ h,
        (m * z).sum(),
        (z[3] * z[4:]).sum(),
        (z[:59] * z[1:60] * z[2:]).sum() + ed.apply(lambda a: a.sum(), z),
        (z[np.arange(0, 20)] * z[np.random.default_rng(0).permutation(20)]).sum(),
    )
    assert texts(draw_factor_graph(model))[:8] == [
        "600 factors of s[i, j] and s[i, j-1]",
        "532 factors of s[i, j] and s[i-2, j-1]",
        "1,200 factors of x[i] and h[j]",
        "61 factors of m and z[i]",
        "57 factors of z[3] and z[i]",
        "59 factors of z[i] and z[i+1] and z[i+2]",
        "1 factor of 61 sites of z",
        "20 factors of z[i] and z[j]",
    ]


def test_nodes_with_the_same_neighbours_are_not_drawn_over_each_other():
    z, a, b = ed.spin("z", 8), ed.spin("a"), ed.spin("b")
    edges = np.array([(k, n) for k in (8, 9) for n in range(8)])
    places = factor_graph._layout(10, edges)
    gaps = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(10)
    assert gaps.min() > 0.99 * factor_graph.APART
    assert len(texts(draw_factor_graph(ed.Model((z * a * b).sum())))) == 10


def test_the_model_draws_itself(tmp_path):
    assert isinstance(ising((2, 2)).graph(str(tmp_path / "graph.png")), Figure)
    assert imread(tmp_path / "graph.png").std() > 0


def test_a_path_is_laid_out_as_a_line_of_even_steps():
    edges = np.stack([np.arange(9), np.arange(1, 10)], axis=1)
    places = factor_graph._layout(10, edges)
    far = np.linalg.norm(places[:, None] - places, axis=-1)
    np.testing.assert_allclose(far, np.abs(np.subtract.outer(range(10), range(10))), atol=1e-2)


def test_a_lattice_stands_upright():
    figure = draw_factor_graph(ising((4, 5)))
    place = {t.get_text(): np.array(t.xy) for t in figure.axes[0].texts}
    right, down = place["1,3"] - place["1,1"], place["2,2"] - place["1,2"]
    assert right[0] > 5 * abs(right[1]) and -down[1] > 5 * abs(down[0])


def test_energies_show_a_line_a_chain_and_their_histogram(chains, tmp_path):
    figure = plot_energy(chains, tmp_path / "energy.png")
    left, right = figure.axes
    for line, energy in zip(left.lines, chains.stats["energy"], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), energy)
    assert len(right.patches) == 3
    assert legend(figure) == ["chain 0", "chain 1", "chain 2"]
    assert (tmp_path / "energy.png").stat().st_size > 1000


def test_a_sheet_shows_chains_by_row_and_draws_by_column(chains):
    figure = plot_samples(chains, columns=3)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["draw 0", "draw 10", "draw 19"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["chain 0", "chain 1", "chain 2"]
    sheet = axes.images[0].get_array()
    assert sheet.shape == (3 * 6 + 2, 3 * 8 + 2)
    np.testing.assert_array_equal(sheet[7:13, 18:], chains.draws["s"][1, 19])


def test_a_sheet_of_an_array_is_read_like_a_page():
    images = np.arange(5)[:, None, None] * np.ones((2, 3))
    sheet = plot_samples(images, columns=2).axes[0].images[0].get_array()
    assert sheet.shape == (3 * 2 + 2, 2 * 3 + 1)
    assert [sheet[r, c] for r, c in ((0, 0), (0, 4), (3, 0), (6, 2))] == [0, 1, 2, 4]
    assert np.ma.getmaskarray(sheet)[:, 3].all()


def test_flat_samples_are_folded():
    sheet = plot_samples(np.ones((4, 6)), shape=(2, 3), columns=4).axes[0].images[0].get_array()
    assert sheet.shape == (2, 4 * 3 + 3)


@pytest.mark.parametrize(
    ("samples", "name", "message"),
    [
        ({"s": (2, 9, 4)}, "s", r"samples of shape \(4,\); expected images of two axes"),
        ({"s": (2, 9, 4, 4)}, "t", r"got the name 't'; expected one of \['s'\]"),
        (
            {"s": (2, 9, 4, 4), "t": (2, 9)},
            None,
            r"hold \['s', 't'\]; say which to plot: plot_samples\(chains, 's'\)",
        ),
        ({"s": (2, 0, 4, 4)}, "s", "no draws of 's'"),
    ],
)
def test_what_is_no_image_is_refused(chains, samples, name, message):
    draws = {key: np.ones(shape) for key, shape in samples.items()}
    with pytest.raises(ValueError, match=message):
        plot_samples(dataclasses.replace(chains, draws=draws), name)


def history(**scalars):
    found = ed.History({name: np.asarray(values, float) for name, values in scalars.items()})
    return found


def test_learning_curves_show_each_scalar_and_its_mean(tmp_path):
    loss = np.random.default_rng(0).normal(size=200)
    figure = plot_history(history(loss=loss, learning_rate=loss**2), tmp_path / "curves.png")
    first, second = figure.axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("loss", "learning rate")
    each, mean = first.lines
    np.testing.assert_array_equal(each.get_ydata(), loss)
    at = list(mean.get_xdata()).index(103)
    assert mean.get_ydata()[at] == pytest.approx(loss[100:104].mean())
    assert mean.get_xdata()[-1] == 199 and (tmp_path / "curves.png").stat().st_size > 1000


def test_a_short_history_has_one_line_and_an_empty_one_none(untyped):
    assert len(plot_history(history(loss=[3.0, 2.0, 1.0])).axes[0].lines) == 1
    with pytest.raises(ValueError, match="no steps"):
        plot_history(history(loss=[]))
    with pytest.raises(TypeError, match=r"got .+; expected the history that"):
        plot_history({"loss": [1.0]})


def test_learning_curves_show_held_out_data_beside_the_loss_or_below(tmp_path):
    curves = history(loss=np.linspace(3, 1, 200), learning_rate=np.full(200, 0.1))
    steps, values = np.array([50, 100, 150]), np.array([2.0, 1.5, np.inf])
    curves.held_out = ed.HeldOut("loss", steps, values)
    first, second = plot_history(curves, tmp_path / "curves.png").axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("loss", "learning rate")
    line = next(a for a in first.lines if a.get_label() == "held-out data")
    np.testing.assert_array_equal(line.get_xydata(), np.stack([steps, values], 1))
    assert [t.get_text() for t in first.texts] == ["lowest after 100 steps"]
    assert [t.get_text() for t in first.get_legend().get_texts()] == [
        "data learnt from",
        "held-out data",
    ]
    curves.held_out = ed.HeldOut("minus log-likelihood", steps, values)
    assert first.get_yscale() == "linear"
    curves["loss"] = np.geomspace(300, 1, 200)
    assert plot_history(curves).axes[0].get_yscale() == "log"
    labels = [axes.get_ylabel() for axes in plot_history(curves).axes]
    assert labels == ["loss", "held-out\nminus log-likelihood", "learning rate"]


def test_an_animation_shows_all_chains_draw_by_draw(chains, tmp_path):
    path = ed.animate_samples(chains, tmp_path / "chains.gif", frames=7)
    with Image.open(path) as moving:
        assert moving.n_frames == 7 and moving.info["duration"] == 100 and moving.info["loop"] == 0
        for frame, draw in enumerate((0, 3, 6, 10, 13, 16, 19)):
            moving.seek(frame)
            shown = np.asarray(moving.convert("L"))[plot.HEADLINE :]
            # Each site is a square of 20 pixels, and a gap of one site lies between chains.
            sites = shown[10::20, 10::20]
            for k, spins in enumerate(chains.draws["s"][:, draw]):
                own = sites[:, 9 * k : 9 * k + 8]
                np.testing.assert_array_equal(own, np.where(spins > 0, 255, 0))


def test_an_animation_needs_images_and_a_file_of_its_kind(chains, tmp_path):
    with pytest.raises(ValueError, match=r"expected one of a .gif file"):
        ed.animate_samples(chains, tmp_path / "chains.mp4")
    flat = dataclasses.replace(chains, draws={"s": chains.draws["s"].reshape(3, 20, 48)})
    with pytest.raises(ValueError, match=r"shape \(20, 48\)|shape \(48,\); expected images"):
        ed.animate_samples(flat, tmp_path / "chains.gif")
    ed.animate_samples(flat, tmp_path / "chains.gif", frames=2, shape=(6, 8))
    with Image.open(tmp_path / "chains.gif") as moving:
        assert moving.n_frames == 2


def test_a_sheet_says_what_black_and_white_are(chains):
    assert plot_samples(chains).axes[0].get_xlabel() == "black: -1, white: 1"


def test_figures_belong_to_no_window_and_show_in_notebooks(chains):
    figure = plot_energy(chains)
    assert plt.get_fignums() == []
    assert figure._repr_png_().startswith(b"\x89PNG")
