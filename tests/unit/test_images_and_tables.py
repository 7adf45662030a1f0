"""The functions for figures, images, tables, inputs, models and streams, and the delivery of tables."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import io
import json
import math
import shutil
import tempfile
import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trackdsl
from tests.conftest import changed_timing, examples
from tests.memory_store import Crash, Held, MemoryStore
from trackdsl import OptionError, Run, configure, log_stream, stage, steps, track_returns
from trackdsl._core import events
from trackdsl._recording import images as _images
from trackdsl._recording.tables import rows_of
from trackdsl.delivery._timing import timing
from trackdsl.delivery.files import _table_format, _tables
from trackdsl.delivery.files._tables import Tables
from trackdsl.delivery.state import _ledger
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.journal._reader import read_all
from trackdsl.journal._spool import journals
from trackdsl.store_format.ledger import frame
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


def table_of(data: Any) -> dict[str, Any]:
    """What one `log_table` writes."""
    with capture_runs() as captured, stage("s") as run:
        run.log_table(data, "t.json")
        ((event, path),) = recorded(captured, events.Table)
        assert event.path == "t.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found


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
        (np.array([["a"]]), "no image"),
        ("a.png", "str is no image"),
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


# --- tables, in the program


@pytest.mark.parametrize(
    ("data", "columns", "rows"),
    [
        ({"a": [1, 2], "b": "x"}, ["a", "b"], [[1, "x"], [2, "x"]]),
        ({"a": 1, "b": None}, ["a", "b"], [[1, None]]),
        ({"a": [1], "b": [1, 2]}, ["a", "b"], [[[1], [1, 2]]]),
        ({"a": np.arange(2), "b": (True, 2.5)}, ["a", "b"], [[0, True], [1, 2.5]]),
        ([{"a": 1}, {"b": 2, "a": 3}, Row(4)], ["a", "b", "loss", "note"],
         [[1, None, None, None], [3, 2, None, None], [None, None, 4, ""]]),
        ({}, [], []),
        ([], [], []),
        ({1: [2]}, ["1"], [[2]]),
    ],
)  # fmt: skip
def test_rows_of_plain_data(data: Any, columns: list[str], rows: list[list[Any]]) -> None:
    """Dicts of columns, in which a scalar is in every row, and lists of rows with different columns become rows."""
    assert table_of(data) == {"columns": columns, "data": rows}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_rows_of_frames(library: str) -> None:
    """The same rows from every kind of frame, with missing values as null, and the frame untouched."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"a": [1, 2], "b": [1.5, math.nan], "t": pandas.to_datetime(["2024-01-01", None]), "s": ["x", None]},
        index=[7, 8],
    )
    value: Any = frame
    if library == "polars":
        value = pytest.importorskip("polars").from_pandas(frame)
    elif library == "pyarrow":
        value = pytest.importorskip("pyarrow").Table.from_pandas(frame, preserve_index=False)
    before = frame.copy()
    assert table_of(value) == {
        "columns": ["a", "b", "t", "s"],
        "data": [[1, 1.5, "2024-01-01T00:00:00", "x"], [2, None, None, None]],
    }
    pandas.testing.assert_frame_equal(frame, before)


def test_cells_that_json_has_not() -> None:
    """Values that JSON lacks are described in one line, secrets are masked, and structures stay structures."""
    pandas = pytest.importorskip("pandas")
    cells = {
        "a": math.inf, "b": math.nan, "c": pandas.NA, "d": pandas.NaT, "e": 10**30, "f": np.float32(0.5), "g": object(),
        "h": {"k": [1, math.nan], "password": "hunter22"}, "i": "postgresql://me:hunter22@db/x", "j": "lone \udc80",
        "api_key": "hunter22", "k": 3 + 4j,
    }  # fmt: skip
    ((*stored,),) = table_of([cells])["data"]
    assert stored == [
        "inf", None, None, None, str(10**30), 0.5, "object",
        {"k": [1, None], "password": "***"}, "postgresql://***@db/x", "lone \\udc80",
        "***", "(3+4j)",
    ]  # fmt: skip


def test_columns_of_one_name_are_kept_apart() -> None:
    """A frame may have a name twice; each column keeps its values."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([[1, 2, 3]], columns=["a", "a", "b"])
    assert table_of(frame) == {"columns": ["a", "a#2", "b"], "data": [[1, 2, 3]]}


@pytest.mark.parametrize("data", [3, "text", object(), [1, 2], np.zeros((2, 2))])
def test_what_is_no_table_is_left_out(data: Any) -> None:
    """What is not a table is reported by a tag under the table's name."""
    assert set(tags_of(lambda run: run.log_table(data, "t.json"))) == {"trackdsl.omitted.t.json"}


@pytest.mark.parametrize("path", ["t.csv", "t", "", "a:b.json", "[a].json", 'a".parquet'])
def test_the_path_of_a_table_is_checked(path: str) -> None:
    """A path that MLflow refuses raises at once, and the error names the fix."""
    with capture_runs(), stage("s") as run:
        for log in (run.log_table, trackdsl.log_table):
            with pytest.raises(OptionError, match=r"\.json|leave it out"):
                log({"a": 1}, path)


def test_a_column_may_be_of_any_library() -> None:
    """Lists, arrays, tensors and series are columns of a dict."""
    values = [
        pytest.importorskip("torch").tensor([1, 2]),
        pytest.importorskip("polars").Series([1, 2]),
        pytest.importorskip("pyarrow").array([1, 2]),
        pytest.importorskip("pandas").Series([1, 2], index=[5, 6]),
        range(1, 3),
    ]
    for value in values:
        assert rows_of({"a": value}) == (["a"], [[1], [2]])


# --- tables at MLflow


@pytest.fixture
def spool(no_pauses: None, tmp_path: Path) -> Path:
    return tmp_path / SPOOL


def rows_at(held: Held, path: str = "t.json") -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(held.files[path])["data"]
    return rows


# --- tables, exactly once


class Steps:
    """Everything that delivery does to files and store, step by step, so that it can be killed at each of them."""

    def __init__(self, faults: dict[int, str]) -> None:
        self.faults = faults
        self.count = 0

    def fault(self) -> str:
        self.count += 1
        return self.faults.pop(self.count, "")

    def wrap(self, function: Callable[..., Any], *, away: bool = False) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            fault = self.fault()
            if fault == "before":
                raise Crash
            if fault == "away" and away:
                raise Unavailable("away")
            done = function(*arguments, **options)
            if fault == "after":
                raise Crash
            if fault == "lost answer" and away:
                raise Unavailable("no answer")
            return done

        return step

    def torn(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(ledger: Any, changes: list[Any], **options: Any) -> None:
            if self.fault() == "torn":
                with open(ledger._path, "ab") as file:
                    file.write(frame(changes)[:-3])
                raise Crash
            function(ledger, changes, **options)

        return self.wrap(step)


class Journal:
    """A journal of tables' rows, read in stretches as `Stream` does: intent, events, upload, note."""

    def __init__(self, spool: Path, name: str, rows: list[tuple[str, int]]) -> None:
        self.folder = spool / "journals" / name
        self.events: list[events.Table] = []
        for index, (target, count) in enumerate(rows):
            snapshot = f"{index:06d}/rows.json"
            path = self.folder / "files" / snapshot
            path.parent.mkdir(parents=True)
            columns = ["who", f"only in {name}"]
            path.write_text(json.dumps({"columns": columns, "data": [[f"{name}{index}.{n}", n] for n in range(count)]}))
            self.events.append(events.Table(b"", target, snapshot))
        self.done = self.intent = 0

    @property
    def finished(self) -> bool:
        return not self.folder.exists()

    def step(self, tables: Tables, store: MemoryStore, size: int, between: Callable[[], object] = dict) -> None:
        doubt = self.intent
        end = self.intent = max(self.intent, min(self.done + size, len(self.events)))
        for index in range(self.done, end):
            gone = tables.add_rows(DeliveredRun("run", "e"), self.events[index], self.folder, in_doubt=index < doubt)
            assert gone is None
        between()  # The rest of the stretch, which may fail.
        tables.upload(store, self.folder)  # type: ignore[arg-type]
        self.done = end
        if self.done == len(self.events) and not tables.waiting(self.folder):
            shutil.rmtree(self.folder)


FAULTS = st.dictionaries(
    st.integers(1, 60), st.sampled_from(["before", "after", "torn", "away", "lost answer"]), max_size=6
)
ROWS = st.lists(st.tuples(st.sampled_from(["t.json", "u.json"]), st.integers(0, 2)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=examples(300))
@given(
    first=ROWS,
    second=ROWS,
    faults=FAULTS,
    order=st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=15),
    base=st.booleans(),
)
@pytest.mark.slow
def test_rows_are_appended_once_whenever_delivery_is_killed(
    first: list[tuple[str, int]],
    second: list[tuple[str, int]],
    faults: dict[int, str],
    order: list[tuple[bool, int]],
    base: bool,
) -> None:
    """Killed at any step, also inside a write: every row is there once, in the order of its journal."""
    store = MemoryStore()
    held = store.runs["run"] = Held("e", "s", {})
    if base:
        held.files["t.json"] = json.dumps({"columns": ["base"], "data": [["theirs"]]})
    doing = Steps(dict(faults))
    for name in ("read_artifact", "write_artifact", "tags", "write"):
        setattr(store, name, doing.wrap(getattr(store, name), away=True))
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        changed_timing(file_retry=0.0),
    ):
        spool = Path(folder)
        both = [Journal(spool, "a", first), Journal(spool, "b", second)]
        patch.setattr(_tables, "sync", doing.wrap(_tables.sync))
        patch.setattr(_tables, "remove", doing.wrap(_tables.remove))
        patch.setattr(_tables, "remove_snapshot", doing.wrap(_tables.remove_snapshot))
        patch.setattr(_ledger, "sync", doing.wrap(_ledger.sync))
        patch.setattr(Ledger, "write", doing.torn(Ledger.write))
        tables = None
        for turn, size in [*order, *[(bool(n % 2), 5) for n in range(60)]]:
            journal = both[turn]
            try:
                tables = tables or Tables(spool)
                if not journal.finished:
                    journal.step(tables, store, size, doing.wrap(dict, away=True))
            except Unavailable:
                pass
            except Crash:
                tables = None
        assert all(journal.finished for journal in both)
        assert not list((spool / "tables").glob("*.ledger"))
    for path in ("t.json", "u.json"):
        found = json.loads(held.files.get(path, '{"columns": [], "data": []}'))
        whos = [row[found["columns"].index("who")] for row in found["data"] if "who" in found["columns"]]
        for name, rows in (("a", first), ("b", second)):
            mine = [f"{name}{i}.{n}" for i, (to, count) in enumerate(rows) if to == path for n in range(count)]
            assert [who for who in whos if who and who.startswith(name)] == mine
        if base and path == "t.json":
            assert found["data"][0][0] == "theirs"
            assert sum(row[0] == "theirs" for row in found["data"]) == 1
    listed = json.loads(held.tags["mlflow.loggedArtifacts"])
    assert {entry["path"] for entry in listed} == {path for path, _ in [*first, *second]}
    assert len(listed) == len({entry["path"] for entry in listed})


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcde"), unique=True, max_size=4),
            st.lists(st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=3)), min_size=4, max_size=4),
        ),
        max_size=6,
    ),
    st.sampled_from(["t.json", "t.parquet"]),
)
def test_tables_of_any_columns_join_and_are_read_back(parts: list[tuple[list[str], list[Any]]], path: str) -> None:
    """Whatever the columns of the parts, each row keeps its values under their names; both formats hold them."""
    table = _table_format.Table()
    expected = []
    for columns, row in parts:
        table.append(_table_format.Table(columns, [row[: len(columns)]]))
        expected.append(dict(zip(columns, row, strict=False)))
    found = _table_format.parse(_table_format.render(table, path), path)
    assert found.columns == list(dict.fromkeys(name for columns, _ in parts for name in columns))
    if found.columns:  # Parquet has no rows without columns.
        # A column of Parquet has one type: text, if its values have several.
        texts = {
            name
            for name in found.columns
            if path == "t.parquet" and {int, str} <= {type(row[name]) for row in expected if name in row}
        }
        meant = [
            [str(row[name]) if name in texts and row.get(name) is not None else row.get(name) for name in found.columns]
            for row in expected
        ]
        assert found.rows == meant


def test_rows_are_on_the_disk_before_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting rows are on the disk before their event counts as done; only then is their snapshot removed."""
    synced: list[str] = []
    for module in (_tables, _ledger):
        monkeypatch.setattr(module, "sync", lambda path: synced.append(path.name))
    store = MemoryStore({1: (Unavailable, False)})
    store.runs["run"] = Held("e", "s", {})
    journal = Journal(tmp_path, "a", [("t.json", 2)])
    journal.step(Tables(tmp_path), store, 1)
    assert journal.done == 1
    (log,) = (tmp_path / "tables").glob("*.ledger")
    assert {log.name, "tables"} <= set(synced)
    assert not [path for path in (journal.folder / "files").rglob("*") if path.is_file()]


def test_a_store_that_refuses_a_table_is_asked_once(tmp_path: Path) -> None:
    """The rows of a deleted run are given up: nothing waits for it."""
    journal = Journal(tmp_path, "a", [("t.json", 1)])
    store = MemoryStore()

    def gone(method: str, *_: Any) -> None:
        raise Refused("the run is deleted")

    store.before = gone
    tables = Tables(tmp_path)
    journal.step(tables, store, 9)
    assert tables.waiting(journal.folder) == 0
    assert journal.finished


def test_an_upload_that_may_still_come_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the answer to an upload is late, no later upload is sent while the first could still replace it."""
    now = 1000.0
    monkeypatch.setattr(_tables.time, "monotonic", lambda: now)
    store = MemoryStore()
    store.runs["run"] = Held("e", "s", {})
    journal = Journal(tmp_path, "a", [("t.json", 1), ("t.json", 1)])
    sent: list[str] = []

    def slow(method: str, *_: Any) -> None:
        sent.append(method)
        if method == "write_artifact":
            raise Unavailable("timed out", late=True)

    store.before = slow
    tables = Tables(tmp_path)
    journal.step(tables, store, 1)
    now += timing().late_request - 1
    journal.step(tables, store, 1)
    assert sent.count("write_artifact") == 1
    assert tables.waiting(journal.folder) == 1
    store.before = lambda *_: None
    now += 1
    journal.step(tables, store, 1)
    assert len(rows_at(store.runs["run"])) == 2


def test_a_log_of_journals_that_are_gone_was_delivered(tmp_path: Path) -> None:
    """Rows in a log that a power cut brought back are not uploaded again: their journals were removed after it."""
    journal = Journal(tmp_path, "a", [("t.json", 1)])
    tables = Tables(tmp_path)
    tables.add_rows(DeliveredRun("run", "e"), journal.events[0], journal.folder, in_doubt=False)
    assert Tables(tmp_path).waiting(journal.folder) == 1
    shutil.rmtree(journal.folder)
    assert Tables(tmp_path).waiting(journal.folder) == 0
    assert not list(tmp_path.glob("tables/*"))


def test_a_snapshot_that_is_gone_is_reported(tmp_path: Path) -> None:
    """Rows that were lost before delivery came are reported, unless they may have been taken before."""
    journal = Journal(tmp_path, "a", [("t.json", 1)])
    shutil.rmtree(journal.folder / "files" / "000000")
    tables = Tables(tmp_path)
    assert (
        tables.add_rows(DeliveredRun("run", "e"), journal.events[0], journal.folder, in_doubt=False)
        == "its snapshot is gone"
    )
    assert tables.add_rows(DeliveredRun("run", "e"), journal.events[0], journal.folder, in_doubt=True) is None
