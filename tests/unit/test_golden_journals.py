"""Journals of every schema version, kept as files, are read for ever."""

from __future__ import annotations

from pathlib import Path

from tests.written_journals import written
from trackdsl._core import events
from trackdsl.journal import _format
from trackdsl.journal._reader import Reader, read_all
from trackdsl.journal._replay import replay

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_golden_journal_of_schema_1_is_read_for_ever() -> None:
    """A journal written by schema version 1, kept as a file, replays to what it was written from."""
    found = read_all(GOLDEN / "schema-1")
    root, child, adopted = replay((event, GOLDEN) for event in found)
    assert len(found) == 10
    assert (root.name, root.experiment, root.status, root.decorator) == ("pipeline", "golden", "FAILED", "experiment")
    assert root.params == {"none": None, "yes": True, "n": -3, "big": 2**63, "x": 0.25, "text": "grün"}
    assert (child.parent, child.path, child.status, child.lost) == (root, "pipeline/fit", "FINISHED", 2)
    assert [tuple(point) for point in child.metrics["loss"]] == [(0, 1.5, 11), (7, -2.0, 12)]
    assert child.metric("acc") == 1.0
    assert child.tags == {"team": "a"}
    assert child.artifacts == {"models/m.bin": GOLDEN / "files" / "000001/m.bin"}
    assert child.params == {"late": 1}
    assert root.failure == events.Failure("ValueError", "no", "Traceback …")
    assert adopted.decorator == "mlflow"


def test_the_golden_journal_of_schema_2_is_read_for_ever() -> None:
    """What schema version 2 added, datasets, models, tables and who wrote a file, replays too."""
    found = read_all(GOLDEN / "schema-2")
    (run,) = replay((event, GOLDEN) for event in found)
    assert len(found) == 6
    assert run.artifacts == {"clean.pkl": GOLDEN / "files" / "000001/clean.pkl"}
    assert run.models == {"classifier": GOLDEN / "files" / "000002/model"}
    assert run.tables == {"eval.json": [GOLDEN / "files" / "000003/eval.json"]}
    assert [(data.name, data.context) for data in run.inputs] == [("train", "training")]
    assert found[1:5] == SCHEMA_2


SCHEMA_2 = [
    events.File(b"r" * 16, "clean.pkl", "000001/clean.pkl", False, "object", "ab" * 32),
    events.Input(b"r" * 16, "train", "cd" * 16, "code", "{}", '{"mlflow_colspec": []}', '{"num_rows": 3}', "training"),
    events.Model(b"r" * 16, "classifier", "000002/model", "churn", 3, 12, "sklearn.base.BaseEstimator", "ef" * 32),
    events.Table(b"r" * 16, "eval.json", "000003/eval.json"),
]


def test_the_golden_journal_of_schema_3_is_read_for_ever() -> None:
    """What schema version 3 added is read as written: resumed runs, ranks, types of texts, points of models."""
    assert read_all(GOLDEN / "schema-3") == SCHEMA_3


_RUN = b"s" * 16
SCHEMA_3: list[events.Event] = [
    events.Open(
        _RUN, None, "golden", "rank-1", "experiment", "rank-1", 0, 21, {"lr": 0.1}, {}, None,
        events.Rank("pipeline", 1, 2, 1, "node-0", "torch abc", 2, "0123456789abcdef0123456789abcdef"),
    ),
    events.Open(b"t" * 16, None, "golden", "fit", "stage", "fit", 0, 22, {}, {}, None, None, "ab" * 16),
    events.File(_RUN, "table.csv", "000001/table.csv", False, "pandas.DataFrame", "", True),
    events.LinkedMetrics(_RUN, {"acc": 0.9}, 3, 23, "key:" + "cd" * 16, ("train", "ef" * 4)),
    events.ModelInput(_RUN, "m-0123", 24),
    events.ModelOutput(_RUN, "m-4567", 3),
    events.Close(_RUN, "FINISHED", 25),
]  # fmt: skip


def test_the_golden_journal_of_schema_4_is_read_for_ever() -> None:
    """What schema version 4 added, runs that become traces and the progress of loops, is read as written."""
    assert read_all(GOLDEN / "schema-4") == SCHEMA_4


SCHEMA_4: list[events.Event] = [
    *SCHEMA_3,
    events.Open(b"u" * 16, None, "golden", "fit", "stage", "fit", 0, 26, {}, {}, None, None, "", True),
    events.Loop(_RUN, "epoch", 3, 10.0, 0, 27, 28),
]


def test_the_golden_journal_of_schema_5_is_read_for_ever() -> None:
    """What schema version 5 added, the thread and the task that a run began in, is read as written."""
    assert read_all(GOLDEN / "schema-5") == SCHEMA_5


SCHEMA_5: list[events.Event] = [
    *SCHEMA_4,
    events.Open(
        b"v" * 16, b"u" * 16, "golden", "fit", "stage", "fit", 1, 29, {}, {}, None,
        lane=("ThreadPoolExecutor-0_1", 4711, "Task-7", 140_426_121_781_760),
    ),
]  # fmt: skip


def test_encoding_has_not_changed() -> None:
    """The same events encode to the very bytes of the golden journal: a change needs a new schema version."""
    content = (GOLDEN / "schema-5" / "000001.seg").read_bytes()
    header = _format.Header.unpack(content)
    assert header is not None
    assert (header.schema, events.SCHEMA) == (5, 5)
    assert content[_format.HEADER_SIZE :] == b"".join(_format.frame(events.encode(e), header.salt) for e in SCHEMA_5)


def test_a_newer_schema_is_left_alone(folder: Path) -> None:
    """Nothing of a journal with a higher schema version is read, and the version is reported."""
    directory = written([events.Params(b"a" * 16, {"x": 1})], folder / "j")
    path = directory / "000001.seg"
    content = path.read_bytes()
    header = _format.Header.unpack(content)
    assert header is not None
    newer = _format.Header(events.SCHEMA + 1, header.number, header.salt, header.created)
    path.write_bytes(newer.pack() + content[_format.HEADER_SIZE :])
    reader = Reader(directory)
    assert not list(reader.read(100, writer_alive=False))
    assert reader.newer_schema == events.SCHEMA + 1
