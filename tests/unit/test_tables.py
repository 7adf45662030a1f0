"""Tables: what they are made of, and how rows join at MLflow, each exactly once."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trackdsl
from tests.conftest import examples
from tests.delivery_settings import changed_timing
from tests.memory_store import Crash, Held, MemoryStore
from tests.unit.test_images_and_streams import Row, recorded, tags_of
from trackdsl import OptionError, stage
from trackdsl._core import events
from trackdsl._recording.tables import rows_of
from trackdsl.delivery._timing import timing
from trackdsl.delivery.files import _table_format, _tables
from trackdsl.delivery.files._tables import Tables
from trackdsl.delivery.state import _ledger
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.store_format.ledger import frame
from trackdsl.testing import capture_runs


def table_of(data: Any) -> dict[str, Any]:
    """What one `log_table` writes."""
    with capture_runs() as captured, stage("s") as run:
        run.log_table(data, "t.json")
        ((event, path),) = recorded(captured, events.Table)
        assert event.path == "t.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found


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


@pytest.fixture
def spool(no_pauses: None, tmp_path: Path) -> Path:
    return tmp_path / "spool"


def rows_at(held: Held, path: str = "t.json") -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(held.files[path])["data"]
    return rows


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
