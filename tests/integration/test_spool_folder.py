"""The folder of the spool: which one is used, what is changed in it, and whom it is safe from."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import StartProgram, run_command
from tests.integration.test_cli import TWO_RUNS
from trackdsl import capture, settings, stage
from trackdsl.distributed._wire import take_settings
from trackdsl.journal import _spool_choice, _target
from trackdsl.journal._spool import JOURNALS, LOCK, MARK, check_spool, is_spool, journals, locate, prepare
from trackdsl.journal._spool_choice import find

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files to another user")
STRANGER = 65534


def mode(path: Path) -> int:
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the umask; the former one is back afterwards."""
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the permissions of `/tmp`, used instead of it."""
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


class TestNamed:
    """The folder that a user names."""

    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
    def test_what_is_made_is_private(self, tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
        """A spool and all folders made on the way to it are private, whatever the umask."""
        umask(mask)
        made = prepare(tmp_path / "a" / "b" / "spool")
        assert made == tmp_path / "a" / "b" / "spool"
        assert {mode(path) for path in (tmp_path / "a", tmp_path / "a" / "b", made, made / JOURNALS)} == {0o700}

    @pytest.mark.parametrize("bits", [0o755, 0o777, 0o1777], ids=oct)
    def test_a_folder_in_use_is_left_as_it_is(self, tmp_path: Path, bits: int) -> None:
        """If the named folder contains something else, the spool is a folder in it; its mode and files stay."""
        used = tmp_path / "used"
        used.mkdir()
        (used / "thesis.txt").write_text("mine")
        used.chmod(bits)
        if bits == 0o777:
            with pytest.raises(PermissionError, match="others may write to it"):
                prepare(used)
            assert os.listdir(used) == ["thesis.txt"]
        else:
            spool = prepare(used)
            assert spool == used / f"trackdsl-spool-{os.geteuid()}"
            assert (mode(spool), prepare(used), prepare(spool), locate(used)) == (0o700, spool, spool, spool)
            assert set(os.listdir(used)) == {"thesis.txt", spool.name}
        assert mode(used) == bits

    def test_an_empty_private_folder_is_taken(self, tmp_path: Path) -> None:
        """An empty folder that the user alone can read becomes the spool, and is still it when there is more in it."""
        spool = tmp_path / "empty"
        spool.mkdir(0o700)
        assert prepare(spool) == spool
        assert (mode(spool), is_spool(spool)) == (0o700, True)
        (spool / "note.txt").write_text("mine")
        assert prepare(spool) == spool

    @pytest.mark.parametrize("bits", [0o755, 0o750, 0o711, 0o705])
    def test_an_empty_folder_that_others_may_read_stays_as_it_is(self, tmp_path: Path, bits: int) -> None:
        """An empty folder that others may read keeps its mode: the spool is a private folder in it, and found again."""
        folder = tmp_path / "empty"
        folder.mkdir()
        folder.chmod(bits)
        spool = prepare(folder)
        assert spool.parent == folder
        assert (mode(folder), mode(spool), prepare(folder), locate(folder)) == (bits, 0o700, spool, spool)

    @pytest.mark.parametrize("which", ["home", "current", "sticky"])
    def test_an_empty_folder_that_is_something_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
    ) -> None:
        """An empty home, working folder or shared folder does not become a spool."""
        folder = tmp_path / "folder"
        folder.mkdir(0o755)
        if which == "home":
            monkeypatch.setenv("HOME", str(folder))
        elif which == "current":
            monkeypatch.chdir(folder)
        else:
            folder.chmod(0o1755)
        before = mode(folder)
        assert prepare(folder).parent == folder
        assert mode(folder) == before

    def test_a_spool_of_an_older_version(self, tmp_path: Path) -> None:
        """A spool without our mark is known by its private folder of journals, and is used."""
        spool = prepare(tmp_path / "spool")
        (spool / MARK).unlink()
        (spool / "notes.txt").write_text("a private folder may hold other things too")
        assert prepare(spool) == spool
        assert (spool / MARK).is_file()
        (spool / MARK).unlink()
        (spool / "notes.txt").unlink()
        spool.chmod(0o755)
        assert prepare(spool) == spool
        assert mode(spool) == 0o700

    def test_a_diary_is_no_spool(self, tmp_path: Path) -> None:
        """A readable home that contains a folder of journals stays as it is."""
        home = tmp_path / "home"
        (home / JOURNALS).mkdir(parents=True)
        (home / JOURNALS).chmod(0o700)
        (home / "thesis.txt").write_text("mine")
        home.chmod(0o755)
        assert prepare(home).parent == home
        assert mode(home) == 0o755

    def test_a_link(self, tmp_path: Path) -> None:
        """A link that the user has made leads to the spool; where it leads to a folder in use, that is left alone."""
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert prepare(tmp_path / "link") == prepare(tmp_path / "real") == tmp_path / "real"
        etc = tmp_path / "etc"
        etc.mkdir(0o755)
        (etc / "hosts").write_text("")
        (tmp_path / "other").symlink_to(etc)
        assert prepare(tmp_path / "other").parent == etc
        assert mode(etc) == 0o755

    def test_a_file(self, tmp_path: Path) -> None:
        """A file instead of the spool is an error that names it."""
        (tmp_path / "file").write_text("")
        with pytest.raises(NotADirectoryError, match="file"):
            prepare(tmp_path / "file")

    @pytest.mark.slow
    def test_recording_and_the_commands_agree(self, start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
        """`status` and `sync` look where recording to the same name has written, also where that is in use."""
        used = tmp_path / "used"
        used.mkdir(0o755)
        (used / "thesis.txt").write_text("mine")
        code, _, errors = start(TWO_RUNS, TRACKDSL_SPOOL=str(used)).finish()
        assert (code, errors) == (0, "")
        spool = locate(used)
        assert len(list(journals(spool))) == 1
        for arguments, environment in (((), {"TRACKDSL_SPOOL": str(used)}), (("--spool", str(used)), {})):
            assert f"spool: {spool}" in run_command("status", *arguments, **environment).stdout
        assert "Everything is delivered" in run_command("sync", "--spool", str(used)).stdout
        assert not list(journals(spool))
        assert mode(used) == 0o755


class TestOtherUsers:
    """Folders that other users own or may write to."""

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Path:
        """A spool in a folder of the user's."""
        return prepare(tmp_path / "above" / "spool")

    def test_a_sound_spool(self, spool: Path) -> None:
        """A private spool in private folders is accepted, also in a sticky folder."""
        check_spool(spool)
        spool.parent.chmod(0o1777)
        check_spool(spool)

    @pytest.mark.parametrize("folder", ["parent", "spool", JOURNALS, "tables", "servers"])
    @pytest.mark.parametrize("bits", [0o777, 0o757])
    def test_others_may_write(self, spool: Path, folder: str, bits: int) -> None:
        """A folder that others may write to is refused: the spool, those in it, those above it."""
        path = {"parent": spool.parent, "spool": spool}.get(folder, spool / folder)
        path.mkdir(exist_ok=True)
        path.chmod(bits)
        with pytest.raises(PermissionError, match="others may write"):
            check_spool(spool)

    def test_an_open_spool_in_a_shared_folder(self, spool: Path) -> None:
        """In a sticky folder the spool has to be private."""
        spool.parent.chmod(0o1777)
        spool.chmod(0o755)
        with pytest.raises(PermissionError, match="not private"):
            check_spool(spool)

    @pytest.mark.parametrize("folder", ["spool", JOURNALS, "tables", "points"])
    def test_links(self, spool: Path, folder: str) -> None:
        """A link instead of the spool, or of a folder in it, is refused."""
        path = spool if folder == "spool" else spool / folder
        if path.exists():
            path.rename(spool.parent / "moved")
        else:
            (spool.parent / "moved").mkdir()
        path.symlink_to(spool.parent / "moved")
        with pytest.raises(PermissionError, match="symbolic link"):
            check_spool(spool)

    @needs_root
    @pytest.mark.parametrize("folder", ["above", "spool", JOURNALS, "tables"])
    def test_foreign_owners(self, spool: Path, folder: str) -> None:
        """Whatever belongs to another user is refused: the spool, those in it, those above it."""
        path = {"above": spool.parent, "spool": spool}.get(folder, spool / folder)
        path.mkdir(exist_ok=True)
        os.chown(path, STRANGER, STRANGER)
        with pytest.raises(PermissionError, match="another user"):
            check_spool(spool)
        result = run_command("sync", "--spool", str(spool))
        assert (result.returncode, result.stdout) == (1, "")
        assert "another user" in result.stderr
        assert "Traceback" not in result.stderr

    @needs_root
    def test_a_link_of_another_user(self, spool: Path, tmp_path: Path) -> None:
        """A link that another user has made leads to no spool, at the end of the path or on the way."""
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        for name, target in (("end", spool), ("way", spool.parent)):
            (shared / name).symlink_to(target)
            os.lchown(shared / name, STRANGER, STRANGER)
        for path in (shared / "end", shared / "way" / "spool"):
            with pytest.raises(PermissionError, match="another user"):
                prepare(path)

    @needs_root
    def test_a_foreign_spool_is_left(self, tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Where the named spool is another user's, nothing is made in it, and recording goes elsewhere."""
        foreign = tmp_path / "foreign"
        foreign.mkdir(0o777)
        os.chown(foreign, STRANGER, STRANGER)
        trackdsl.configure(spool=foreign)
        with stage("s"):
            pass
        (target,) = _target.targets()
        assert target.writer is not None
        assert temporary in target.writer.directory.parents
        assert not os.listdir(foreign)
        assert caplog.text.count("cannot use its spool") == 1


class TestFallback:
    """The folder in the temporary folder, where the spool's own path cannot be used."""

    @pytest.fixture(autouse=True)
    def unusable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The named spool is a file."""
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TRACKDSL_SPOOL", str(tmp_path / "file"))

    def test_it_is_private(self, temporary: Path) -> None:
        """The fallback is a private folder of this user's, and the same each time."""
        spool = find()
        assert spool == find() == temporary / f"trackdsl-{os.geteuid()}" / "spool" / spool.name
        assert {mode(path) for path in (spool, spool.parent, spool.parent.parent)} == {0o700}

    @needs_root
    @pytest.mark.parametrize("what", ["folder", "link", "file"])
    def test_it_is_occupied(self, temporary: Path, tmp_path: Path, what: str) -> None:
        """If another user has taken its name before, every program uses another one."""
        taken = temporary / f"trackdsl-{os.geteuid()}"
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        if what == "folder":
            taken.mkdir(0o777)
        elif what == "link":
            taken.symlink_to(elsewhere)
        else:
            taken.write_text("")
        os.lchown(taken, STRANGER, STRANGER)
        spool = find()
        assert spool.parent.parent == temporary / f"trackdsl-{os.geteuid()}-2"
        assert not os.listdir(elsewhere)
        taken.rename(temporary / "gone")
        assert find() == spool

    @needs_root
    def test_it_is_replaced(self, temporary: Path, tmp_path: Path) -> None:
        """Where another user's folder replaces it later, that is not used, and none of it is delivered."""
        spool = find()
        own = spool.parent.parent
        own.rename(tmp_path / "moved")
        (own / "spool" / spool.name / JOURNALS).mkdir(parents=True)
        for path in (own, *own.rglob("*")):
            os.chown(path, STRANGER, STRANGER)
        with pytest.raises(PermissionError, match="another user"):
            check_spool(spool)
        assert find().parent.parent == temporary / f"{own.name}-2"

    @needs_root
    def test_all_names_are_taken(self, temporary: Path) -> None:
        """Where others have taken every name, the error says what is wrong."""
        for _ in range(20):
            path = _spool_choice.fallback_path().parent.parent
            if not path.exists():
                path.mkdir(0o777)
                os.chown(path, STRANGER, STRANGER)
        with pytest.raises(PermissionError, match="another user"):
            find()


class TestContexts:
    """A context from outside names a spool."""

    @pytest.fixture
    def carried(self, tmp_path: Path) -> Callable[[Path], object]:
        """Enters a context of another process that names a spool; returns the spool that is used then."""
        import json

        from trackdsl.distributed._wire import decode

        with stage("s"):
            text = capture().to_text()

        def arrive(spool: Path) -> Path | None:
            os.environ.pop("TRACKDSL_SPOOL")
            take_settings(decode(json.dumps(json.loads(text) | {"run": "0" * 32, "spool": str(spool)})))
            return settings.spool()

        return arrive

    def test_an_own_spool(self, tmp_path: Path, carried: Callable[[Path], object]) -> None:
        """A spool of this user's that is there already is used."""
        spool = prepare(tmp_path / "other")
        assert carried(spool) == spool

    @pytest.mark.parametrize("what", ["missing", "empty", "used", "open", "link"])
    def test_anything_else(self, tmp_path: Path, carried: Callable[[Path], object], what: str) -> None:
        """A context that names any other folder leaves it as it is, and the usual spool is used."""
        path = tmp_path / "named"
        if what == "link":
            path.symlink_to(prepare(tmp_path / "real"))
        elif what == "open":
            prepare(path).chmod(0o755)
        elif what != "missing":
            path.mkdir(0o755)
        if what == "used":
            (path / "hosts").write_text("")
        before = (mode(path), os.listdir(path)) if path.exists() else None
        assert carried(path) is None
        assert ((mode(path), os.listdir(path)) if path.exists() else None) == before


def test_what_delivery_needs_is_made_at_once(tmp_path: Path) -> None:
    """The lock and the log are made with the spool: a disk that is full later has no room for them."""
    assert {LOCK, "delivery.log"} <= set(os.listdir(prepare(tmp_path / "spool")))
