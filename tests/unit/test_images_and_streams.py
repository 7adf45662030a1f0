"""The functions for figures, images, parameters, inputs, models and streams."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import io
import math
import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trackdsl
from trackdsl import OptionError, Run, configure, log_stream, stage, steps, track_returns
from trackdsl._core import events
from trackdsl._recording import images as _images
from trackdsl.journal._reader import read_all
from trackdsl.journal._spool import journals
from trackdsl.testing import Captured, RecordedRun, capture_runs

SPOOL = "spool"


def recorded(captured: Captured, kind: type[Any]) -> list[tuple[Any, Path]]:
    """The events of a kind, with the path of their snapshot."""
    return [
        (event, journal / "files" / getattr(event, "snapshot", ""))
        for journal in journals(captured._spool)
        for event in read_all(journal)
        if isinstance(event, kind)
    ]


def tags_of(do: Callable[[Run], object]) -> dict[str, str]:
    """The omissions that an action on a run leads to."""
    with capture_runs() as captured, stage("s") as run:
        do(run)
    return {name: text for name, text in captured.one("s").tags.items() if name.startswith("trackdsl.omitted.")}


# --- images


def arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        rng.random((4, 5)),
        rng.random((4, 5, 1), dtype=np.float32),
        rng.random((4, 5, 3)) * 7 - 2,
        rng.integers(0, 256, (4, 5, 4), dtype=np.uint8),
        rng.integers(0, 256, (4, 5, 3), dtype=np.int64),
        rng.integers(0, 256, (4, 5)) > 100,
    ]


@pytest.mark.parametrize("array", arrays(), ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_become_the_images_that_mlflow_makes(array: Any) -> None:
    """Every type and shape gives the pixels that `mlflow.log_image` gives, and the array stays as it is."""
    multimedia = pytest.importorskip("mlflow.tracking.multimedia")
    before = array.copy()
    assert np.array_equal(_images.picture_of(array), multimedia.convert_to_pil_image(array))
    assert np.array_equal(array, before)


def test_images_of_other_libraries() -> None:
    """Tensors have their channels first; images of Pillow and MLflow are taken as they are."""
    torch = pytest.importorskip("torch")
    mlflow = pytest.importorskip("mlflow")
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    picture = _images.picture_of(array)
    assert np.array_equal(_images.picture_of(torch.from_numpy(array).permute(2, 0, 1)), array)
    half = torch.full((1, 2, 2), 0.5, dtype=torch.bfloat16, requires_grad=True)
    assert np.array_equal(_images.picture_of(half), np.full((2, 2), 127))
    for value in (picture, mlflow.Image(picture)):
        assert np.array_equal(_images.picture_of(value), array)
        assert _images.picture_of(value) is not picture


def test_pixels_that_are_no_numbers() -> None:
    """NaN is black, and infinity is as bright as the brightest pixel."""
    found = np.asarray(_images.picture_of(np.array([[0.5, math.nan], [1.0, math.inf]])))
    assert found.tolist() == [[127, 127], [255, 255]]


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        (np.zeros(3), "shape (3,)"),
        (np.zeros((0, 3)), "shape (0, 3)"),
        (np.array([[1, 300]]), "from 1 to 300"),
        (np.array([["a"]]), "is not an image"),
        ("a.png", "str is not an image"),
    ],
)
def test_what_is_no_image_is_left_out(image: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bad shape or value is reported by a tag and one log line, however often it comes, and stops nothing."""

    def log(run: Run) -> None:
        for _ in steps(range(3)):
            run.log_image(image, "bad.png")
            run.log_image(image, key="bad")

    tags = tags_of(log)
    assert set(tags) == {"trackdsl.omitted.bad.png", "trackdsl.omitted.images/bad"}
    assert all(why in text for text in tags.values())
    assert len(caplog.records) == 2


MODES = ["RGB", "RGBA", "RGBX", "L", "LA", "CMYK", "YCbCr", "HSV", "LAB", "P", "PA", "1", "F", "I", "I;16", "I;16B"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff"])
@pytest.mark.parametrize("mode", MODES)
def test_images_of_any_mode_in_any_format(mode: str, suffix: str) -> None:
    """An image whose format lacks its colours is written in the format's colours: logged, in a series, returned."""
    image = pytest.importorskip("PIL.Image")
    picture = image.new(mode, (3, 4))
    with capture_runs() as captured, stage("s") as run:
        run.log_image(picture, f"a.{suffix}")
        run.log_image(picture, key="series")
        track_returns("b", artifacts={"b": f"b.{suffix}"})(lambda: picture)()
        files = captured.one("s").artifacts
        assert len(files) == 4
        sizes = {name: image.open(file).size for name, file in files.items()}
        assert sorted(sizes.values()) == [(3, 4), (3, 4), (3, 4), (192, 256)], sizes  # The last is what the UI shows.
        assert image.open(files[f"b.{suffix}"]).format == {"jpg": "JPEG"}.get(suffix, suffix.upper())
    assert not [tag for tag in captured.one("s").tags if "omitted" in tag]
    assert (picture.mode, picture.info) == (mode, {})


def test_brightness_of_other_modes() -> None:
    """Each mode keeps its brightness: floats up to 1, levels up to 255 and 65535, others over their range."""
    image = pytest.importorskip("PIL.Image")
    cases: list[tuple[Any, list[int]]] = [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 127, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 127, 255]),
        (np.array([[0.0, 0.5, 1.001]], np.float32), [0, 127, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[0, 300, 65535]], np.int32), [0, 300, 65535]),
        (np.array([[0, 50_000, 100_000]], np.int32), [0, 127, 255]),
    ]
    with capture_runs() as captured, stage("s") as run:
        for index, (array, _) in enumerate(cases):
            run.log_image(image.fromarray(array), f"{index}.png")
        files = captured.one("s").artifacts
        for index, (_, levels) in enumerate(cases):
            assert np.asarray(image.open(files[f"{index}.png"])).tolist() == [levels]


def test_brightness_of_arrays() -> None:
    """Floats up to 255 are levels, as bytes are; colours of 16 bits are reduced to 8, in any byte order."""
    for array, levels in (
        (np.full((2, 2), 200.0), 200),
        (np.array([[[1.0, 2.0, 3.0]]], np.float32), [1, 2, 3]),
        (np.array([[0.5, 128.5]]), [0, 128]),
        (np.array([[[0, 257, 65535]]], np.uint16), [0, 1, 255]),
        (np.array([[1, 65535]], ">u2"), [1, 65535]),
    ):
        found = np.asarray(_images.picture_of(array))
        assert np.array_equal(found, np.broadcast_to(levels, array.shape)), array


def test_the_small_copy_is_as_bright() -> None:
    """The small copy that the UI shows first is as bright as the image, in every mode."""
    image = pytest.importorskip("PIL.Image")
    cases = [(image.new("F", (4, 4), 0.5), 127), (image.new("I", (4, 4), 60_000), 234), (image.new("I", (4, 4), 9), 9),
             (image.new("I;16B", (4, 4), 60_000), 234)]  # fmt: skip
    with capture_runs() as captured, stage("s") as run:
        for index, (picture, _) in enumerate(cases):
            run.log_image(picture, key=f"k{index}")
        files = captured.one("s").artifacts
        for index, (_, level) in enumerate(cases):
            small = next(path for name, path in files.items() if f"/k{index}+" in name and "compressed" in name)
            assert image.open(small).convert("L").getpixel((0, 0)) == pytest.approx(level, abs=2)


def batches() -> dict[str, tuple[Any, list[str]]]:
    """Images of every layout, and the files that `log_image(image, "x.png")` makes of them."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    return {
        "channels last": (rng.random((8, 9, 3)), ["x.png"]),
        "channels first": (rng.random((3, 8, 9)), ["x.png"]),
        "one channel first": (rng.random((1, 8, 9)), ["x.png"]),
        "tensor with channels last": (torch.rand(8, 9, 4), ["x.png"]),
        "16 bits": (rng.integers(0, 65535, (8, 9), dtype=np.uint16), ["x.png"]),
        "batch, channels last": (rng.random((2, 8, 9, 3)), ["x.0.png", "x.1.png"]),
        "batch, channels first": (rng.random((2, 1, 8, 9)), ["x.0.png", "x.1.png"]),
        "batch of tensors": (torch.rand(2, 3, 8, 9), ["x.0.png", "x.1.png"]),
        "batch without channels": (rng.random((2, 8, 9)), ["x.0.png", "x.1.png"]),
        "list": ([rng.random((8, 9)), torch.rand(3, 8, 9)], ["x.0.png", "x.1.png"]),
        "dict": ({"a": rng.random((8, 9)), "b/c": rng.random((8, 9, 3))}, ["x.a.png", "x.b_c.png"]),
        "list of batches": ([rng.random((2, 8, 9, 3))], ["x.0.0.png", "x.0.1.png"]),
        "list of lists": ([[rng.random((8, 9))], [rng.random((8, 9)), None]], ["x.0.0.png", "x.1.0.png"]),
        "batch of clips": (rng.random((1, 2, 8, 9, 3)), ["x.0.0.png", "x.0.1.png"]),
    }


def test_images_of_every_layout() -> None:
    """Channels are found first and last, and each image of a batch, a list or a dict is a file, or a series."""
    image = pytest.importorskip("PIL.Image")
    for layout, (value, names) in batches().items():
        with capture_runs() as captured, stage("s") as run:
            run.log_image(value, "x.png")
            files = captured.one("s").artifacts
            assert sorted(files) == names, layout
            assert {image.open(file).size for file in files.values()} == {(9, 8)}, layout
            run.log_image(value, key="k")
            assert len(captured.one("s").artifacts) == 3 * len(names), layout
        assert not [tag for tag in captured.one("s").tags if "omitted" in tag], layout


def test_several_figures_are_one_file_each() -> None:
    """A list, a dict, and an array of axes, as `plt.subplots` returns it; a figure in it twice is one file."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    axes = figure().subplots(2, 2)
    with capture_runs() as captured, stage("s") as run:
        run.log_figure([figure(), figure()], "list.png")
        run.log_figure({"roc": figure()}, "dict.svg", save_kwargs={"dpi": 50})
        run.log_figure(axes, "axes.png")
        found = set(captured.one("s").artifacts)
    assert found == {"list.0.png", "list.1.png", "dict.roc.svg", "axes.png"}


def test_parameters_of_every_structure() -> None:
    """`log_params` takes structures with named parts like dicts of them; for anything else a tag names the fix."""
    attrs, pydantic = pytest.importorskip("attrs"), pytest.importorskip("pydantic")
    point = collections.namedtuple("point", ["a", "b"])
    model = pydantic.create_model("Model", a=(int, 1), b=(Any, {"c": 2}))
    made = dataclasses.make_dataclass("Made", ["a", "b"])
    values = [
        {"a": 1, "b": {"c": 2}}, argparse.Namespace(a=1, b={"c": 2}), types.SimpleNamespace(a=1, b={"c": 2}),
        point(1, {"c": 2}), model(), made(1, {"c": 2}), attrs.make_class("Made", ["a", "b"])(1, {"c": 2}),
        [("a", 1), ("b", {"c": 2})], types.MappingProxyType({"a": 1, "b": {"c": 2}}), {"a": 1, "b": {"c": 2}}.items(),
        pytest.importorskip("pandas").Series({"a": 1, "b": {"c": 2}}),
    ]  # fmt: skip
    for value in values:
        with capture_runs() as captured, stage("s") as run:
            run.log_params(value)
            trackdsl.log_params(value)
        assert captured.one("s").params == {"a": 1, "b.c": 2}, value
    with capture_runs() as captured, stage("s") as run:
        run.log_params(object())
    assert "vars(...)" in captured.one("s").tags["trackdsl.omitted.log_params"]


@pytest.mark.parametrize(
    "arguments", [{}, {"artifact_file": "a.png", "key": "a"}, {"artifact_file": "a.png", "step": 1}, {"step": 1}]
)
def test_an_image_has_either_a_path_or_a_key(arguments: dict[str, Any]) -> None:
    """An image with both a path and a key, or with neither, raises at once; the error names the two ways."""
    with capture_runs(), stage("s") as run:
        for log in (run.log_image, trackdsl.log_image):
            with pytest.raises(OptionError, match=r"log_image\(image, key='samples', step=3\)"):
                log(np.zeros((2, 2)), **arguments)


# --- figures, inputs, models


def test_figures_with_options() -> None:
    """The library's own function for saving gets the options; axes lead to their figure."""
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1))
    axes = figure.subplots()
    plotly = pytest.importorskip("plotly.graph_objects").Figure()
    image = pytest.importorskip("PIL.Image")
    with capture_runs() as captured, stage("s") as run:
        run.log_figure(figure, "plots/a.png", save_kwargs={"dpi": 50})
        trackdsl.log_figure(axes, "plots/b.png", save_kwargs={"dpi": 100})
        run.log_figure(plotly, "c.html", save_kwargs={"include_plotlyjs": False})
        run.log_figure(plotly, "c.json", save_kwargs={"pretty": True})
        run.log_figure(figure, "bad.png", save_kwargs={"no_such": 1})
        found = captured.one("s").artifacts
        assert image.open(found["plots/a.png"]).size == (100, 50)
        assert image.open(found["plots/b.png"]).size == (200, 100)
        assert len(found["c.html"].read_text()) < 100_000
        assert "\n" in found["c.json"].read_text()
    assert "no_such" in captured.one("s").tags["trackdsl.omitted.bad.png"]


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf"])
def test_figures_by_suffix(name: str) -> None:
    """The suffix names the format of a figure of matplotlib."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    with capture_runs() as captured, stage("s") as run:
        run.log_figure(figure, name)
        content = captured.one("s").artifacts[name].read_bytes()
    assert content.startswith({"a.png": b"\x89PNG", "a.svg": b"<?xml", "a.pdf": b"%PDF"}[name])
    assert (b"<svg" in content) == (name == "a.svg")


def test_models() -> None:
    """A model is recorded under its name, at the step of the loop around, with the model it is registered as."""
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    with capture_runs() as captured, stage("s") as run:
        for _ in steps(range(2)):
            run.log_model(model, "m", registered_model_name="r", pip_requirements=["scikit-learn"])
        trackdsl.log_model(model, "n", input_example=[[3.0]])
        found = [(event.name, event.registered_name, event.step) for event, _ in recorded(captured, events.Model)]
    assert found == [("m", "r", 0), ("m", "r", 1), ("n", None, 0)]


def test_nothing_is_done_where_recording_is_off() -> None:
    """Every function takes anything when trackdsl is disabled, and outside of any run."""
    configure(mode="disabled")
    with stage("s") as run:
        for target in (run, trackdsl):
            target.log_image(None, "a.png")  # type: ignore[attr-defined]
            target.log_figure(None, "a.png")  # type: ignore[attr-defined]
            target.log_table(None, "a.csv")  # type: ignore[attr-defined]
            target.log_input(None)  # type: ignore[attr-defined]
            target.log_model(None, "m")  # type: ignore[attr-defined]
        assert list(log_stream([1, 2])) == [1, 2]
    assert not Path(SPOOL).exists()


# --- streams


@dataclasses.dataclass
class Row:
    loss: float
    note: str = ""


def metrics_of(run: RecordedRun) -> dict[str, list[tuple[int, float]]]:
    return {name: [(point.step, point.value) for point in points] for name, points in run.metrics.items()}


def test_a_stream_is_recorded_as_it_is_handed_on() -> None:
    """Each item is recorded before the body runs, at its index, and is the same object; items without numbers pass."""
    items: list[Any] = [{"loss": 1, "val": {"loss": 2.0, "name": "x"}}, Row(3), "text", (4, 5), np.float32(6), None]
    with capture_runs() as captured, stage("s"):
        for index, item in enumerate(log_stream(iter(items), prefix="train/", start=10)):
            assert item is items[index]
            if index == 0:
                assert metrics_of(captured.one("s")) == {"train/loss": [(10, 1.0)], "train/val/loss": [(10, 2.0)]}
    assert metrics_of(captured.one("s")) == {
        "train/loss": [(10, 1.0), (11, 3.0)],
        "train/val/loss": [(10, 2.0)],
        "train": [(14, 6.0)],
    }


def test_a_stream_belongs_to_the_run_it_began_in() -> None:
    """A stream records on the run of its first round, not on that of the call or of a later round."""
    with capture_runs() as captured:
        stream = log_stream([1, 2])
        with stage("first"):
            next(stream)
            with stage("second"):
                next(stream)
    assert metrics_of(captured.one("first")) == {"value": [(0, 1.0), (1, 2.0)]}
    assert not captured.one("second").metrics


@pytest.mark.parametrize("leave", ["close", "throw", "break"])
def test_leaving_a_stream_closes_its_generator(leave: str) -> None:
    """The generator inside is closed at once, and so are its own blocks."""
    closed: list[str] = []

    def train() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("closed")

    stream: Any = log_stream(train())
    with capture_runs(), stage("s"):
        next(stream)
        if leave == "close":
            stream.close()
        elif leave == "throw":
            with pytest.raises(KeyError):
                stream.throw(KeyError("mine"))
        else:
            for _ in stream:
                break
            del stream
    assert closed == ["closed"]


def test_a_stream_leaves_files_open() -> None:
    """A stream closes no iterator that is not a generator: its owner does that."""
    file = io.StringIO("a\nb\n")
    with capture_runs(), stage("s"):
        assert list(log_stream(file)) == ["a\n", "b\n"]
    assert not file.closed


def test_an_error_inside_a_stream_passes() -> None:
    """What the generator raises reaches the loop unchanged, and an item that cannot be read is handed on."""

    class Bad(dict[str, float]):
        def items(self) -> Any:
            raise RuntimeError("hostile")

    def train() -> Iterator[Any]:
        yield Bad(a=1)
        raise ValueError("mine")

    with capture_runs() as captured, stage("s"):
        stream = log_stream(train())
        assert isinstance(next(stream), Bad)
        with pytest.raises(ValueError, match="mine"):
            next(stream)
    assert captured.one("s").status == "FINISHED"


def test_asynchronous_streams() -> None:
    """Asynchronous streams record the same with `async for`; leaving the loop closes the generator."""
    closed: list[str] = []

    async def train() -> AsyncIterator[dict[str, int]]:
        try:
            for loss in range(10):
                yield {"loss": loss}
        finally:
            closed.append("closed")

    async def main() -> None:
        async with contextlib.aclosing(log_stream(train(), start=5)) as stream:  # type: ignore[type-var]
            async for row in stream:
                if row["loss"] == 1:
                    break

    with capture_runs() as captured, stage("s"):
        asyncio.run(main())
    assert metrics_of(captured.one("s")) == {"loss": [(5, 0.0), (6, 1.0)]}
    assert closed == ["closed"]
