"""Markers on the fields of what a function returns, and markers without a name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Annotated, Any, NamedTuple, NewType, NotRequired, Optional

import attrs
import pandas as pd
import pydantic
import pytest
from sklearn.linear_model import LinearRegression
from typing_extensions import TypedDict

import trackdsl
from trackdsl import Artifact, Dataset, Ignore, Metric, Model, Param, Secret, load_artifact, stage, track_returns
from trackdsl.testing import RecordedRun, capture_runs

FRAME = pd.DataFrame({"a": [1.0, 2.0]})
MODEL = LinearRegression().fit([[1.0], [2.0]], [1, 2])


class Inner(TypedDict):
    deep: Annotated[float, Metric("deep_score")]
    plain: float


@dataclasses.dataclass
class AsDataclass:
    score: Annotated[float, Metric("val_score")]
    model: Annotated[Any, Model("best")]
    frame: Annotated[pd.DataFrame, Dataset("clean", "training")]
    table: Annotated[Any, Artifact("tables/t.csv")]
    config: Annotated[dict[str, Any], Artifact("config.json")]
    lr: Annotated[float, Param("best_lr")]
    token: Annotated[str, Secret]
    ignored: Annotated[float, Ignore]
    inner: Inner
    bare: Annotated[float, Metric]
    maybe: Optional[Annotated[float, Metric("maybe_score")]] = None  # noqa: UP045 - the older way to write it
    rest: float = 4.0


class AsTuple(NamedTuple):
    score: Annotated[float, Metric("val_score")]
    model: Annotated[Any, Model("best")]
    frame: Annotated[pd.DataFrame, Dataset("clean", "training")]
    table: Annotated[Any, Artifact("tables/t.csv")]
    config: Annotated[dict[str, Any], Artifact("config.json")]
    lr: Annotated[float, Param("best_lr")]
    token: Annotated[str, Secret]
    ignored: Annotated[float, Ignore]
    inner: Inner
    bare: Annotated[float, Metric]
    maybe: Annotated[float, Metric("maybe_score")] | None = None
    rest: float = 4.0


class AsDict(TypedDict):
    score: Annotated[float, Metric("val_score")]
    model: Annotated[Any, Model("best")]
    frame: Annotated[pd.DataFrame, Dataset("clean", "training")]
    table: Annotated[Any, Artifact("tables/t.csv")]
    config: Annotated[dict[str, Any], Artifact("config.json")]
    lr: Annotated[float, Param("best_lr")]
    token: Annotated[str, Secret]
    ignored: Annotated[float, Ignore]
    inner: Inner
    bare: Annotated[float, Metric]
    maybe: NotRequired[Annotated[float, Metric("maybe_score")] | None]
    rest: float


class AsPydantic(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    score: Annotated[float, Metric("val_score")]
    model: Annotated[Any, Model("best")]
    frame: Annotated[pd.DataFrame, Dataset("clean", "training")]
    table: Annotated[Any, Artifact("tables/t.csv")]
    config: Annotated[dict[str, Any], Artifact("config.json")]
    lr: Annotated[float, Param("best_lr")]
    token: Annotated[str, Secret]
    ignored: Annotated[float, Ignore]
    inner: Inner
    bare: Annotated[float, Metric]
    maybe: Annotated[float, Metric("maybe_score")] | None = None
    rest: float = 4.0


@attrs.define
class AsAttrs:
    score: Annotated[float, Metric("val_score")]
    model: Annotated[Any, Model("best")]
    frame: Annotated[pd.DataFrame, Dataset("clean", "training")]
    table: Annotated[Any, Artifact("tables/t.csv")]
    config: Annotated[dict[str, Any], Artifact("config.json")]
    lr: Annotated[float, Param("best_lr")]
    token: Annotated[str, Secret]
    ignored: Annotated[float, Ignore]
    inner: Inner
    bare: Annotated[float, Metric]
    maybe: Annotated[float, Metric("maybe_score")] | None = None
    rest: float = 4.0


KINDS = (AsDataclass, AsTuple, AsDict, AsPydantic, AsAttrs)
VALUES: dict[str, Any] = {
    "score": 0.5, "model": MODEL, "frame": FRAME, "table": FRAME, "config": {"lr": 0.1, "name": "x"}, "lr": 0.25,
    "token": "a-planted-token", "ignored": 9.0, "inner": {"deep": 1.0, "plain": 2.0}, "bare": 3.0, "rest": 4.0,
}  # fmt: skip
METRICS = {"val_score": 0.5, "deep_score": 1.0, "inner/plain": 2.0, "bare": 3.0, "rest": 4.0}


def metrics_of(run: RecordedRun) -> dict[str, float]:
    return {name: found[-1].value for name, found in run.metrics.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_markers_on_fields(kind: Any) -> None:
    """Each field becomes what its marker says, under the marker's name; fields without one are as before."""

    def f() -> Any:
        return kind(**VALUES)

    f.__annotations__["return"] = kind
    with capture_runs() as captured, stage("f") as run:
        track_returns(f)()
        assert load_artifact(run, "config.json") == VALUES["config"]
    found = captured.one("f")
    assert metrics_of(found) == METRICS
    assert found.params == {"best_lr": 0.25}
    assert list(found.models) == ["best"]
    assert [(used.name, used.context) for used in found.inputs] == [("clean", "training")]
    assert set(found.artifacts) - {"f.json"} == {"clean.parquet", "tables/t.csv", "config.json"}
    assert "a-planted-token" not in repr(found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_that_is_hidden_is_in_a_file(kind: Any) -> None:
    """A field marked `Secret` or `Ignore` is not in the file of the rest, also of a TypedDict."""

    def f() -> Any:
        return kind(**{**VALUES, "maybe": 0.75})

    f.__annotations__["return"] = kind
    with capture_runs() as captured, stage("f"):
        track_returns(f)()
        found = captured.one("f")
        texts = [file.read_text() for path, file in found.artifacts.items() if path.endswith(".json")]
    assert found.metric("maybe_score") == 0.75
    assert "ignored" not in found.metrics
    assert not any("planted" in text or "ignored" in text for text in texts)


def test_marked_fields_inside_of_others() -> None:
    """Marked fields of fields, parts of tuples and optional values count at any depth of what is returned."""

    @dataclasses.dataclass
    class Outer:
        first: AsDict
        best: Annotated[AsTuple, Artifact("best.pkl")]

    @track_returns("outer", "more")
    def f() -> tuple[Outer, Optional[AsDict]]:  # noqa: UP045 - the older way to write it
        return Outer(AsDict(**VALUES), AsTuple(**VALUES)), AsDict(**{**VALUES, "score": 0.125})

    with capture_runs() as captured, stage("f"):
        f()
    found = captured.one("f")
    assert found.metric("val_score") == 0.5
    assert found.metric("val_score#2") == 0.125
    assert found.metric("outer/first/rest") == 4
    assert found.metric("more/rest") == 4
    assert "val_score#3" not in found.metrics


def test_markers_of_what_is_yielded() -> None:
    """`Iterator[Annotated[...]]` marks each item, `Iterator[Scores]` its fields; plainly and asynchronously."""

    @stage
    @track_returns
    def numbers() -> Iterator[Annotated[float, Metric("loss")]]:
        yield from (0.5, 0.25)

    @stage
    @track_returns
    def rows() -> Iterator[Inner]:
        yield {"deep": 1.0, "plain": 2.0}

    @stage
    @track_returns
    async def later() -> AsyncIterator[tuple[Annotated[float, Metric("loss")], Inner]]:
        yield 0.5, {"deep": 1.0, "plain": 2.0}

    async def use() -> None:
        async for _ in later():
            pass

    import asyncio

    with capture_runs() as captured:
        list(numbers())
        list(rows())
        asyncio.run(use())
    assert [(point.step, point.value) for point in captured.one("numbers").metrics["loss"]] == [(0, 0.5), (1, 0.25)]
    assert metrics_of(captured.one("rows")) == {"deep_score": 1, "plain": 2}
    assert metrics_of(captured.one("later")) == {"loss": 0.5, "deep_score": 1, "plain": 2}


Score = NewType("Score", Annotated[float, Metric("score")])  # type: ignore[valid-newtype]

ANNOTATIONS: dict[str, tuple[Any, Any, dict[str, float], set[str]]] = {
    "alone": (Metric, 0.5, {"f": 0.5}, set()),
    "alone with a name": (Metric("m"), 0.5, {"m": 0.5}, set()),
    "alone in a tuple": (tuple[Model, Metric], (MODEL, 0.5), {"f.1": 0.5}, {"f.0"}),
    "in a list": (list[Annotated[float, Metric("m")]], [0.5, 0.25], {"m": 0.25}, set()),
    "in an optional list": (list[Annotated[float, Metric("m")]] | None, [0.5], {"m": 0.5}, set()),
    "in a dict": (dict[str, Annotated[float, Metric("m")]], {"a": 0.5}, {"m/a": 0.5}, set()),
    "models in a list": (list[Annotated[Any, Model("m")]], [MODEL, None, MODEL], {}, {"m.0", "m.2"}),
    "models in a dict": (dict[str, Annotated[Any, Model]], {"a": MODEL}, {}, {"f.a"}),
    "a dict that is a model": (Annotated[Any, Model("m")], {"a": MODEL}, {}, {"m"}),
    "a tuple in a tuple": (
        tuple[Annotated[Any, Model("m")], tuple[Annotated[float, Metric("a")], float]],
        (MODEL, (0.5, 0.25)), {"a": 0.5, "f.1.1": 0.25}, {"m"},
    ),
    "a list for a tuple": (
        tuple[Annotated[Any, Model("m")], Annotated[float, Metric("a")]], [MODEL, 0.5], {"a": 0.5}, {"m"},
    ),
    "as a new type": (Score, 0.5, {"score": 0.5}, set()),
    "as text": ("Optional[Annotated[float, Metric('m')]]", 0.5, {"m": 0.5}, set()),
    "more than one": (Annotated[float, Metric("m"), Metric("n")], 0.5, {"m": 0.5, "n": 0.5}, set()),
    "of what a generator returns": (Generator[Any, Any, Annotated[float, Metric("m")]], 0.5, {"m": 0.5}, set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_where_a_marker_may_stand(kind: str) -> None:
    """A marker counts wherever it is in an annotation."""
    annotation, value, metrics, models = ANNOTATIONS[kind]

    def f() -> Any:
        return value

    f.__annotations__["return"] = annotation
    with capture_runs() as captured, stage("f"):
        assert track_returns(f)() is value
    found = captured.one("f")
    assert (metrics_of(found), set(found.models)) == (metrics, models)


def test_one_name_for_a_marked_tuple() -> None:
    """The one given name is that of the first value, and the markers of all values count."""

    @track_returns("score")
    def f() -> tuple[float, Annotated[Any, Model("m")], Annotated[float, Metric]]:
        return 0.5, MODEL, 0.25

    with capture_runs() as captured, stage("f"):
        f()
    found = captured.one("f")
    assert (metrics_of(found), set(found.models)) == ({"score": 0.5, "f.2": 0.25}, {"m"})


def test_marked_tuples_in_fields_and_several_markers_of_a_value() -> None:
    """A field that is a tuple is split by its markers; a table may be both a dataset and a file."""

    class Both(NamedTuple):
        pair: tuple[Annotated[float, Metric("first")], Annotated[float, Metric("second")]]
        curve: list[Annotated[float, Metric("curve")]]
        frame: Annotated[pd.DataFrame, Dataset("clean"), Artifact("tables/t.csv")]

    @track_returns
    def f() -> Both:
        return Both((0.5, 0.25), [1.0, 2.0], FRAME)

    with capture_runs() as captured, stage("f"):
        f()
    found = captured.one("f")
    assert metrics_of(found) == {"first": 0.5, "second": 0.25, "curve": 2.0}
    assert [used.name for used in found.inputs] == ["clean"]
    assert {"clean.parquet", "tables/t.csv"} <= set(found.artifacts)


def test_marked_fields_of_structures_in_a_list() -> None:
    """A marked field of a list of structures, such as folds, is a metric by the index; the file has everything."""

    @dataclasses.dataclass
    class Fold:
        acc: Annotated[float, Metric("cv_acc")]
        loss: Annotated[float, Metric]
        name: str

    @track_returns
    def f() -> list[Fold]:
        return [Fold(0.5, 2, "a"), Fold(0.75, 1, "b")]

    with capture_runs() as captured, stage("f"):
        f()
        found = captured.one("f")
        assert json.loads(found.artifacts["f.json"].read_text())[1] == {"acc": 0.75, "loss": 1, "name": "b"}
    assert {name: [(point.step, point.value) for point in each] for name, each in found.metrics.items()} == {
        "cv_acc": [(0, 0.5), (1, 0.75)], "loss": [(0, 2), (1, 1)],
    }  # fmt: skip


def test_marked_values_that_were_not_returned(caplog: pytest.LogCaptureFixture) -> None:
    """If a tuple is shorter than its annotation, or is none, the marked values that are missing are reported."""

    def f(value: Any) -> tuple[Annotated[Any, Model("m")], Annotated[float, Metric("acc")], Annotated[float, Metric]]:
        return value  # type: ignore[no-any-return]

    with capture_runs() as captured:
        for value, missing in (((MODEL,), {"acc", "f.2"}), (0.5, {"m", "acc", "f.2"}), (None, set())):
            caplog.clear()
            stage(track_returns(f))(value)
            tags = captured.runs[-1].tags
            assert {tag.removeprefix("trackdsl.omitted.") for tag in tags if "omitted" in tag} == missing
            assert bool(caplog.records) == bool(missing)


def test_a_parameter_that_is_marked_alone() -> None:
    """`key: Secret`, `frame: Dataset` and `rest: Ignore` work as in `Annotated`."""

    @stage
    def f(key: Secret, frame: Dataset, rest: Ignore, lr: Param("learning_rate")) -> None: ...  # type: ignore[valid-type]

    with capture_runs() as captured:
        f("planted", FRAME, 3, 0.5)  # type: ignore[arg-type]
    found = captured.one("f")
    assert found.params["key"] == "***"
    assert found.params["learning_rate"] == 0.5
    assert "rest" not in found.params
    assert [used.name for used in found.inputs] == ["frame"]


MISPLACED = {
    "no name": (Annotated[float, Param], r"Param\('other_name'\)"),
    "metric": (Annotated[float, Metric("m")], "Mark the return annotation"),
    "model": (Annotated[Any, Model] | None, "Mark the return annotation"),
    "file, alone": (Artifact("x.csv"), "Mark the return annotation"),
    "models in a list": (list[Annotated[Any, Model("m")]], "Mark the return annotation"),
    "as text": ("Annotated[float, Metric]", "Mark the return annotation"),
}


@pytest.mark.parametrize("kind", MISPLACED)
def test_a_marker_that_says_nothing_of_a_parameter(kind: str) -> None:
    """Decoration raises an error that names the parameter and the fix, with each of the decorators."""
    annotation, fix = MISPLACED[kind]

    def f(x: Any) -> None: ...

    f.__annotations__["x"] = annotation
    for decorator in (stage, track_returns, trackdsl.experiment("e")):
        with pytest.raises(trackdsl.OptionError, match=f"'x'.*{fix}"):
            decorator(f)  # type: ignore[operator]


def test_a_marker_of_one_argument_on_many() -> None:
    """`Dataset` and `Param` on `*args` and `**kwargs` are errors; `Secret` masks all of them."""

    def args(*x: Annotated[Any, Dataset("d")]) -> None: ...
    def kwargs(**x: Annotated[Any, Param("p")]) -> None: ...
    def secret(*x: Annotated[str, Secret]) -> None: ...

    for fn in (args, kwargs):
        with pytest.raises(trackdsl.OptionError, match="collects several"):
            stage(fn)
    with capture_runs() as captured:
        stage(secret)("planted")
    assert list(captured.one("secret").params.values()) == ["***"]


def test_a_marker_that_needs_a_name() -> None:
    """Marker names that are not text are errors at once, which name the fix."""
    for kind in (Metric, Param, Artifact, Model, Dataset):
        for wrong in (3, "", " ", None):
            with pytest.raises(trackdsl.OptionError, match=kind.__name__):
                kind(wrong)  # type: ignore[arg-type]


def test_an_artifact_may_have_a_path() -> None:
    """`Artifact(Path(...))` is the same as `Artifact` of its text."""
    import pathlib

    assert Artifact(pathlib.Path("a") / "b.json") == Artifact("a/b.json")  # type: ignore[arg-type]


def test_a_marked_list_is_a_series() -> None:
    """`Metric` on a list gives its points by step, on a dict its numbers below the name; a text is reported."""

    @track_returns
    def f() -> tuple[
        Annotated[list[float], Metric("loss")], Annotated[dict[str, float], Metric("val")], Annotated[str, Metric("m")],
    ]:  # fmt: skip
        return [0.5, 0.25], {"acc": 1}, "x"

    with capture_runs() as captured, stage("f"):
        f()
    found = captured.one("f")
    assert [(point.step, point.value) for point in found.metrics["loss"]] == [(0, 0.5), (1, 0.25)]
    assert found.metric("val/acc") == 1
    assert "is not a number" in found.tags["trackdsl.omitted.m"]
    assert json.dumps(found.params) == "{}"
