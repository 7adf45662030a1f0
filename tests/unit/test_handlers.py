"""Handlers of plain values and pictures: values are read back equal, and are not changed or kept."""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import math
import pathlib
import types
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handler_contract import QUICK, Color, HandlerContract, Optimizer, Plain, Shape, back
from trackdsl.handlers import Handler, handler_for, handler_of, register_handler
from trackdsl.handlers._registry import writer_for


def double(x: int) -> int:
    return 2 * x


class TestMappings(HandlerContract):
    formats = (".yaml", ".yml", ".txt")
    as_json = (".txt",)

    def values(self) -> list[Any]:
        return [{"a": [1, {"b": None}], "ü": "x\n"}, {}, {"a": [1, 2], "b": [1.5, math.inf]}]


class TestSequences(HandlerContract):
    one_line = False  # It is a parameter's whole text, which is kept as a file where it is too long for MLflow.
    formats = (".yaml", ".yml", ".txt")
    as_json = (".txt",)

    def values(self) -> list[Any]:
        return [[1, "two", None, True, [2.5]], [], ["x" * 300] * 100, [{"a": 1}, {"a": 2}]]

    def same(self, one: Any, other: Any) -> bool:
        return bool(list(one) == other)


class TestNumbers(HandlerContract):
    notices = False  # Half the digits are a number too.
    formats = (".yaml", ".txt")
    as_json = (".txt",)

    def values(self) -> list[Any]:
        return [12345, -0.5, True, None, 10**300]


class TestText(HandlerContract):
    one_line = False
    notices = False
    formats = (".html", ".md", ".csv")

    def values(self) -> list[Any]:
        return ["zeilen\r\n\n ü", ""]


class TestBinary(HandlerContract):
    notices = False

    def values(self) -> list[Any]:
        return [b"\x00\xff" * 9, b"", bytearray(b"x"), memoryview(b"xy")]

    def same(self, one: Any, other: Any) -> bool:
        return bytes(one) == other

    def content(self, value: Any) -> Any:
        return bytes(value)


class TestPaths(HandlerContract):
    notices = False
    one_way = True  # A path that leads nowhere is kept as its text.

    def values(self) -> list[Any]:
        return [pathlib.PurePosixPath("a/b"), pathlib.Path("nowhere")]


class TestFunctions(HandlerContract):
    def values(self) -> list[Any]:
        return [double, json.dumps, functools.partial(double, 1), int]

    def same(self, one: Any, other: Any) -> bool:
        return one is other or one.func is other.func


class TestValuesWrittenAsText(HandlerContract):
    def values(self) -> list[Any]:
        return [Decimal("1.50"), uuid.UUID(int=1), 1 + 2j, range(3), datetime.timedelta(1), datetime.date(2020, 1, 1),
                datetime.time(1), {1, 2}, frozenset(), set(range(1000)), Color.RED]  # fmt: skip


class TestStructures(HandlerContract):
    def values(self) -> list[Any]:
        return [Optimizer(), Shape(3), argparse.Namespace(a=1), types.SimpleNamespace()]


class TestPydantic(HandlerContract):
    needs = ("pydantic",)

    def values(self) -> list[Any]:
        import pydantic

        return [pydantic.create_model("Model", a=(int, 1))(), pydantic.create_model("Empty")()]

    def same(self, one: Any, other: Any) -> bool:
        return bool(one.model_dump() == other.model_dump())

    def content(self, value: Any) -> Any:
        return repr(value), repr(vars(value))


class TestOmegaConf(HandlerContract):
    needs = ("omegaconf",)

    def values(self) -> list[Any]:
        from omegaconf import OmegaConf

        return [OmegaConf.create({"a": {"b": 1}, "c": "${a.b}", "d": "???"}), OmegaConf.create([1]), OmegaConf.create()]


class TestPickles(HandlerContract):
    def values(self) -> list[Any]:
        return [Plain(), Exception("x")]

    def content(self, value: Any) -> Any:
        # An exception pickles otherwise once it was asked for attributes, even where it has none.
        return super().content((type(value), vars(value), getattr(value, "args", ())))

    def same(self, one: Any, other: Any) -> bool:
        return type(one) is type(other) and vars(one) == vars(other)


class TestMatplotlib(HandlerContract):
    needs = ("matplotlib", "PIL")
    one_way = True
    formats = (".svg", ".pdf", ".jpg")

    def values(self) -> list[Any]:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3, 2), dpi=70, facecolor="red")
        axes = figure.subplots()
        axes.plot([1, 2, 3])
        packed = Figure(layout="constrained")
        packed.subplots(2, 2)[0, 0].set_title("x\ny")
        return [figure, packed, Figure(layout="tight"), Figure().subplots(), Figure().subfigures(1, 2)[0]]

    def holds(self, path: pathlib.Path, found: Any, value: Any) -> bool:
        if path.suffix == ".jpg":
            # 3 x 2 inches; how many pixels these are, another library may have set for all of a process.
            return (found.width * 2, found.convert("1").getpixel((0, 0))) == (found.height * 3, 0)
        begin, size = {".svg": ("<?xml", "216pt"), ".pdf": (b"%PDF", b"216 144")}[path.suffix]
        return bool(found.startswith(begin) and size in found)

    def content(self, value: Any) -> Any:
        figure = value.figure
        while not hasattr(figure, "canvas") or not hasattr(figure, "savefig"):
            figure = figure.figure
        positions = [(a.get_position(True).bounds, a.get_position(False).bounds, a.stale) for a in figure.axes]
        return (figure.dpi, figure.canvas, type(figure.canvas), figure.get_facecolor(), figure.get_edgecolor(),
                figure.stale, tuple(figure.get_size_inches()), positions, vars(figure.subplotpars).copy())  # fmt: skip


class TestPlotly(HandlerContract):
    needs = ("plotly",)
    one_way = True
    notices = False
    formats = (".json",)

    def values(self) -> list[Any]:
        import plotly.graph_objects as go

        return [go.Figure(go.Scatter(y=[1, 2])), go.Figure()]

    def content(self, value: Any) -> Any:
        return value.to_json()


class TestPillow(HandlerContract):
    needs = ("PIL",)
    formats = (".jpg", ".webp", ".bmp", ".gif", ".tiff")

    def values(self) -> list[Any]:
        from PIL import Image

        noise = Image.effect_noise((40, 30), 50)
        return [noise.convert("RGBA"), noise, noise.convert("1"), noise.convert("P"), noise.convert("LA")]

    def same(self, one: Any, other: Any) -> bool:
        return one.convert("RGBA").tobytes() == other.convert("RGBA").tobytes()

    def holds(self, path: pathlib.Path, found: Any, value: Any) -> bool:
        from PIL import Image, ImageChops, ImageStat

        with Image.open(path) as image:
            assert image.format == {".jpg": "JPEG"}.get(path.suffix, path.suffix[1:].upper())
        assert found.size == value.size
        return ImageStat.Stat(ImageChops.difference(found.convert("L"), value.convert("L"))).mean[0] < 10

    def content(self, value: Any) -> Any:
        return value.tobytes(), sorted(vars(value))


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.from_regex("[a-d]{1,8}", fullmatch=True), inner),
    max_leaves=20,
)


@given(JSON_LIKE | st.binary() | st.text(st.characters(codec="utf-8")))
@QUICK
def test_anything_plain_comes_back(tmp_path: pathlib.Path, value: Any) -> None:
    """JSON-like values, bytes and text are read as they were written, down to the type."""
    found = back(value, tmp_path)
    assert (found, type(found)) == (value, type(value))


def test_an_object_that_looks_like_a_handler(tmp_path: pathlib.Path) -> None:
    """Any object with a suffix and `write` is a handler; what it lacks is the default."""

    class Card:
        title = "x"

    class Cards:
        suffix = ".card"

        def write(self, value: Card, path: pathlib.Path) -> None:
            path.write_text(value.title)

    register_handler(Card, Cards())
    handler = handler_of(Card())
    handler.write(Card(), tmp_path / "x.card")
    assert (tmp_path / "x.card").read_text() == "x"
    assert (handler.suffix, handler.children(Card()), handler.dataset(Card())) == (".card", None, None)
    assert handler.summary(Card()).endswith("Card")
    with pytest.raises(NotImplementedError):
        handler.read(tmp_path / "x.card")


def test_a_path_of_another_format() -> None:
    """A value that its handler's first format cannot hold is written in the requested format, if that can hold it."""
    pd = pytest.importorskip("pandas")
    mixed = pd.DataFrame({"a": [1, "x"]})
    handler = writer_for(mixed, handler_of(mixed), ".csv")
    assert isinstance(handler, Handler)
    assert handler is handler_for(pd.DataFrame)
