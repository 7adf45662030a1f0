"""What notebooks and terminals show of runs is inert, whatever control characters these have recorded."""

from __future__ import annotations

import copy
import pickle
import unicodedata
from typing import Any

import pandas as pd
import pytest

import trackdsl
from tests.conftest import deliver, run_command

#: Sequences of a terminal, also with the controls of ISO 6429, and changes of the writing direction.
NASTY = "v\x1b]0;x\x07\x1b[2J\x9b2J\x85\u202eleft\u2066\u200b"


def inert(text: str) -> bool:
    return not {one for one in text if unicodedata.category(one) in ("Cc", "Cf") and one not in "\n\t"}


@pytest.fixture
def recorded(sqlite_store: str) -> Any:
    trackdsl.configure(tracking_uri=sqlite_store, mode="online")
    runs = []
    for at in range(2):
        with trackdsl.experiment("churn", run_name=f"root {NASTY}") as root:
            root.log_param("p", f"{NASTY}{at}")
            root.set_tag("t", NASTY)
            with pytest.raises(ValueError, match="left"), trackdsl.stage(f"stage {NASTY}") as inner:
                inner.log_metric("m", at)
                raise ValueError(NASTY)
            runs.append(root)
    deliver(sqlite_store)
    return runs


def test_frames(recorded: Any) -> None:
    """Frames of queries, and those made from them, show no control character, and have the values themselves."""
    frame = trackdsl.runs("churn")
    assert {f"{NASTY}0", f"{NASTY}1"} <= set(frame["params.p"])
    rest = frame[["params.p", "name"]].sort_values("params.p").head(3)
    compared = trackdsl.compare(*recorded).frame
    for each in (frame, rest, frame.set_index("name"), compared, copy.deepcopy(rest)):
        assert inert(repr(each)), type(each)
        assert inert(each.to_string())
    for each in (frame, rest, compared):
        assert inert(each._repr_html_())
    assert "\\x1b" in repr(rest)
    plain = pickle.loads(pickle.dumps(frame))
    assert type(plain) is pd.DataFrame
    pd.testing.assert_frame_equal(frame, plain)
    pd.testing.assert_frame_equal(plain.sort_values("id"), frame.sort_values("id"))


def test_frames_are_recorded_as_those_of_pandas(recorded: Any) -> None:
    """A stage that takes and returns a frame of a query records what it records of a plain one."""

    @trackdsl.stage
    @trackdsl.track_returns
    def kept(frame: pd.DataFrame) -> pd.DataFrame:
        return frame

    frame = trackdsl.runs("churn")[["id", "name"]]
    with trackdsl.testing.capture_runs() as captured:
        kept(frame)
        kept(pd.DataFrame(frame))
    one, other = captured.runs
    assert one.params == other.params
    assert set(one.artifacts) == set(other.artifacts) != set()


def test_columns_and_rows(recorded: Any) -> None:
    """So do columns, rows, and what is made from them; for other code they are those of pandas."""
    frame = trackdsl.runs("churn")
    column = frame["params.p"]
    for each in (
        column, frame["tags.t"], frame.iloc[0], frame.loc[0], frame.loc[:, "name"], column.head(2), column.str.upper(),
        column + "x", column.value_counts(), column.describe(), column.drop_duplicates(), frame.set_index("name")["id"],
        next(frame.iterrows())[1], frame.groupby("name")["metrics.m"].sum(), trackdsl.compare(*recorded).frame.iloc[0],
        frame[["name", "id"]].value_counts(), column.rename(NASTY),
    ):  # fmt: skip
        assert isinstance(each, pd.Series)
        assert inert(repr(each)), ascii(each)
        assert inert(str(each))
        assert inert(each.to_string())
        assert inert(each.to_frame()._repr_html_())
        plain = pickle.loads(pickle.dumps(each))
        assert type(plain) is pd.Series
        pd.testing.assert_series_equal(each, plain)
        pd.testing.assert_series_equal(plain, each)
    assert "\\x1b" in repr(column)
    assert f"{NASTY}0" in set(column)
    assert inert(repr(frame.describe(include="all")))
    assert NASTY in frame["tags.t"].iloc[-1]
    assert isinstance(plain, type(column))


def test_other_displays(recorded: Any) -> None:
    """So do runs, trees and comparisons, as text and as HTML."""
    values = [*recorded, trackdsl.tree(recorded[0]), trackdsl.compare(*recorded), trackdsl.best("churn", "m"),
              trackdsl.changes(recorded[1], since=recorded[0])]  # fmt: skip
    for value in values:
        assert inert(repr(value)), type(value)
        assert inert(str(value)), type(value)
        if hasattr(value, "_repr_html_"):
            assert inert(value._repr_html_()), type(value)


@pytest.mark.parametrize(
    "command", ["ls churn", "ls churn --json", "show", "tree", "compare", "changes --since", "trace --format mermaid"]
)
def test_commands(recorded: Any, sqlite_store: str, command: str) -> None:
    """So do commands."""
    first, *more = command.split()
    ids = {"ls": [], "compare": [recorded[0].id, recorded[1].id]}.get(first, [recorded[1].id])
    more += [recorded[0].id] if "--since" in more else []
    done = run_command(first, *ids, *more, "--tracking-uri", sqlite_store)
    assert done.stdout, done.stderr
    assert inert(done.stdout), ascii(done.stdout)
    assert inert(done.stderr), ascii(done.stderr)
