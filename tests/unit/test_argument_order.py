"""Values and paths in either order, figures of every kind, and paths without a suffix."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image
from sklearn.linear_model import LinearRegression

import trackdsl
from trackdsl import stage, track_returns
from trackdsl.testing import Captured, capture_runs

mpl.use("agg")

import matplotlib.pyplot as plt

FRAME = pd.DataFrame({"a": [1, 2]})


@pytest.fixture(autouse=True)
def closed_figures() -> Any:
    """Each test begins and ends without open figures."""
    plt.close("all")
    yield
    plt.close("all")


def content(captured: Captured) -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in captured.one("f").artifacts.items()}


def drawn() -> Any:
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    return figure


SWAPPED: dict[str, Callable[[Any], Any]] = {
    "log_dict": lambda at: at.log_dict("c.json", {"a": 1}),
    "log_dict of a list": lambda at: at.log_dict(Path("c.json"), [1]),
    "log_text": lambda at: at.log_text("c.txt", "two words"),
    "log_text of lines": lambda at: at.log_text("c.md", "# A title.\n\nAnd text.\n"),
    "log_text of a path": lambda at: at.log_text(Path("c.txt"), "text"),
    "log_figure": lambda at: at.log_figure("c.png", drawn()),
    "log_figure of plotly": lambda at: at.log_figure("c.html", go.Figure()),
    "log_image": lambda at: at.log_image("c.png", np.zeros((2, 2))),
    "log_text of a file's name": lambda at: at.log_text("c.txt", "two words, and see model.pt"),
    "log_text of names": lambda at: at.log_text("c.txt", "two words\nx.py,file.txt"),
    "log_text of bytes": lambda at: at.log_text("c.txt", b"two words"),
    "log_dict of text": lambda at: at.log_dict("c.txt", "two words"),
    "log_artifact of a value": lambda at: at.log_artifact("c.json", {"a": 1}),
    "log_artifact of a figure": lambda at: at.log_artifact("c.png", drawn()),
}
BEGINS: dict[str, Any] = {
    ".json": (b"{", b"["), ".txt": (b"t", b'"t'), ".md": b"# A title", ".png": b"\x89PNG",
    ".html": (b"<html", b"<!doctype"),
}  # fmt: skip


@pytest.mark.parametrize("name", SWAPPED)
def test_the_path_first(name: str) -> None:
    """A path before the value is taken for what it is, by the function and by a `Run`."""
    for of_run in (False, True):
        with capture_runs() as captured, stage("f") as run:
            SWAPPED[name](run if of_run else trackdsl)
            ((path, found),) = content(captured).items()
        assert path.startswith("c.")
        assert found.startswith(BEGINS[Path(path).suffix])
        assert not [tag for tag in captured.one("f").tags if tag.startswith("trackdsl.omitted")]


def test_names_after_what_they_name() -> None:
    """Tables, inputs, parameters, tags, models and series of images take their name as the second argument too."""
    with capture_runs() as captured, stage("f") as run:
        trackdsl.log_table("t.json", {"a": [1]})
        trackdsl.log_input("training", FRAME, name="d")
        run.log_param(0.1, "lr")  # type: ignore[arg-type]
        run.log_param(("a", 1), "a name of parts")  # type: ignore[arg-type]
        run.set_tag(3, "seed")  # type: ignore[arg-type]
        run.log_image("k", key=np.zeros((2, 2)))  # type: ignore[arg-type]
        assert run.log_model("clf", LinearRegression().fit([[0], [1]], [0, 1])).name == "clf"  # type: ignore[arg-type]
        with pytest.raises(trackdsl.OptionError, match=r"log_model\(model, name\)"):
            run.log_model(3, LinearRegression())  # type: ignore[arg-type]
    found = captured.one("f")
    assert list(found.tables) == ["t.json"]
    assert found.params == {"lr": 0.1, "('a', 1)": "a name of parts"}
    assert found.tags["seed"] == "3"
    assert [path.partition("+")[0] for path in found.artifacts] == ["images/k", "images/k"]
    assert list(found.models) == ["clf"]
    assert [(used.name, used.context) for used in found.inputs] == [("d", "training")]


@pytest.mark.parametrize(
    ("text", "path"),
    [("a text", "notes.txt"), ("a.txt", "b.txt"), ("v1.2", "VERSION"), ("", "empty.txt"), ("see a.txt", "LINKS"),
     ("notes", "notes"), ("a.txt", Path("list")), ("a.txt\nb.txt", "list"), ("two words", "my notes.txt"),
     ("ok", "logs/run 1/status")],
)  # fmt: skip
def test_texts_in_the_right_order_stay(text: str, path: Any) -> None:
    """A text that only looks a little like a path is the content."""
    with capture_runs() as captured, stage("f"):
        trackdsl.log_text(text, path)
        assert content(captured) == {str(path): text.encode()}


@pytest.mark.parametrize("path", [3, "folder/"])
@pytest.mark.parametrize("function", ["log_dict", "log_figure", "log_table", "log_image", "log_text"])
def test_two_values_and_no_path(function: str, path: Any) -> None:
    """Two values without a path raise an error at once that says what a path is."""
    with capture_runs(), stage("f") as run, pytest.raises(trackdsl.OptionError, match=f"{function}.*path"):
        getattr(run, function)({"a": 1}, path)


FILES: dict[str, tuple[Callable[[Any], Any], dict[str, str]]] = {
    "in order": (lambda at: at.log_artifact("data.csv", "raw"), {"raw/data.csv": "d"}),
    "folder first": (lambda at: at.log_artifact("raw", "data.csv"), {"raw/data.csv": "d"}),
    "new path first": (lambda at: at.log_artifact("raw/x.csv", Path("data.csv")), {"raw/x.csv": "d"}),
    "a path as an object": (lambda at: at.log_artifact("data.csv", Path("raw/x.csv")), {"raw/x.csv": "d"}),
    "several": (lambda at: at.log_artifact(["data.csv", Path("in/a.txt")]), {"data.csv": "d", "a.txt": "a"}),
    "several to a folder": (lambda at: at.log_artifact(["in/a.txt"], "raw"), {"raw/a.txt": "a"}),
    "text": (lambda at: at.log_artifact(3, "three"), {"three.json": "3"}),
    "content of a folder": (lambda at: at.log_artifacts("out", "in"), {"out": ""}),
    "a file as a folder": (lambda at: at.log_artifacts("data.csv"), {"data.csv": "d"}),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_and_their_paths(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one of two paths leads to a file, that is the file; several are taken, and values become files."""
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("d")
    Path("in").mkdir()
    Path("in/a.txt").write_text("a")
    log, expected = FILES[kind]
    for of_run in (False, True):
        with capture_runs() as captured, stage("f") as run:
            log(run if of_run else trackdsl)
            found = captured.one("f").artifacts
            assert {path: "" if file.is_dir() else file.read_text() for path, file in found.items()} == expected
        assert not [tag for tag in captured.one("f").tags if tag.startswith("trackdsl.omitted")]


def test_several_models() -> None:
    """Each of several models is a model of its own, named by its number or key, and has a handle."""
    model = LinearRegression().fit([[0], [1]], [0, 1])
    with capture_runs() as captured, stage("f") as run:
        found: Any = run.log_model([model, model], "folds")
        assert [each.name for each in found] == ["folds.0", "folds.1"]
        found = trackdsl.log_model({"a": model}, "by")
        assert [(key, each.name) for key, each in found.items()] == [("a", "by.a")]
    assert sorted(captured.one("f").models) == ["by.a", "folds.0", "folds.1"]


@pytest.mark.parametrize("path", ["", None])
def test_no_path_is_no_folder(path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The path of a checkpoint that was never written is reported, and is not the working directory."""
    with capture_runs() as captured, stage("f") as run:
        run.log_artifact(path)
        run.log_artifacts(path, "checkpoints")
    assert captured.one("f").artifacts == {}
    assert {tag for tag in captured.one("f").tags if "omitted" in tag} == {
        "trackdsl.omitted.log_artifact", "trackdsl.omitted.log_artifacts",
    }  # fmt: skip
    assert "no file is named" in caplog.text


def test_what_is_no_file_has_no_path(caplog: pytest.LogCaptureFixture) -> None:
    """A value without a path is misuse; a folder that is not there is reported by the name of the function."""
    with capture_runs() as captured, stage("f") as run:
        with pytest.raises(trackdsl.OptionError, match="log_artifact takes the path of a file"):
            run.log_artifact({"a": 1})
        run.log_artifacts("nowhere")
    assert "not a folder" in captured.one("f").tags["trackdsl.omitted.log_artifacts"]
    assert caplog.records


FIGURES: dict[str, tuple[Callable[[], Any], str]] = {
    "figure": (drawn, "png"),
    "axes": (lambda: plt.subplots()[1], "png"),
    "figure and axes": (plt.subplots, "png"),
    "figure and many axes": (lambda: plt.subplots(2, 2), "png"),
    "array of axes": (lambda: plt.subplots(2, 2)[1], "png"),
    "lines": (lambda: plt.plot([1, 2]), "png"),
    "bars": (lambda: plt.bar([1, 2], [3, 4]), "png"),
    "picture": (lambda: plt.imshow(np.eye(2)), "png"),
    "axes of pandas": (lambda: FRAME.plot(), "png"),
    "many axes of pandas": (lambda: FRAME.hist(), "png"),
    "pyplot": (lambda: drawn() and plt, "png"),
    "display": (
        lambda: __import__("sklearn.metrics").metrics.ConfusionMatrixDisplay(np.eye(2)).plot(), "png",
    ),
    "plotly": (lambda: go.Figure(), "html"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FIGURES)
def test_whatever_leads_to_a_figure(kind: str) -> None:
    """What leads to a figure is kept as one picture or page, also where the path has no suffix."""
    make, suffix = FIGURES[kind]
    figure = make()
    with capture_runs() as captured, stage("f") as run:
        trackdsl.log_figure(figure, "plots/fig")
        run.log_figure(figure, "roc_0.5")
        run.log_figure(figure, f"named.{suffix}")
        found = content(captured)
    assert set(found) == {f"plots/fig.{suffix}", f"roc_0.5.{suffix}", f"named.{suffix}"}
    assert all(each.startswith(BEGINS[f".{suffix}"]) for each in found.values())
    assert not [tag for tag in captured.one("f").tags if tag.startswith("trackdsl.omitted")]


def test_several_figures_without_a_suffix() -> None:
    """Each figure of a list is kept in its own format; other items are left out; text is not a format of a figure."""
    with capture_runs() as captured, stage("f") as run:
        run.log_figure({"roc": drawn(), "page": go.Figure(), "all": {"a": drawn()}, "none": None}, "plots/x")
        run.log_figure(collections.deque([drawn(), None, drawn()]), "y")
        assert not [tag for tag in captured.one("f").tags if tag.startswith("trackdsl.omitted")]
        run.log_figure(drawn(), "z.txt")
        found = content(captured)
    assert set(found) == {
        "plots/x.roc.png", "plots/x.page.html", "plots/x.all.a.png", "y.0.png", "y.1.png", "z.txt.png",
    }  # fmt: skip
    assert all(text.startswith(BEGINS[Path(name).suffix]) for name, text in found.items())


def test_a_plot_of_bokeh_stays_free() -> None:
    """A Bokeh plot that was in no document is in none afterwards, so that a layout can still take it."""
    bokeh, layouts = pytest.importorskip("bokeh.plotting"), pytest.importorskip("bokeh.layouts")
    plot = bokeh.figure()
    plot.line([1, 2], [3, 4])
    with capture_runs() as captured, stage("f") as run:
        run.log_figure(plot, "one")
        assert plot.document is None
        run.log_figure(layouts.row(plot), "all")
    assert set(captured.one("f").artifacts) == {"one.html", "all.html"}


def test_figures_of_libraries_of_their_own() -> None:
    """Seaborn's grids, axes and plots are pictures; altair and bokeh give pages, altair JSON too."""
    sns = pytest.importorskip("seaborn")
    objects = pytest.importorskip("seaborn.objects").Plot(FRAME, x="a", y="a")
    alt = pytest.importorskip("altair")
    bokeh = pytest.importorskip("bokeh.plotting")
    chart = alt.Chart(FRAME).mark_line().encode(x="a:Q", y="a:Q")
    plot = bokeh.figure()
    plot.line([1, 2], [3, 4])
    with capture_runs() as captured, stage("f") as run:
        for name, figure in (("pair", sns.pairplot(FRAME)), ("joint", sns.jointplot(FRAME, x="a", y="a")),
                             ("axes", sns.heatmap(np.eye(2))), ("objects", objects), ("chart", chart),
                             ("plot", plot)):  # fmt: skip
            run.log_figure(figure, name)
        run.log_figure(objects, "small.png", save_kwargs={"dpi": 50})
        run.log_figure(chart + chart, "chart.json")
        track_returns("returned", "as_well")(lambda: (chart, plot))()
        found = content(captured)
    pages = {name for name, text in found.items() if b"<script" in text}
    assert pages == {"chart.html", "plot.html", "returned.html", "as_well.html"}
    assert {name for name, text in found.items() if text.startswith(b"\x89PNG")} == {
        "pair.png", "joint.png", "axes.png", "objects.png", "small.png",
    }  # fmt: skip
    assert "layer" in json.loads(found["chart.json"])


def test_pyplot_without_a_figure(caplog: pytest.LogCaptureFixture) -> None:
    """`pyplot` without a figure is reported, and no figure is made for it."""
    with capture_runs() as captured, stage("f") as run:
        run.log_figure(plt, "x.png")
    assert "no open figure" in captured.one("f").tags["trackdsl.omitted.log_figure"]
    assert plt.get_fignums() == []
    assert caplog.records


def test_pyplot_is_its_current_figure_when_returned() -> None:
    """`return plt` keeps the figure; another module is pickled, as before."""
    drawn()
    with capture_runs() as captured, stage("f"):
        track_returns("a", "b")(lambda: (plt, json))()
        assert content(captured)["a.png"].startswith(b"\x89PNG")
    assert set(captured.one("f").artifacts) == {"a.png", "b.pkl"}


def test_the_format_that_a_figure_is_saved_in() -> None:
    """The options of `savefig` choose the format where the path has no suffix."""
    with capture_runs() as captured, stage("f") as run:
        run.log_figure(drawn(), "fig", save_kwargs={"format": "svg"})
        assert b"<svg" in content(captured)["fig.svg"]


def test_an_image_without_a_format() -> None:
    """An image without a format is a PNG, and a tag says so if the suffix differs; Pillow's other formats are kept."""
    with capture_runs() as captured, stage("f") as run:
        run.log_image(np.zeros((2, 2)), "first")
        run.log_image(np.zeros((2, 2)), "second.npy")
        run.log_image(Image.new("CMYK", (2, 2)), "third.ppm")
        found = content(captured)
    assert {name: text[:2] for name, text in found.items()} == {
        "first.png": b"\x89P", "second.npy.png": b"\x89P", "third.ppm": b"P6",
    }  # fmt: skip
    assert [tag for tag in captured.one("f").tags if "omitted" in tag] == ["trackdsl.omitted.second.npy"]


@pytest.mark.parametrize(
    "value", [3, FRAME, b"x", np.eye(2), go.Figure().to_dict(), [1, 2], {}, []], ids=lambda value: type(value).__name__
)
def test_what_is_no_figure(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What is not a figure is left out, the log and a tag name what a figure is, and the program continues."""
    with capture_runs() as captured, stage("f") as run:
        run.log_figure(value, "x.png")
    assert captured.one("f").artifacts == {}
    assert "is not a figure: give one of matplotlib" in captured.one("f").tags["trackdsl.omitted.x.png"]
    assert "is not a figure" in caplog.text
