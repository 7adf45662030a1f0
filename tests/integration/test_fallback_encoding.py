"""What stores do not take as it is, and how it is stored nevertheless."""

from __future__ import annotations

import posixpath
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import free_port
from tests.drawn_processes import Machine, Process
from tests.memory_store import MemoryStore, deliver_to, refuse_nul
from trackdsl import experiment, settings, stage
from trackdsl._core import events
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.process._health import why_unreachable
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._fallback_encoding import Keys, folded
from trackdsl.delivery.store._sink import Batch
from trackdsl.journal import _origin, _target
from trackdsl.journal._spool import journals
from trackdsl.store_format import limits as _limits

KEYS = st.text(alphabet="_x014CLlRé e/.A sß\u017føo1\u0661\U0001d400\U0001d401", min_size=1, max_size=12)


def are_distinct(names: Iterable[str]) -> bool:
    """Whether the keys stay distinct in a store that compares keys without case or accents."""
    forms = [form for name in names for form in set(folded(name))]
    return len(set(forms)) == len(forms)


@given(key=KEYS)
def test_keys_that_are_spelled_out_lead_back(key: str) -> None:
    """A key that is spelled out differs from the original, MLflow takes it, and the original can be read back."""
    name = _limits.escape_key(key)
    spelled = _limits.spell_out(name)
    assert (spelled != name) or re.fullmatch(r"(_x[0-9A-F]{4}_)+", name)  # There, nothing is left to spell.
    assert _limits.unescape_key(spelled) == key
    assert re.fullmatch(r"[/\w.\- :]+", spelled)
    assert posixpath.normpath(spelled) == spelled


@given(keys=st.lists(KEYS.map(_limits.escape_key), unique=True, max_size=8), cut=st.integers(0, 8))
def test_keys_are_made_distinct_in_the_same_way_after_a_crash(keys: list[str], cut: int) -> None:
    """No two written names are one to such a store, and a later process that asks the store gives the same names."""
    batch = Batch(params=dict.fromkeys(keys, "1"))
    names = list(Keys({}).deduplicate_keys(batch).params)
    assert are_distinct(names)
    assert len(names) == len(keys)
    assert {_limits.unescape_key(name) for name in names} == {_limits.unescape_key(key) for key in keys}
    assert list(Keys({"params": names[:cut]}).deduplicate_keys(batch).params) == names


@given(
    params=st.dictionaries(st.text("ab", min_size=1, max_size=3), st.just("x"), max_size=9),
    tags=st.dictionaries(st.text("ab", min_size=1, max_size=3), st.just("x"), max_size=9),
    points=st.integers(0, 9),
)
def test_halves_come_down_to_single_items(params: dict[str, str], tags: dict[str, str], points: int) -> None:
    """A batch that is halved again and again gives its items, in their order and each once."""
    batch = Batch(params, tags, [("m", 0.0, number, number) for number in range(points)])
    singles, parts = [], [batch]
    while parts:
        part = parts.pop(0)
        found = list(_compose.halves(part))
        parts[:0] = found
        if not found:
            singles.append(part)
    assert [part for part in singles if part] == [
        *(Batch(params={key: text}) for key, text in params.items()),
        *(Batch(tags={key: text}) for key, text in tags.items()),
        *(Batch(metrics=[point]) for point in batch.metrics),
    ]


def _deliver(store: MemoryStore) -> None:
    spool = settings.spool()
    assert spool is not None
    _target.close_all()
    deliver_to(store, spool)


def test_a_store_without_nul_has_all_the_rest() -> None:
    """A refused text with a NUL is stored readable, and whole in a file; nothing else is lost."""
    store = MemoryStore()
    store.before = refuse_nul
    with stage("s", tags={"nul": "a\0b", "plain": "c"}) as run:
        run.log_params({"nul": "d\0e", "plain": "f"})
        for step in range(100):
            run.log_metric("m", step, step=step)
    _deliver(store)
    held = store.named("s")
    assert {key: held.tags[key] for key in ("nul", "plain")} == {"nul": "a\\x00b", "plain": "c"}
    assert held.params == {"nul": "d\\x00e", "plain": "f"}
    assert held.files == {"trackdsl/tags/nul.txt": "a\0b", "trackdsl/params/nul.txt": "d\0e"}
    assert (len(held.points), held.status) == (100, "FINISHED")
    assert store.calls < 60  # Not one request for each point.


def test_encoded_texts_are_within_the_limits() -> None:
    """A text or name that is as long as MLflow takes it is cut where its encoding is longer, and whole in a file."""

    def before(method: str, *arguments: Any) -> None:
        batch = arguments[1] if method == "write" else Batch()
        name, tags = arguments if method == "create_run" else ("", batch.tags)
        limits = [
            (name, 250),
            *((text, 6000) for text in batch.params.values()),
            *((text, 8000) for text in tags.values()),
        ]
        if any(not text.isascii() or "\0" in text or len(text) > most for text, most in limits):
            raise Refused("not in this store")

    store = MemoryStore()
    store.before = before
    name, whole = "é" * 250, "d\0" + "e" * 9000
    with experiment("e", run_name=name, tags={"odd": whole}) as run:
        run.log_params({"odd": whole})
        run.log_params({"odd": whole})
    _deliver(store)
    (held,) = store.runs.values()
    assert held.name.startswith("\\xe9")
    assert held.params["odd"].startswith("d\\x00e")
    assert held.tags["odd"].startswith("d\\x00e")
    assert held.files == {
        "trackdsl/tags/trackdsl.path.txt": name,
        **dict.fromkeys(["trackdsl/tags/odd.txt", "trackdsl/params/odd.txt"], whole),
    }
    assert not [key for key in held.tags if key.startswith(("trackdsl.refused.", "trackdsl.param.later."))]


def test_a_text_whose_file_is_refused_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """If a store refuses the file of a text, a long one or one with NUL, the log and a tag say which and why."""

    def before(method: str, *arguments: Any) -> None:
        texts = arguments[1].params if method == "write" else {}
        if any("\0" in text for text in texts.values()):
            raise Refused("no NUL")
        if method == "write_text":
            raise Refused("no files")

    store = MemoryStore()
    store.before = before
    with stage("s") as run:
        run.log_params({"nul": "d\0e", "long": "x" * 7000})
    _deliver(store)
    held = store.named("s")
    assert (held.params["nul"], len(held.params["long"]), held.files) == ("d\\x00e", 6000, {})
    for key in ("nul", "long"):
        assert held.tags[f"trackdsl.omitted.trackdsl/params/{key}.txt"] == "no files"
        assert f"MLflow refused trackdsl/params/{key}.txt" in caplog.text
    assert not [key for key in held.tags if key.startswith("trackdsl.refused.")]


def refuse_beyond_ascii(method: str, *arguments: Any) -> None:
    """For `MemoryStore.before`: no key and no text beyond ASCII is accepted."""
    tags = arguments[1] if method == "create_run" else {}
    if method == "write":
        tags = arguments[1].params | arguments[1].tags
    if not all(text.isascii() for item in tags.items() for text in item):
        raise Refused("no 名")


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_an_odd_branch_costs_no_other_tag_of_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a store does not take the name of a branch as it is, the runs have it encoded, and the commit."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
    store = MemoryStore()
    store.before = refuse_beyond_ascii
    spool = settings.spool()
    assert spool is not None
    with stage("s"):
        deliver_to(store, spool)
        (journal,) = journals(spool)
        (journal / "git").write_text("abc\n名\n\nclean\n")
    _deliver(store)
    held = store.named("s")
    found = {key: held.tags[f"mlflow.source.git.{key}"] for key in ("commit", "branch")}
    assert found == {"commit": "abc", "branch": "\\u540d"}
    assert held.files == {"trackdsl/tags/mlflow.source.git.branch.txt": "名"}


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_run_is_resumed_from_an_odd_experiment(tmp_path: Path) -> None:
    """A run is resumed, also where the store does not take the tag with the program's experiment as it is."""
    store = MemoryStore()
    run_id = store.create_run("e-e", "plain", 0, {})
    store.end_run(run_id, "FAILED", 1)
    store.before = refuse_beyond_ascii
    machine = Machine(tmp_path / "spool", store)
    process = Process(machine.spool)
    id_ = process.prefix + bytes(6)
    process.say(events.Open(id_, None, "名", "again", "stage", "again", 0, 1, {}, {}, None, continued_id=run_id))
    process.close(id_)
    process.die()
    for _ in range(8):
        machine.round()
    machine.restart()
    held = store.runs[run_id]
    assert (held.status, held.tags["trackdsl.experiment"]) == ("FINISHED", "\\u540d")
    assert held.files["trackdsl/tags/trackdsl.experiment.txt"] == "名"
    assert id_.hex() in held.tags["trackdsl.resumed"]


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("later", [False, True])
def test_why_something_is_left_out_is_said_in_ascii(later: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The tag with a reason arrives, also where it quotes a path that the store does not take as it is."""
    answers = [Unavailable("not now")] if later else []

    def before(method: str, *arguments: Any) -> None:
        refuse_beyond_ascii(method, *arguments)
        if method in ("write_text", "write_artifact"):
            raise answers.pop() if answers else Refused(f"cannot write {arguments[1]}")

    store = MemoryStore()
    store.before = before
    with stage("s") as run:
        run.log_text("a", "ü/名.txt")
        run.log_params({"p": "é" * 7000})
        run.log_params({"名": "b"})
    _deliver(store)
    tags = {_limits.unescape_key(key): text for key, text in store.named("s").tags.items()}
    assert tags["trackdsl.omitted.ü/名.txt"] == "MLflow refused it: cannot write \\xfc/\\u540d.txt"
    assert tags["trackdsl.omitted.trackdsl/params/p.txt"] == "cannot write trackdsl/params/p.txt"
    assert tags["trackdsl.refused.名"] == "no \\u540d"
    assert "'ü/名.txt' is left out" in caplog.text


def test_a_store_that_takes_several_keys_for_one_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a store that ignores case, keys that differ only in case get other names from the first request on."""
    store = MemoryStore()
    monkeypatch.setattr(store, "folds_keys", lambda: True)
    with stage("s", tags={"Team": "a", "team": "b"}) as run:
        run.log_params({"lr": 1, "LR": 2})
        run.log_metric("loss", 1.0)
        run.log_metric("Loss", 2.0)
    _deliver(store)
    held = store.named("s")
    assert {_limits.unescape_key(key): value for key, value in held.params.items()} == {"lr": "1", "LR": "2"}
    assert held.tags["trackdsl.renamed._x004C__x0052_"] == "LR"
    for keys in (held.params, held.tags, {point[0] for point in held.points}):
        assert are_distinct(keys)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc"])
def test_a_database_that_does_not_answer_is_noticed_at_once(scheme: str) -> None:
    """A closed port is reported without the password; an open one, a socket and a URI without sense are accepted."""
    reason = why_unreachable(f"{scheme}://me:hunter2@127.0.0.1:{(port := free_port())}/runs")
    assert reason is not None
    assert f"127.0.0.1:{port} cannot be reached" in reason
    assert "hunter2" not in reason
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert why_unreachable(f"{scheme}://me:hunter2@127.0.0.1:{server.getsockname()[1]}/runs") is None
    for other in ("/runs?host=/run/db", "a,b/runs", "host:port/runs"):
        assert why_unreachable(f"{scheme}://{other}") is None
    assert not list(Path().iterdir())
