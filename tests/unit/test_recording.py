"""What a call and the functions inside a run record: parameters, metrics, tags, artifacts, return values."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import fractions
import json
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from trackdsl import Artifact, Ignore, Metric, Model, Param, Secret, stage, track_returns
from trackdsl._core import redaction as _secrets
from trackdsl.handlers import register_handler
from trackdsl.testing import RecordedRun, capture_runs


class Hostile:
    """An object whose every attribute raises."""

    def __repr__(self) -> str:
        raise AssertionError("repr")

    def __str__(self) -> str:
        raise AssertionError("str")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("eq")

    def __bool__(self) -> bool:
        raise AssertionError("bool")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"getattr {name}")

    __hash__ = None  # type: ignore[assignment]


class BadMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("getitem")

    def __iter__(self) -> Any:
        raise RuntimeError("iter")

    def __len__(self) -> int:
        raise RuntimeError("len")


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Optimizer:
    lr: float = 0.1
    schedule: dict[str, int] = dataclasses.field(default_factory=lambda: {"warmup": 3})


class Shape(NamedTuple):
    width: int
    height: int


def params_of(value: Any) -> dict[str, Any]:
    with capture_runs() as captured:
        stage("f")(lambda x: None)(value)
    return captured.one("f").params


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {"x": None}),
        (True, {"x": True}),
        (3, {"x": 3}),
        (2.5, {"x": 2.5}),
        ("text", {"x": "text"}),
        (10**40, {"x": str(10**40)}),
        ("lone \udc80 surrogate", {"x": "lone \\udc80 surrogate"}),
        (Color.RED, {"x": "Color.RED"}),
        (pathlib.PurePosixPath("a/b"), {"x": "a/b"}),
        (decimal.Decimal("1.50"), {"x": "1.50"}),
        ({"a": {"b": 1}, "c": "d"}, {"x.a.b": 1, "x.c": "d"}),
        ({}, {"x": "{}"}),
        (Optimizer(), {"x.lr": 0.1, "x.schedule.warmup": 3}),
        (Shape(3, 4), {"x.width": 3, "x.height": 4}),
        ([1, 2, "three"], {"x": '[1, 2, "three"]'}),
        (range(3), {"x": "range(0, 3)"}),
        ([object()], {"x": "[object]"}),
        (list(range(1000)), {"x": "list of 1000, digest 6e53c265"}),
        (json.dumps, {"x": "json.dumps"}),
        (Hostile(), {"x": f"{__name__}.Hostile"}),
        (BadMapping(), {"x": f"{__name__}.BadMapping"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_become_parameters(value: Any, expected: dict[str, Any]) -> None:
    """Plain values are recorded as they are, structures by leaf, anything else in one line, never by `repr`."""
    assert params_of(value) == expected


def test_a_structure_that_holds_itself_ends() -> None:
    """A dict inside itself is recorded to a bounded depth."""
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = loop
    found = params_of(loop)
    assert found["x.a"] == 1
    assert len(found) < 50


def test_every_kind_of_parameter() -> None:
    """Positional-only, keyword-only, `*args` and `**kwargs` are parameters, also if their names collide."""

    @stage
    def f(a: int, /, b: int, *rest: int, c: int = 3, **extra: int) -> None: ...

    with capture_runs() as captured:
        f(1, 2, 8, 9, d=4, a=5)
    assert captured.one("f").params == {"a": 1, "b": 2, "c": 3, "rest.0": 8, "rest.1": 9, "d": 4, "extra.a": 5}


def test_a_call_that_the_function_refuses_is_refused_as_before() -> None:
    """A missing argument raises the function's own TypeError, and the run is FAILED."""

    @stage
    def f(a: int) -> None: ...

    with capture_runs() as captured, pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        f()  # type: ignore[call-arg]
    assert captured.one("f").status == "FAILED"


def test_params_can_be_chosen() -> None:
    """`params=False` records no parameter, a list those that it names."""

    def f(a: int, b: int) -> None: ...

    with capture_runs() as captured:
        stage("none", params=False)(f)(1, 2)
        stage("one", params=["b"])(f)(1, 2)
    assert captured.one("none").params == {}
    assert captured.one("one").params == {"b": 2}


def test_markers_on_parameters() -> None:
    """`Param` renames, `Ignore` leaves out and `Secret` masks, as class or object."""

    @stage
    def f(
        a: Annotated[int, Param("alpha")],
        b: Annotated[int, Ignore],
        c: Annotated[str, Secret],
        d: Annotated[str, Secret()],
        e: Annotated[int, Param("late")] = 5,
    ) -> None: ...

    with capture_runs() as captured:
        f(1, 2, "hunter2", "hunter3")
    assert captured.one("f").params == {"alpha": 1, "c": "***", "d": "***", "late": 5}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("db_password", True),
        ("token", True),
        ("auth_token", True),
        ("hf_token", True),
        ("api_key", True),
        ("OPENAI_API_KEY", True),
        ("secret", True),
        ("credentials", True),
        ("max_tokens", False),
        ("token_count", False),
        ("tokenizer", False),
        ("num_tokens", False),
        ("key", False),
        ("monkey", False),
        ("author", False),
    ],
)
def test_secret_names(name: str, secret: bool) -> None:
    """Names of secrets are recognized, and hyper-parameters of language models are not among them."""
    assert _secrets.is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:hunter2@db:5432/x", "postgresql://***@db:5432/x"),
        ("see https://token@github.com/a/b.", "see https://***@github.com/a/b."),
        ("https://me:p@ss@host/x", "https://***@host/x"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("ghp_" + "a1" * 18, "***"),
        ("just some text, with an @ in it", "just some text, with an @ in it"),
    ],
)
def test_secrets_are_known_by_shape(text: str, masked: str) -> None:
    """Credentials in URLs and well-known tokens are masked, and nothing else."""
    assert _secrets.mask_text(text) == masked


def returned(value: Any, *names: str, **options: Any) -> RecordedRun:
    with capture_runs() as captured:
        assert stage("r")(track_returns(*names, **options)(named_f(value)))() is value
        (run,) = captured.runs
        run.artifacts = {path: _read(file) for path, file in run.artifacts.items()}
    return run


def named_f(value: Any) -> Any:
    def f() -> Any:
        return value

    return f


def _read(file: pathlib.Path) -> Any:
    if file.suffix == ".pkl":
        return cloudpickle.loads(file.read_bytes())
    return json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()


@pytest.mark.parametrize(
    ("value", "names", "metrics", "artifacts"),
    [
        (0.5, (), {"f": 0.5}, {}),
        (7, ("score",), {"score": 7}, {}),
        (True, (), {"f": 1.0}, {}),
        (fractions.Fraction(1, 2), (), {"f": 0.5}, {}),
        (None, (), {}, {}),
        ({"acc": 0.9, "val": {"loss": 1}, "note": "x"}, (), {"acc": 0.9, "val/loss": 1}, {"f.json": {"note": "x"}}),
        ({"acc": 0.9}, ("test",), {"test/acc": 0.9}, {}),
        (Shape(3, 4), (), {"width": 3, "height": 4}, {}),
        (Optimizer(), (), {"lr": 0.1, "schedule/warmup": 3}, {}),
        ((1.0, 2.0), (), {"f.0": 1.0, "f.1": 2.0}, {}),
        ((1.0, "text"), ("a", "b"), {"a": 1.0}, {"b.txt": b"text"}),
        ((1.0, 2.0, 3.0), ("a",), {}, {"a.json": [1.0, 2.0, 3.0]}),
        ([1, 2], (), {}, {"f.json": [1, 2]}),
        (b"bytes", (), {}, {"f.bin": b"bytes"}),
        ({1, 2}, (), {}, {"f.json": [1, 2]}),
        ({"model": {1, 2}, "acc": 1}, (), {"acc": 1}, {"f.json": {"model": [1, 2]}}),
        ([{1}], (), {}, {"f.json": [[1]]}),
        (float("nan"), (), {"f": "nan"}, {}),
        (float("inf"), (), {"f": float("inf")}, {}),
    ],
    ids=repr,
)
def test_return_values(value: Any, names: Any, metrics: dict[str, Any], artifacts: dict[str, Any]) -> None:
    """Numbers and mappings are metrics, the rest files; the caller gets the same object."""
    run = returned(value, *names)
    found = {name: points[-1].value for name, points in run.metrics.items()}
    assert {name: "nan" if v != v else v for name, v in found.items()} == metrics
    assert run.artifacts == artifacts


def test_choices_of_track_returns() -> None:
    """`prefix`, `metrics` and `artifacts` choose names and what is kept."""
    run = returned({"acc": 1.0, "loss": 2.0, "note": "x"}, prefix="val/", metrics=["acc"], artifacts={"loss": "l.txt"})
    assert {name: p[-1].value for name, p in run.metrics.items()} == {"val/acc": 1.0}
    assert list(run.artifacts) == ["l.txt"]


def test_markers_on_returns() -> None:
    """The markers of the return annotation name metrics, files and models."""

    @stage
    @track_returns
    def train() -> tuple[
        Annotated[object, Model("classifier")],
        Annotated[float, Metric("accuracy")],
        Annotated[str, Artifact("a/n.txt")],
    ]:
        return {1}, 0.5, "note"

    with capture_runs() as captured:
        train()
    run = captured.one("train")
    assert run.metric("accuracy") == 0.5
    assert list(run.artifacts) == ["a/n.txt"]
    assert list(run.models) == ["classifier"]


def test_a_returned_path_is_its_file(tmp_path: pathlib.Path) -> None:
    """A `Path` of an existing file is kept as that file."""
    file = tmp_path / "report.html"
    file.write_text("<p>")
    assert returned(file).artifacts == {"report.html": b"<p>"}


def test_what_cannot_be_pickled_is_a_visible_omission() -> None:
    """What cannot be pickled raises nothing; a tag says what is missing and why, and the caller gets the value."""
    run = returned(sys._getframe())
    (tag,) = [name for name in run.tags if name.startswith("trackdsl.omitted")]
    assert re.search("^frame: .*pickle", run.tags[tag])
    assert run.status == "FINISHED"


def test_a_handler_of_ones_own() -> None:
    """`register_handler` handles a type by its name, without importing it."""

    class Card:
        title = "t"

    class CardHandler:
        suffix = ".card"

        def write(self, value: Card, path: pathlib.Path) -> None:
            path.write_text(value.title)

    register_handler(f"{Card.__module__}.{Card.__qualname__}", CardHandler())
    assert returned(Card()).artifacts == {"f.card": b"t"}


def test_metrics_that_are_no_numbers_are_left_out_visibly(caplog: pytest.LogCaptureFixture) -> None:
    """Text, complex numbers and numbers beyond a double leave a tag; the others of the call are recorded."""
    with capture_runs() as captured, stage("s") as run:
        run.log_metric("text", "0.5 percent")
        run.log_metrics({"complex": 1j, "huge": 10**400, "fine": 1, "decimal": decimal.Decimal("2.5")})
        run.log_metric("stepped", 1, step=10**30)
        run.log_metric("word", 1, step="three")  # type: ignore[arg-type]
        run.log_metric("after", 1)
    found = captured.one("s")
    assert set(found.metrics) == {"fine", "decimal", "stepped", "word", "after"}
    omitted = {name.removeprefix("trackdsl.omitted.") for name in found.tags}
    assert omitted >= {"text", "complex", "huge", "step"}
    assert caplog.records


def test_numpy_values_and_steps() -> None:
    """NumPy scalars and 0-d arrays are numbers, as values and as steps."""
    import numpy as np

    with capture_runs() as captured, stage("s") as run:
        run.log_metric("a", np.float32(0.5), step=np.int64(3))
        run.log_metric("b", np.array(2.0), step=np.int64(0))
    assert (captured.runs[0].metrics["a"][0].step, captured.runs[0].metric("a")) == (3, 0.5)
    assert captured.runs[0].metric("b") == 2.0
    assert returned(np.float64(0.25)).metric("f") == 0.25


def test_artifacts_are_snapshots(tmp_path: pathlib.Path) -> None:
    """A file that is overwritten, or a folder that is deleted, right after logging is kept as it was."""
    file = tmp_path / "model.bin"
    file.write_bytes(b"one" * 100_000)
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("a")
    with capture_runs() as captured:
        with stage("s") as run:
            run.log_artifact(file)
            file.write_bytes(b"two")
            run.log_artifact(file, "models/best.bin")
            run.log_artifact(str(file), "models")
            run.log_artifact(folder, "folders")
            run.log_artifacts(folder, "outputs")
            trackdsl.log_dict({"a": [1]}, "conf/config.json")
            trackdsl.log_dict({"a": [1]}, "config.yaml")
            trackdsl.log_text("hello", "status.txt")
        (folder / "deep" / "a.txt").unlink()
        kept = captured.one("s").artifacts
        assert kept["model.bin"].read_bytes() == b"one" * 100_000
        assert kept["models/best.bin"].read_bytes() == kept["models/model.bin"].read_bytes() == b"two"
        assert (kept["folders/out"] / "deep" / "a.txt").read_text() == "a"
        assert (kept["outputs"] / "deep" / "a.txt").read_text() == "a"
        assert json.loads(kept["conf/config.json"].read_text()) == {"a": [1]}
        assert kept["config.yaml"].read_text() == "a:\n- 1\n"
        assert kept["status.txt"].read_text() == "hello"


@pytest.mark.parametrize("path", ["../up.txt", "/etc/passwd", "a/../../b.txt", "nul\0.txt", "a\\b.txt"])
def test_paths_that_leave_the_run_are_refused_visibly(path: str) -> None:
    """An artifact's path never leaves the run's folder: a tag reports it, nothing is raised."""
    with capture_runs() as captured, stage("s") as run:
        run.log_text("x", path)
    assert not captured.one("s").artifacts
    assert any(name.startswith("trackdsl.omitted") for name in captured.one("s").tags)


def test_a_missing_file_is_a_visible_omission(caplog: pytest.LogCaptureFixture) -> None:
    """`log_artifact` of a file that is not there leaves a tag and a log line."""
    with capture_runs() as captured, stage("s") as run:
        run.log_artifact("nowhere.bin")
        run.log_artifacts("nowhere")
    assert "FileNotFoundError" in captured.one("s").tags["trackdsl.omitted.nowhere.bin"]
    assert len(caplog.records) == 2


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON_LIKE, tag=st.text(), name=st.text())
def test_nothing_that_is_logged_raises(value: Any, tag: str, name: str) -> None:
    """No call raises, whatever is passed as argument, parameter, tag, metric or return value."""
    with capture_runs() as captured:

        @stage(returns=True)
        def f(x: Any) -> Any:
            run = trackdsl.current_run()
            assert run is not None
            run.log_param(name, x)
            run.set_tag(tag, x)
            run.log_metric(name, x)
            with stage(name or None, p=x):
                pass
            return x

        f(value)
    (run,) = captured.roots
    assert (run.name, run.status) == ("f", "FINISHED")
