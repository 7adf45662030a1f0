"""What type checkers see of decorated functions: the functions, unchanged. Checked, never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from typing_extensions import assert_type

from trackdsl import Run, current_run, experiment, flush, stage, steps, track_returns


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


assert_type(steps(range(3)), Iterator[int])
assert_type(current_run(), Run | None)
assert_type(flush(1.0), bool)
