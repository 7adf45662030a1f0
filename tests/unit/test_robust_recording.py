"""Programs in bad conditions: secrets in odd fields, mocks, huge arguments, missing shells and folders, forks."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any
from unittest import mock

import pytest

import trackdsl
from trackdsl import Secret, log_metric, stage, steps, track_returns
from trackdsl._core import redaction as _secrets
from trackdsl._decorate import scopes as _scopes
from trackdsl.testing import capture_runs


def params_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    with capture_runs() as captured:
        function(*args, **kwargs)
    (run,) = captured.runs
    return run.params


def test_secrets_that_come_in_by_stars_are_masked() -> None:
    """`**kwargs` are masked by their own names, `*args` by the name or marker of what gathers them."""
    password = "hunter2"

    @stage
    def by_name(**options: Any) -> None: ...

    @stage
    def gathered(*passwords: str) -> None: ...

    @stage
    def marked(*texts: Annotated[str, Secret], **rest: Annotated[str, Secret]) -> None: ...

    assert params_of(by_name, password=password, lr=1) == {"password": "***", "lr": 1}
    assert params_of(gathered, password, password) == {"passwords.0": "***", "passwords.1": "***"}
    assert params_of(marked, password, x=password) == {"texts.0": "***", "x": "***"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["lr"], {"lr": 1}),
        (["rest"], {"rest.0": 5}),
        (["options"], {"foo": 2}),
        ((name for name in ["lr", "options"]), {"lr": 1, "foo": 2}),
    ],
    ids=["one", "args", "kwargs", "generator"],
)
def test_chosen_params_leave_out_the_stars(names: Any, expected: dict[str, Any]) -> None:
    """`params=[...]` chooses among `*args` and `**kwargs` too, and may be any iterable."""

    @track_returns
    @stage(params=names)
    def f(lr: int, *rest: int, **options: int) -> float:
        return 1.0

    for _ in range(2):
        assert params_of(f, 1, 5, foo=2) == expected


class NoRepr:
    def __repr__(self) -> str:
        raise AssertionError("repr")

    __str__ = __repr__


@pytest.mark.parametrize("path", ["c.json", "c.yaml"])
def test_log_dict_masks_and_takes_no_repr(path: str) -> None:
    """In a logged structure secrets are masked by name and shape, and strange objects are described by their class."""
    with capture_runs() as captured:
        with stage("s") as run:
            run.log_dict({"password": "hunter2", "in": [{"url": "pg://me:hunter2@host/x"}], "o": NoRepr()}, path)
        text = captured.one("s").artifacts[path].read_text()
    assert "hunter2" not in text
    assert "pg://***@host/x" in text
    assert f"{__name__}.NoRepr" in text


def test_a_returned_secret_is_left_out() -> None:
    """A returned value with a secret's name becomes no file, whatever holds it; a tag says so, and others are kept."""

    @stage
    @track_returns("api_key", "n", "config")
    def login() -> Any:
        return "hunter2", 1, {"token": "hunter2", "deep": {"password": {"a": "hunter2"}}, "host": "h"}

    with capture_runs() as captured:
        login()
        run = captured.one("login")
        texts = {path: file.read_text() for path, file in run.artifacts.items()}
    assert run.metrics.keys() == {"n"}
    assert "trackdsl.omitted.api_key" in run.tags
    assert list(texts) == ["config.json"]
    assert "hunter2" not in texts["config.json"]
    assert json.loads(texts["config.json"])["host"] == "h"


@pytest.mark.parametrize(
    "text",
    [
        lambda n: "x" * n,
        lambda n: "pass word " * (n // 10),
        lambda n: "password" * (n // 8),
        lambda n: "a://" * (n // 4) + "@",
        lambda n: "a" * n + "://@",
        lambda n: "a-" * (n // 2) + "://@",
        lambda n: "eyJ" + "a" * n,
        lambda n: "eyJ-" * (n // 4),
        lambda n: "-----BEGIN PRIVATE KEY-----" * (n // 27),
        lambda n: "token" + " " * n,
    ],
    ids=["plain", "words", "names", "urls", "scheme", "dashes", "token", "tokens", "keys", "spaces"],
)
def test_masking_of_long_texts_ends(text: Callable[[int], str]) -> None:
    """Masking takes a time that is linear in the length of a message: else a long one would take hours."""
    long = text(400_000)
    assert "hunter2" not in _secrets.mask_prose(f"{long} https://me:hunter2@host/")


def test_numpy_arguments_are_plain_numbers() -> None:
    """NumPy scalars as arguments are recorded as numbers of Python."""
    import numpy as np

    @stage
    def f(**numbers: Any) -> None: ...

    found = params_of(f, a=np.float64(0.5), b=np.int64(3), c=np.float32(0.5), d=np.bool_(True), e=np.array(2))
    assert found == {"a": 0.5, "b": 3, "c": 0.5, "d": True, "e": 2}
    assert [type(value) for value in found.values()] == [float, int, float, bool, int]


@pytest.mark.slow
def test_a_huge_argument_keeps_its_run() -> None:
    """An argument that is too large for a journal is cut on its run, and kept whole in a file of it."""

    @stage
    def tokenize(corpus: str, lr: float) -> None:
        log_metric("n", 1)

    corpus = "0123456789" * 7_000_000
    with capture_runs() as captured:
        tokenize(corpus, 0.5)
        run = captured.one("tokenize")
        assert (run.status, run.metric("n"), run.params["lr"], run.lost) == ("FINISHED", 1, 0.5, 0)
        assert str(run.params["corpus"]).endswith("… [70000000 characters]")
        assert run.artifacts["trackdsl/whole/corpus.txt"].stat().st_size == len(corpus)


def test_a_mock_of_mlflow_harms_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where a program's own tests replace MLflow by a `MagicMock`, nothing raises and runs are recorded."""

    @stage(nested=False)
    def section() -> None: ...

    with monkeypatch.context() as patch, capture_runs() as captured:
        patch.setitem(sys.modules, "mlflow", mock.MagicMock())
        log_metric("outside", 1)
        with stage("block", nested=False):
            log_metric("inside", 2)
        section()
    assert captured.one("block").metric("inside") == 2
    assert captured.one("section").status == "FINISHED"
    assert "cannot find out which MLflow run is active" in caplog.text


def test_a_cached_result_is_on_no_older_run() -> None:
    """If a cache between `track_returns` and `stage` answers, the values are recorded on no older run."""

    @track_returns
    @functools.lru_cache
    @stage
    def f(x: int) -> float:
        return float(x)

    with capture_runs() as captured:
        assert [f(1), f(2), f(1)] == [1.0, 2.0, 1.0]
        with stage("around"):
            f(2)
    assert [(run.params, [p.value for p in run.metrics["f"]]) for run in captured.named("f")] == [
        ({"x": 1}, [1.0]),
        ({"x": 2}, [2.0]),
    ]
    assert captured.one("around").metric("f") == 2.0


def test_a_fault_at_the_end_hides_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `strict`, a fault at the end of a run does not replace the program's own exception."""

    def broken(*_: Any) -> None:
        raise OSError("no")

    @stage
    def f() -> None:
        raise KeyError("mine")

    trackdsl.configure(strict=True)
    monkeypatch.setattr(_scopes, "close_run", broken)
    with capture_runs(), pytest.raises(KeyError, match="mine"):
        f()
    with capture_runs(), pytest.raises(KeyError, match="mine"), stage("s"):
        raise KeyError("mine")


def test_the_step_of_an_outer_run() -> None:
    """A metric of an outer run gets the step of that run's loop, also if it is recorded inside an inner run."""
    with capture_runs() as captured, stage("outer") as outer:
        for _ in steps(range(3)):
            with stage("inner") as inner:
                for _ in steps(range(2)):
                    outer.log_metric("x", 1)
                    inner.log_metric("y", 1)
    assert [point.step for point in captured.one("outer").metrics["x"]] == [0, 0, 1, 1, 2, 2]
    assert [point.step for point in captured.named("inner")[-1].metrics["y"]] == [0, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("no_collection")
def test_a_recursion_that_fills_the_stack_ends_truthfully() -> None:
    """If a recursion fills the stack, the innermost runs are FAILED too, and the user's RecursionError arrives."""

    @stage
    def deeper(n: int) -> int:
        return int(deeper(n + 1))

    with capture_runs() as captured, pytest.raises(RecursionError):
        deeper(0)
    assert len(captured.runs) > 100
    assert {run.status for run in captured.runs} == {"FAILED"}


def test_ctrl_c_in_a_follower_of_scopes_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ctrl-C interrupts a callback of an opening scope, the scope ends, and nothing records into it."""

    def interrupted(_scope: object) -> None:
        raise KeyboardInterrupt

    with capture_runs() as captured:
        with monkeypatch.context() as patch:
            patch.setattr(_scopes, "_when_opened", [interrupted])
            with pytest.raises(KeyboardInterrupt):
                stage("s")(len)([])
        assert trackdsl.current_run() is None
        assert captured.one("s").status == "KILLED"
