"""What a tracking server refuses of change sets: hostile or large content, and what their sender may not write."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any

import flask
import pytest

from tests.integration.test_server_plugin import effect
from tests.plugin_server import OTHER, RUN, Served, encode, new, packed
from trackdsl._core.events import Input
from trackdsl.delivery.database import _wire
from trackdsl.delivery.database._changes import (
    MOST_BATCHES,
    MOST_EXPERIMENTS,
    MOST_ITEMS,
    RunChange,
)
from trackdsl.delivery.server import _backend
from trackdsl.delivery.server._backend import Backend, CannotWrite
from trackdsl.delivery.server._permission import address, refusal
from trackdsl.delivery.server.plugin import add_addresses
from trackdsl.delivery.store._errors import Denied
from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format.limits import MAX_KEY, MAX_PARAM, MAX_TAG


def raw(new: Any = (0, "n", 1, "me"), batches: Any = (), inputs: Any = (), end: Any = None) -> list[Any]:
    return [new, list(batches), list(inputs), end]


DATASET = Input(b"", "n", "d", "t", "s", "", "", None)


HOSTILE = {
    "nothing": b"",
    "no compression": encode({RUN: raw()}),
    "cut off": packed({RUN: raw()})[:-3],
    "something behind": packed({RUN: raw()}) + b"x",
    "a list": packed([]),
    "JSON": zlib.compress(b'{"a": 1}'),
    "a deep list": zlib.compress(b"\x91" * 100_000),
    "a path as id": packed({"../../../../../etc/passwd0000000": raw()}),
    "upper case in an id": packed({RUN.upper(): raw()}),
    "a line after an id": packed({RUN + "\n": raw()}),
    "a short id": packed({RUN[:-1]: raw()}),
    "a number as id": packed({7: raw()}),
    "text as experiment": packed({RUN: raw(("0", "n", 1, "me"))}),
    "a negative experiment": packed({RUN: raw((-1, "n", 1, "me"))}),
    "a truth value as time": packed({RUN: raw((0, "n", True, "me"))}),
    "a large time": packed({RUN: raw((0, "n", 1 << 63, "me"))}),
    "a long name": packed({RUN: raw((0, "n" * 251, 1, "me"))}),
    "a long user": packed({RUN: raw((0, "n", 1, "m" * 257))}),
    "an unknown status": packed({RUN: raw(end=("DONE", 1))}),
    "running as an end": packed({RUN: raw(end=("RUNNING", 1))}),
    "a key that leads upwards": packed({RUN: raw(batches=[[{"../x": "1"}, {}, []]])}),
    "an absolute key": packed({RUN: raw(batches=[[{}, {"/etc": "1"}, []]])}),
    "a metric's key that leads upwards": packed({RUN: raw(batches=[[{}, {}, [("a/../b", 1.0, 1, 1)]]])}),
    "a key with other characters": packed({RUN: raw(batches=[[{"a'; --": "1"}, {}, []]])}),
    "a line after a key": packed({RUN: raw(batches=[[{"a\n": "1"}, {}, []]])}),
    "an empty key": packed({RUN: raw(batches=[[{"": "1"}, {}, []]])}),
    "a long key": packed({RUN: raw(batches=[[{"k" * (MAX_KEY + 1): "1"}, {}, []]])}),
    "a long parameter": packed({RUN: raw(batches=[[{"k": "v" * (MAX_PARAM + 1)}, {}, []]])}),
    "a long tag": packed({RUN: raw(batches=[[{}, {"k": "v" * (MAX_TAG + 1)}, []]])}),
    "a number as parameter": packed({RUN: raw(batches=[[{"k": 1}, {}, []]])}),
    "nothing as tag": packed({RUN: raw(batches=[[{}, {"k": None}, []]])}),
    "text as value": packed({RUN: raw(batches=[[{}, {}, [("a", "1", 1, 1)]]])}),
    "a fraction as step": packed({RUN: raw(batches=[[{}, {}, [("a", 1.0, 1, 1.5)]]])}),
    "a large step": packed({RUN: raw(batches=[[{}, {}, [("a", 1.0, 1, 1 << 63)]]])}),
    "a short point": packed({RUN: raw(batches=[[{}, {}, [("a", 1.0, 1)]]])}),
    "many batches": packed({RUN: raw(batches=[[{}, {}, []]] * (MOST_BATCHES + 1))}),
    "a large batch": packed({RUN: raw(batches=[[{}, {}, [("a", 0, 0, 0)] * (MOST_ITEMS + 1)]])}),
    "a dataset without a name": packed({RUN: raw(inputs=[Input(b"", "", "d", "t", "s", "", "", None)])}),
    "a dataset with a long digest": packed({RUN: raw(inputs=[Input(b"", "n", "d" * 37, "t", "s", "", "", None)])}),
    "an event that is not a dataset": packed({RUN: raw(inputs=[[3, b"", "k", 1.0, 1, 1]])}),
    "no UTF-8": zlib.compress(encode({RUN: raw(batches=[[{"k": "vv"}, {}, []]])}).replace(b"\xa2vv", b"\xa2\xff\xfe")),
    "a run that does not exist": packed({RUN: raw(None)}),
    "an experiment that does not exist": packed({RUN: raw((77, "n", 1, "me"))}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused(served: Served, name: str) -> None:
    """What no delivery sends is answered with 400 and a reason, and nothing of it is written."""
    answer = served.send(HOSTILE[name])

    assert answer.status_code == 400, answer.text
    assert answer.json["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer.json["message"]
    assert served.rows("SELECT * FROM runs") == []


def test_the_limits_themselves_are_accepted(served: Served) -> None:
    """Keys of 250, parameters of 6000 and tags of 8000 characters pass."""
    batch = Batch({"k" * 250: "v" * 6000}, {"t" * 250: "w" * 8000}, [("m" * 250, 1.0, -(1 << 63), (1 << 63) - 1)])

    assert served.send(packed({RUN: new(batches=[batch])})).status_code == 200
    assert served.rows("SELECT length(value) FROM params") == [(6000,)]
    assert served.rows("SELECT max(length(value)) FROM tags") == [(8000,)]
    assert served.rows("SELECT timestamp, step FROM metrics") == [(-(1 << 63), (1 << 63) - 1)]


@pytest.mark.slow
def test_a_zip_bomb_is_not_unpacked(served: Served) -> None:
    """Content that would be larger than allowed is refused before it is unpacked, however small it is."""
    bomb = zlib.compress(bytes(200 << 20), 9)
    assert len(bomb) < 1 << 20

    answer = served.send(bomb)

    assert answer.status_code == 413
    assert memory_needed(lambda: _wire._decompressed(bomb)) < 3 * _wire.MOST_BYTES


def test_large_content_is_refused(served: Served) -> None:
    """Compressed content that is larger than allowed is refused by its length."""
    assert served.send(bytes(_wire.MOST_BYTES + 1)).status_code == 413


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: packed({RUN: raw(batches=[[{}, {}, [("a", 0, 0, 0)] * (MOST_ITEMS // 2 + 1)]] * 2)}),
        lambda: packed({f"{number:032x}": raw(inputs=[DATASET] * 1000) for number in range(MOST_ITEMS // 10_000 + 1)}),
        lambda: packed({f"{number:032x}": raw((number, "n", 1, "me")) for number in range(MOST_EXPERIMENTS + 1)}),
    ],
    ids=["points", "datasets", "experiments"],
)
def test_little_content_with_much_work_is_refused(served: Served, bomb: Callable[[], bytes]) -> None:
    """Small content with millions of points, or runs of thousands of experiments, is refused: it takes minutes."""
    asked = []
    served.permits = lambda content: bool(asked.append(content)) or True
    content = bomb()
    assert len(content) < 1 << 17

    assert served.send(content).status_code == 413
    assert not asked


def test_little_content_takes_little_memory() -> None:
    """Points beyond the limit are refused before all are decoded, as each takes thirty times its bytes."""
    content = packed({RUN: raw(batches=[[{}, {}, [("a", 0, 0, 0)] * (MOST_ITEMS * 9 // 10)]] * 8)})
    assert memory_needed(lambda: _wire.decoded(content)) < 100 << 20


@pytest.mark.slow
def test_much_work_is_sent_in_parts() -> None:
    """No part has more points or experiments than a server accepts."""
    points = [("a", 0.0, 0, step) for step in range(MOST_ITEMS // 4)]
    many = {f"{number:032x}": new(number, batches=[Batch(metrics=points)] * 2) for number in range(4)}
    many |= {f"{number:032x}": new(number) for number in range(4, 2 * MOST_EXPERIMENTS + 5)}
    expected = effect([many])

    parts = [_wire.decoded(part) for _, part in _wire.encoded(many)]

    assert effect(parts) == expected
    for part in parts:
        assert len({each.new.experiment_id for each in part.values() if each.new}) <= MOST_EXPERIMENTS


def test_the_limit_of_a_change_set() -> None:
    """24 MiB are accepted, compressed and not; one byte more is too large."""
    most = 24 * 1024 * 1024
    assert _wire._decompressed(zlib.compress(bytes(most))) == bytes(most)
    for content in (zlib.compress(bytes(most + 1)), bytes(most + 1)):
        with pytest.raises(_wire.TooLarge):
            _wire._decompressed(content)


def memory_needed(work: Callable[[], Any]) -> int:
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(_wire.TooLarge):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json", ""])
def test_web_pages_of_others_cannot_send_change_sets(served: Served, kind: str) -> None:
    """The types of content that a browser sends to another site without asking it are refused."""
    answer = served.send(packed({RUN: raw()}), content_type=kind)

    assert answer.status_code == 400
    assert served.rows("SELECT * FROM runs") == []


def add_experiment(served: Served) -> None:
    """Enter the experiment 5."""
    with closing(sqlite3.connect(served.path)) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage, artifact_location) "
            "VALUES (5, 'five', 'active', 'x')"
        )
        connection.commit()


def test_a_run_of_a_foreign_experiment_is_not_written(served: Served) -> None:
    """MLflow is asked for each experiment: that of a run which exists, and that of a run which is to be created."""
    asked: list[dict[str, Any]] = []
    served.send(packed({RUN: new(0)}))
    add_experiment(served)

    def permits(content: dict[str, Any]) -> bool:
        asked.append(content)
        return content not in ({"run_id": RUN}, {"experiment_id": "5"})

    served.permits = permits
    batch = Batch(tags={"stolen": "yes"})
    existing, created = packed({RUN: RunChange(None, [batch])}), packed({OTHER: new(5)})

    assert served.send(existing).status_code == 403
    assert served.send(created).status_code == 403
    assert served.send(packed({OTHER: new(0), RUN: RunChange(None, [batch])})).status_code == 403
    assert asked == [{"run_id": RUN}, {"experiment_id": "5"}, {"experiment_id": "0"}, {"run_id": RUN}]
    assert served.rows("SELECT run_uuid FROM runs") == [(RUN,)]
    assert served.rows("SELECT * FROM tags WHERE \"key\" = 'stolen'") == []


def test_a_run_cannot_be_taken_over_by_creating_it(served: Served) -> None:
    """A run of one experiment is not written to by a user who 'creates' it in an experiment of their own."""
    served.send(packed({RUN: new(0)}))
    add_experiment(served)
    taken = packed({RUN: new(5, batches=[Batch(tags={"stolen": "yes"})])})

    assert served.send(taken).status_code == 400
    served.permits = lambda content: content == {"experiment_id": "5"}
    assert served.send(taken).status_code in (400, 403)
    assert served.rows("SELECT * FROM tags WHERE \"key\" = 'stolen'") == []


def test_what_mlflow_is_asked_has_the_credentials_of_the_request(served: Served) -> None:
    """The question to MLflow has the headers of the request, but not those of its content."""
    seen: list[Any] = []

    def permits(_: dict[str, Any]) -> bool:
        seen.append((flask.request.headers.get("Authorization"), flask.request.mimetype, flask.request.method))
        return True

    served.permits = permits
    served.send(packed({RUN: new()}), headers={"Authorization": "Bearer x"})

    assert seen == [("Bearer x", "application/json", "POST")]


@pytest.mark.parametrize("api", ["", "/prefix"])
def test_what_mlflow_is_asked_is_where_its_api_is(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a prefix, older versions of MLflow have their API elsewhere; permission is asked for at that address."""
    monkeypatch.setenv("_MLFLOW_STATIC_PREFIX", "/prefix")
    app = flask.Flask("mlflow")
    asked: list[str] = []
    app.before_request(lambda: asked.append(flask.request.path))
    request = flask.Request(
        {"REQUEST_METHOD": "POST", "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    )
    with pytest.raises(CannotWrite):
        refusal(app, request, [0], [])

    app.add_url_rule(f"{api}/api/2.0/mlflow/runs/create", "create", lambda: "", methods=["POST"])

    assert refusal(app, request, [0], []) is None
    assert asked == [f"{api}/api/2.0/mlflow/runs/create"]
    assert address(app, "/api/2.0/trackdsl/v1") == f"{api}/api/2.0/trackdsl/v1"


def test_a_run_that_comes_into_a_foreign_experiment_meanwhile_is_not_written(served: Served) -> None:
    """Permission is checked within the transaction: a run that has moved to another experiment is not written to."""
    served.send(packed({RUN: new(0)}))

    with pytest.raises(Denied):
        served.backend.write({RUN: RunChange(None, [Batch(tags={"stolen": "yes"})])}, within={5})

    assert served.rows("SELECT * FROM tags WHERE \"key\" = 'stolen'") == []


def test_change_sets_wait_for_their_turn(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is busy with one change set answers 503 to those that would wait too long."""
    monkeypatch.setattr(_backend, "_PATIENCE", 0.01)
    answers = []

    served.backend.in_turn(lambda: answers.append(served.send(packed({RUN: new()}))))

    assert [answer.status_code for answer in answers] == [503]
    assert answers[0].json["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert served.send(packed({RUN: new()})).status_code == 200


def test_a_server_whose_tables_are_upgraded_says_so(served: Served) -> None:
    """A server whose tables MLflow moves to another revision writes nothing more, says so, and opens them again."""
    client = served.app.test_client()
    assert served.send(packed({RUN: new()})).status_code == 200
    ((revision,),) = served.rows("SELECT version_num FROM alembic_version")
    for moved, status, writes in (("bbbbbbbbbbbb", 503, False), (revision, 200, True)):
        with closing(sqlite3.connect(served.path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (moved,))
        assert served.send(packed({RUN: new(batches=[Batch(tags={"t": moved})])})).status_code == status
        assert client.get(_wire.ABOUT_PATH).json["writes"] == writes
    assert served.rows("SELECT value FROM tags WHERE \"key\" = 't'") == [(revision,)]


@pytest.mark.parametrize(
    ("uri", "variables", "why"),
    [
        ("file:///runs", {}, "in no SQLite"),
        ("", {}, "in no SQLite"),
        ("sqlite:///runs.db", {"MLFLOW_ENABLE_WORKSPACES": "true"}, "workspaces"),
    ],
)
def test_a_server_without_a_database_takes_no_change_sets(
    uri: str, variables: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a server says so when it is asked, and answers 501 to what is sent nevertheless."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    app = flask.Flask("other")
    add_addresses(app, Backend(uri))
    client = app.test_client()

    about = client.get(_wire.ABOUT_PATH)
    sent = client.post(_wire.CHANGES_PATH, data=packed({RUN: new()}), content_type=_wire.CONTENT_TYPE)

    assert (about.status_code, about.json["writes"]) == (200, False)
    assert why in about.json["reason"]
    assert (sent.status_code, sent.json["error_code"]) == (501, "NOT_IMPLEMENTED")
