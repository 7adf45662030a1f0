"""The ledger: what was written is read back; a torn end, a full disk or a removed file costs nothing else."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from trackdsl.delivery.state import _ledger
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.store_format import ledger
from trackdsl.store_format.ledger import NAME, POINT, RUN, SHARED_BY, Kind, changes_in, commits, latest, read
from trackdsl.store_format.state_before_ledgers import StateBefore

INTEGER = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
#: Few keys, so that they are changed and removed often.
RUNS = st.tuples(st.just(RUN), st.sampled_from([b"a" * 16, b"b" * 16, b""]), st.tuples(TEXT, TEXT, TEXT, st.booleans()))
POINTS = st.tuples(
    st.just(POINT),
    st.tuples(TEXT, TEXT, INTEGER, st.one_of(st.just("nan"), st.floats(allow_nan=False)), INTEGER),
    st.tuples(TEXT, st.booleans(), INTEGER, INTEGER),
)
CHANGE = st.one_of(RUNS, POINTS, st.tuples(st.just(RUN), st.sampled_from([b"a" * 16, b""]), st.none()))
COMMITS = st.lists(st.lists(CHANGE, max_size=4), max_size=8)
KINDS: list[Kind[Any, Any]] = [RUN, POINT]


class State:
    """What a ledger should hold; it is loaded from the file, and changed with it."""

    def __init__(self, path: Path, before: StateBefore | None = None) -> None:
        self.ledger = Ledger(path, before)
        self.values: dict[int, dict[Any, Any]] = {}
        for kind in KINDS:
            self.values[kind.number] = self.ledger.load(kind, self.values.setdefault(kind.number, {}).items)
            self.ledger._items[kind.number] = self.values[kind.number].items

    def write(self, commit: list[tuple[Kind[Any, Any], Any, Any]]) -> None:
        self.ledger.write(kind.change(key, value) for kind, key, value in commit)
        self.take(commit)

    def take(self, commit: list[tuple[Kind[Any, Any], Any, Any]]) -> None:
        for kind, key, value in commit:
            if value is None:
                self.values[kind.number].pop(key, None)
            else:
                self.values[kind.number][key] = value


def in_file(path: Path) -> dict[int, dict[Any, Any]]:
    return {kind.number: latest(changes_in(read(path)), kind) for kind in KINDS}


@settings(deadline=None, max_examples=examples(200))
@given(commits=COMMITS, few=st.integers(0, 6), restarts=st.sets(st.integers(0, 7)))
def test_what_was_written_is_read_back(commits: list[list[Any]], few: int, restarts: set[int]) -> None:
    """However often the file is replaced or opened again, each key has the value that was written last."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ledger, "_FEW", few)
        path = Path(folder) / NAME
        state = State(path)
        expected: dict[int, dict[Any, Any]] = {kind.number: {} for kind in KINDS}
        for number, commit in enumerate(commits):
            state.write(commit)
            expected = {kind: dict(values) for kind, values in state.values.items()}
            state.ledger.tidy()
            if number in restarts:
                state = State(path)
            assert state.values == in_file(path) == expected
        assert path.exists() == any(expected.values())


@settings(deadline=None, max_examples=examples(200))
@given(commits=COMMITS, cut=st.integers(0, 10_000), damage=st.booleans(), more=st.lists(CHANGE, min_size=1, max_size=3))
def test_a_torn_end(commits: list[list[Any]], cut: int, damage: bool, more: list[Any]) -> None:
    """Cut or damaged anywhere, whole commits count, also those behind the damage; what is written next is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        state = State(path)
        ends, states = [0], [in_file(path)]
        for commit in filter(None, commits):
            state.write(commit)
            ends.append(path.stat().st_size)
            states.append(in_file(path))
        content = read(path)
        cut = cut % (len(content) + 1)
        if damage and cut < len(content):
            path.write_bytes(content[:cut] + bytes([content[cut] ^ 255]) + content[cut + 1 :])
        elif content:
            path.write_bytes(content[:cut])
        whole = max(number for number, end in enumerate(ends) if end <= cut)
        behind = list(filter(None, commits))[whole + 1 :] if damage else []
        state = State(path)
        assert bool(behind) <= state.ledger.damaged <= damage
        state.values = {kind: dict(values) for kind, values in states[whole].items()}
        for commit in behind:
            state.take(commit)
        assert State(path).values == in_file(path) == state.values
        state = State(path)
        state.write(more)
        assert in_file(path) == State(path).values == state.values
        assert State(path).ledger.damaged <= damage


def test_each_kind_of_change_has_a_number_of_its_own() -> None:
    """No two kinds have one number, apart from those that read another one's content without decoding it."""
    kinds = [kind for name, kind in vars(ledger).items() if isinstance(kind, Kind) and not name.startswith("ANY_")]
    assert len({kind.number for kind in kinds}) == len(kinds) > 10


def test_a_short_commit_after_a_long_torn_one(tmp_path: Path) -> None:
    """A short commit after a long torn one leaves nothing of the torn one behind it."""
    state = State(tmp_path / NAME)
    state.write([(RUN, b"a", ("", "\0" * 999, "o", True))])
    content = read(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(content[:-1])
    State(tmp_path / NAME).write([(RUN, b"b", ("", "e", "o", True))])
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"b"]
    assert not State(tmp_path / NAME).ledger.damaged


def test_zeros_at_the_end(tmp_path: Path) -> None:
    """Zeros, which a power cut leaves where data did not reach the disk, are not a commit."""
    state = State(tmp_path / NAME)
    state.write([(RUN, b"a", ("", "e", "o", True))])
    content = read(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(content + bytes(4096))
    assert [commit.end for commit in commits(read(tmp_path / NAME))] == [len(content)]
    State(tmp_path / NAME).write([(RUN, b"b", ("", "e", "o", True))])
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"a", b"b"]


def test_damage_in_the_middle(tmp_path: Path) -> None:
    """What follows a damaged commit counts, and the damage is reported; once repaired, the file has no trace of it."""
    state = State(tmp_path / NAME)
    for id_ in (b"a", b"b", b"c"):
        state.write([(RUN, id_, ("", "e", "o", True))])
    content = read(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(content.replace(b"b", b"x"))
    state = State(tmp_path / NAME)
    state.write([(RUN, b"d", ("", "e", "o", True))])
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"a", b"c", b"d"]
    assert state.ledger.damaged
    state.ledger.repair()
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"a", b"c", b"d"]
    assert not State(tmp_path / NAME).ledger.damaged


def test_a_commit_of_many_changes_behind_damage(tmp_path: Path) -> None:
    """A commit behind damage is found whatever the number of its changes, which is written in three ways."""
    state = State(tmp_path / NAME)
    sizes = [1, 15, 16, 70_000]
    for size in sizes:
        state.write([(RUN, b"bad", ("", "e", "o", True))])
        state.write([(RUN, b"%d %d" % (size, number), ("", "e", "o", True)) for number in range(size)])
    content = read(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(content.replace(b"bad", b"BAD"))
    assert len(in_file(tmp_path / NAME)[RUN.number]) == sum(sizes)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that does not fit is an error, and leaves no trace; the next one that fits is read."""
    state = State(tmp_path / NAME)
    state.write([(RUN, b"a", ("", "e", "o", True))])
    size = (tmp_path / NAME).stat().st_size
    real = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda descriptor, data, at: real(descriptor, data[:5], at))
        with pytest.raises(OSError, match="No space"):
            state.write([(RUN, b"b", ("", "e", "o", True))])
    assert (tmp_path / NAME).stat().st_size == size
    state.write([(RUN, b"c", ("", "e", "o", True))])
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"a", b"c"]


def test_a_file_that_is_removed(tmp_path: Path) -> None:
    """If somebody removes the file, all of it is written again when nothing else happens."""
    state = State(tmp_path / NAME)
    for id_ in (b"a", b"b"):
        state.write([(RUN, id_, ("", "e", "o", True))])
    (tmp_path / NAME).unlink()
    state.write([(RUN, b"c", ("", "e", "o", True))])
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"c"]
    state.ledger.tidy()
    assert in_file(tmp_path / NAME) == state.values
    assert len(state.values[RUN.number]) == 3


def test_a_long_file_becomes_short(tmp_path: Path) -> None:
    """If a few keys change many times, the file keeps only the last changes; kinds of a later version stay in it."""
    later: Kind[str, int] = Kind(99, str, int)
    Ledger(tmp_path / NAME).write([later.change("x", 1)])
    state = State(tmp_path / NAME)
    for number in range(5000):
        state.write([(RUN, b"a", (str(number), "e", "o", True))])
        state.ledger.tidy()
    assert sum(len(commit.changes) for commit in commits(read(tmp_path / NAME))) <= 1001
    assert State(tmp_path / NAME).values == state.values
    assert latest(changes_in(read(tmp_path / NAME)), later) == {"x": 1}


def test_what_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long file that cannot be replaced is used as it is."""
    monkeypatch.setattr(_ledger, "_FEW", 1)
    (tmp_path / f"{NAME}.part").mkdir()
    state = State(tmp_path / NAME)
    for number in range(9):
        state.write([(RUN, b"a", (str(number), "e", "o", True))])
        state.ledger.tidy()
    assert State(tmp_path / NAME).values == state.values


def test_what_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit calls `fsync` once for the file, and once for the folder at first; never if it is not asked for."""
    synced: list[str] = []
    real = os.fsync

    def count(descriptor: int) -> None:
        if threading.current_thread() is threading.main_thread():  # An earlier test may have left another one.
            synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    ledger = Ledger(tmp_path / NAME)
    ledger.write([SHARED_BY.change(("r", "j"), True)])
    ledger.settle()
    assert synced == []
    for _ in range(2):
        ledger.write([SHARED_BY.change(("r", "j"), True), SHARED_BY.change(("r", "k"), True)], to_disk=True)
    assert synced == [NAME, tmp_path.name, NAME]
    ledger.write([SHARED_BY.change(("r", "j"), True)], before_progress=True)
    assert len(synced) == 3
    ledger.settle()
    ledger.settle()
    assert synced[3:] == [NAME]


def test_what_earlier_versions_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger takes what earlier versions noted before their files are removed; now, or with the next change."""
    file = tmp_path / "runs"
    file.write_text("x")
    before = StateBefore([RUN.change(b"a", ("", "e", "o", True))], [file])

    def full(*_: Any) -> int:
        return 0

    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        state = State(tmp_path / NAME, before)
        assert [*state.values[RUN.number]] == [b"a"]
        assert file.exists()
        with pytest.raises(OSError, match="No space"):
            state.write([(RUN, b"b", ("", "e", "o", True))])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", forbidden)
        with pytest.raises(OSError, match="not permitted"):
            state.write([(RUN, b"b", ("", "e", "o", True))])
    state.write([(RUN, b"b", ("", "e", "o", True))])
    assert not file.exists()
    assert [*in_file(tmp_path / NAME)[RUN.number]] == [b"a", b"b"]
