"""What type checkers see of decorated functions: the functions, unchanged. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import assert_type

from trackdsl import (
    Context,
    Run,
    attach,
    best,
    capture,
    changes,
    compare,
    current_run,
    experiment,
    flush,
    history,
    log_figure,
    log_image,
    log_input,
    log_metric,
    log_metrics,
    log_model,
    log_stream,
    log_table,
    runs,
    stage,
    steps,
    stop_logging,
    track_returns,
    tree,
)
from trackdsl.query import Frame


@stage
def bare(x: int, *, y: str = "a") -> float:
    return x / len(y)


@stage("fit-{x}", params=["x"], tags={"a": 1})
def called(x: int, *, y: str = "a") -> float:
    return bare(x, y=y)


@experiment
@track_returns
def both(x: int) -> dict[str, float]:
    return {"x": x}


@experiment("churn", run_name="r")
@stage(nested=False)
@track_returns("a", "b", prefix="p/")
async def coroutine(x: int) -> tuple[int, str]:
    return x, ""


class Model:
    @stage
    def method(self, x: int) -> int:
        return x

    @stage()
    @classmethod
    def above(cls, x: int) -> int:
        return x

    @classmethod
    @stage
    def below(cls, x: int) -> int:
        return x

    @staticmethod
    @stage("s")
    def static(x: int) -> int:
        return x


assert_type(bare(1, y="b"), float)
assert_type(called(1), float)
assert_type(both(1), dict[str, float])
assert_type(Model().method(1), int)
assert_type(Model.above(1), int)
assert_type(Model.below(1), int)
assert_type(Model.static(1), int)
plain: Callable[[int], dict[str, float]] = both

bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
called(1, z=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
stage(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

with experiment("e") as outer, stage("s", seed=42, frame=object()) as inner:
    assert_type(outer, Run)
    assert_type(inner.id, str)
    assert_type(inner.parent, Run | None)


async def blocks() -> None:
    assert_type(await coroutine(1), tuple[int, str])
    async with stage("s") as run:
        assert_type(run, Run)


def numbers() -> Iterator[dict[str, float]]:
    yield {"loss": 0.5}


async def later() -> AsyncIterator[float]:
    yield 0.5


def endings(run: Run) -> None:
    with experiment(run_id=run) as again, stage("s", run_id="0123456789abcdef0123456789abcdef"):
        assert_type(again, Run)
    run.end("FAILED", reason="diverged")
    stop_logging(status="KILLED")


def functions_of_a_run(run: Run) -> None:
    run.log_figure(object(), "plots/loss.png", save_kwargs={"dpi": 200})
    run.log_image(object(), "first.png")
    run.log_image(object(), key="samples", step=3)
    run.log_table([{"x": 1}], "t.json")
    run.log_input(object(), "training", name="d")
    run.log_model(object(), "m", registered_model_name="r", pip_requirements=["a"])
    log_figure(object(), "loss.svg")
    log_metric("loss", 0.5, 3, timestamp=1)
    log_metric(key="loss", value=0.5, step=3)
    run.log_metric(key="loss", value=[0.5])
    run.log_metric("loss", 0.5, iteration=3)
    log_metrics({"val": {"loss": [0.3]}}, step=1)
    log_metric(value=0.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    log_image(object(), key="samples")
    log_table({"x": [1]}, artifact_file="t.parquet")
    log_input(object(), context="training")
    log_model(object(), "m", signature=None, input_example=[1])
    log_image(object(), "a.png", "key")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


assert_type(log_stream(numbers(), prefix="train/", start=1), Iterator[dict[str, float]])
assert_type(log_stream([1, 2]), Iterator[int])
assert_type(log_stream(later()), AsyncIterator[float])
assert_type(steps(range(3)), Iterator[int])
assert_type(steps(range(3), "epoch", start=5), Iterator[int])
assert_type(steps(later()), AsyncIterator[float])
assert_type(capture(), Context)
assert_type(Context.from_text(capture().to_text()), Context)
with attach(capture()) as attached:
    assert_type(attached, Run)
assert_type(current_run(), Run | None)
assert_type(flush(1.0), bool)


def questions(run: Run) -> None:
    found = runs("churn", "metrics.accuracy > 0.9", order_by=["accuracy DESC"], max_results=3, model="rf", lr__lt=0.1)
    assert_type(found, Frame)
    assert_type(history(run, "loss"), Frame)
    assert_type(best("churn", "accuracy", mode="max", status="FINISHED").value, float)
    assert_type([one.name for one in tree(run, whole=True).walk()], list[str])
    assert_type(changes(run, since="a8c1").summary, str)
    assert_type([change.name for change in changes(run)], list[str])
    assert_type(len(compare(run, "a8c1", all=True)), int)
    history(run, "loss", "accuracy")
    runs(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
