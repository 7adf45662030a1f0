"""Several hosts with one state folder: what one of them recorded is seen, and delivered once, from another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Program, all_runs
from trackdsl.cli._hosts import relatives
from trackdsl.journal._lock import FileLock
from trackdsl.journal._mounts import FileSystem, file_system
from trackdsl.journal._origin import read_origin
from trackdsl.store_format.journals import read_journals

CAN_RENAME = subprocess.run(["sh", "-c", "unshare --uts true"], capture_output=True, check=False).returncode == 0
pytestmark = pytest.mark.skipif(not CAN_RENAME, reason="needs the right to change the host's name")

#: One run, and another of a child process where one is asked for; lives on where it is asked to.
PROGRAM = """
    import multiprocessing, sys
    from trackdsl import experiment, log_metric, stage

    @stage
    def part(): ...

    if __name__ == "__main__":
        with experiment("of " + sys.argv[1]):
            log_metric("loss", 0.5)
            if "children" in sys.argv:
                child = multiprocessing.get_context("fork").Process(target=part)
                child.start()
                child.join()
            if "stays" in sys.argv:
                print("recorded", flush=True)
                sys.stdin.readline()
"""
Start = Callable[..., Program]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that all hosts share."""
    monkeypatch.delenv("TRACKDSL_SPOOL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "state/trackdsl/spool"


@pytest.fixture
def on(tmp_path: Path, home: Path) -> Iterator[Start]:
    """Start the program on a host, with a kernel of its own where it is another machine."""
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(PROGRAM))
    started = []

    def start(host: str, *arguments: str, machine: str = "") -> Program:
        setup = f"hostname {host}; "
        if machine:
            (tmp_path / machine).write_text(f"{machine}\n")
            setup += f"mount --bind {tmp_path / machine} /proc/sys/kernel/random/boot_id; "
        command = ["unshare", "--uts", "--mount", "sh", "-c", f'{setup} exec "$@"', "sh"]
        process = subprocess.Popen(
            [*command, sys.executable, str(path), host, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(Program(process))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.kill()


@pytest.fixture
def trackdsl(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, on the kinds of file system and host that are asked for."""

    def run(*given: str, mounted: str = "", host: str = "login") -> subprocess.CompletedProcess[str]:
        script = "import sys; from pathlib import Path; from trackdsl.journal import _mounts; "
        if mounted:
            table = tmp_path / "mountinfo"
            table.write_text(f"1 1 0:1 / / rw - {mounted}\n")
            script += f"_mounts._TABLE = Path({str(table)!r}); "
        script += "from trackdsl.cli import main; main()"
        return subprocess.run(
            ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh", sys.executable, "-c", script, *given],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    return run


NFS = "nfs4 server:/home rw,vers=4.2,local_lock=none"


def finish(*programs: Program) -> None:
    for program in programs:
        code, _, errors = program.finish()
        assert code == 0, errors


def journals(home: Path) -> list[Path]:
    return sorted(home.glob("*/journals/[!.]*"))


def statuses() -> dict[str, str]:
    return {run.info.run_name: run.info.status for run in all_runs()}


def make_old(home: Path) -> None:
    """Let the programs have ended a while ago."""
    for path in home.rglob("ended"):
        os.utime(path, (1e9, 1e9))


@pytest.mark.slow
def test_what_other_hosts_recorded_is_seen(home: Path, on: Start, trackdsl: Any, tmp_path: Path) -> None:
    """`status`, `sync` and `doctor` name other hosts, their programs and the command, and change nothing of theirs."""
    finish(on("node7"), on("node8"), on("node9"))
    (home / "node9").rename(tmp_path / "kept")
    (tmp_path / f"tmp/trackdsl-{os.getuid()}/spool").mkdir(parents=True)
    (tmp_path / "kept").rename(tmp_path / f"tmp/trackdsl-{os.getuid()}/spool/node9")
    shown = trackdsl("status").stdout
    for host in ("node7", "node8", "node9"):
        assert f"Of the host {host}:" in shown
    assert "train.py" in shown
    assert "3 journals of other hosts wait" in shown
    assert "trackdsl sync --all-hosts" in shown
    status = json.loads(trackdsl("status", "--json").stdout)
    assert (status["waiting"], status["journals"]) == (0, [])
    assert [(entry["host"], entry["waiting"]) for entry in status["other_hosts"]] == [
        ("node7", 1), ("node8", 1), ("node9", 1),
    ]  # fmt: skip
    (entry,) = status["other_hosts"][0]["journals"]
    assert entry["source"].endswith("train.py")
    assert (entry["host"], entry["ended"], entry["why_not"], entry["alive"]) == ("node7", True, None, False)
    assert entry["events"] >= 3
    doctor = trackdsl("doctor").stdout
    for text in ("node7: 3 events of", "train.py", "trackdsl sync --all-hosts", "No problems on this host"):
        assert text in doctor
    synced = trackdsl("sync")
    assert synced.returncode == 0, synced.stderr
    assert "3 journals of other hosts wait; `trackdsl sync --all-hosts` delivers those" in synced.stdout
    assert len(journals(home)) == 2


@pytest.mark.slow
def test_the_other_spool_of_this_host(home: Path, on: Start, trackdsl: Any, tmp_path: Path) -> None:
    """What this host recorded to the temporary folder, when its own spool could not be used, is found by its path."""
    finish(on("login"))
    other = tmp_path / f"tmp/trackdsl-{os.getuid()}/spool"
    other.mkdir(parents=True)
    (home / "login").rename(other / "login")
    shown = trackdsl("status").stdout
    assert f"Of the host login, in {other}/login:" in shown
    other.parent.chmod(0o777)
    result = trackdsl("sync", "--all-hosts")
    assert "Traceback" not in result.stderr
    assert len(list((other / "login/journals").iterdir())) == 1


@pytest.mark.slow
def test_what_has_ended_is_delivered_from_another_host(sqlite_store: str, home: Path, on: Start, trackdsl: Any) -> None:
    """On a local file system a free lock is proof: the ended and the killed are delivered, the living one is left."""
    finish(on("node7", "children"))
    killed, living = on("node8", "stays"), on("node9", "stays")
    assert killed.say() == living.say() == "recorded"
    killed.kill()
    (kept,) = (home / "node9/journals").iterdir()
    result = trackdsl("sync", "--all-hosts")
    assert result.returncode == 1
    assert f"(pid {living.pid}): it still runs" in result.stderr
    assert "--assume-ended" not in result.stderr
    assert statuses() == {"of node7": "FINISHED", "part": "FINISHED", "of node8": "KILLED"}
    assert journals(home) == [kept]
    refused = trackdsl("sync", "--host", "node9", "--assume-ended")
    assert (refused.returncode, journals(home)) == (1, [kept])
    living.resume()
    finish(living)
    result = trackdsl("sync", "--all-hosts")
    assert result.returncode == 0, result.stderr
    assert statuses()["of node9"] == "FINISHED"
    assert len(all_runs()) == 4
    assert journals(home) == []
    assert "Nothing of other hosts is waiting." in trackdsl("sync", "--all-hosts").stdout


@pytest.mark.slow
def test_another_machine_needs_more_than_a_free_lock(sqlite_store: str, home: Path, on: Start, trackdsl: Any) -> None:
    """On a shared file system only a program that has noted its end is delivered, when that note is old enough."""
    finish(on("node7", machine="boot-7"), on("node9"))
    killed = on("node8", "stays", machine="boot-8")
    assert killed.say() == "recorded"
    killed.kill()
    result = trackdsl("sync", "--all-hosts", mounted=NFS)
    assert result.returncode == 1
    assert "it ended a moment ago" in result.stderr
    assert f"(pid {killed.pid}): no file records its end" in result.stderr
    assert "trackdsl sync --host node8 --assume-ended" in result.stderr
    assert statuses() == {"of node9": "FINISHED"}  # The same kernel under another name.
    make_old(home)
    (entry,) = json.loads(trackdsl("status", "--json", mounted=NFS).stdout)["other_hosts"][1]["journals"]
    assert (entry["ended"], "no file records its end" in entry["why_not"]) == (False, True)
    assert "running or ended on node8" in trackdsl("status", mounted=NFS).stdout
    blind = trackdsl("sync", "--all-hosts", mounted="fuse.sshfs node:/ rw")
    assert (blind.returncode, "fuse.sshfs" in blind.stderr) == (1, True)
    assert len(all_runs()) == 1
    result = trackdsl("sync", "--all-hosts", mounted=NFS)
    assert result.returncode == 1
    assert statuses() == {"of node9": "FINISHED", "of node7": "FINISHED"}
    wrong = trackdsl("sync", "--host", "node6", "--assume-ended", mounted=NFS)
    assert (wrong.returncode, "records of these hosts wait: node8" in wrong.stderr) == (1, True)
    assert trackdsl("sync", "--assume-ended").returncode == 2
    result = trackdsl("sync", "--host", "NODE8", "--assume-ended", mounted=NFS)
    assert result.returncode == 0, result.stderr
    assert statuses()["of node8"] == "KILLED"
    assert journals(home) == []


def test_a_note_of_the_end_is_void_where_more_was_recorded(home: Path, on: Start, trackdsl: Any) -> None:
    """If code that runs at exit records after the note of the end, the note does not count."""
    finish(on("node7", machine="boot-7"))
    (note,) = home.rglob("ended")
    number, offset = note.read_text().split()
    note.write_text(f"{number} {int(offset) - 8}\n")
    make_old(home)
    result = trackdsl("sync", "--all-hosts", mounted=NFS)
    assert (result.returncode, "no file records its end" in result.stderr) == (1, True)
    assert len(journals(home)) == 1


@pytest.mark.slow
def test_programs_that_belong_together_are_delivered_together(home: Path, on: Start, trackdsl: Any) -> None:
    """The journal of a child that has ended waits for its parent, which may still run."""
    parent = on("node7", "children", "stays", machine="boot-7")
    assert parent.say() == "recorded"
    found = list(read_journals(home / "node7"))
    assert [len(group) for group in relatives(found)] == [2]
    child = next(journal for journal in found if journal.origin is not None and journal.origin.ancestors)
    assert (child.directory / "ended").exists()
    parent.kill()
    make_old(home)
    result = trackdsl("sync", "--all-hosts", mounted=NFS)
    assert result.returncode == 1
    assert f"its runs are connected with those of {found[0].program}" in result.stderr
    assert len(journals(home)) == 2


@pytest.mark.slow
def test_two_at_once_deliver_once(sqlite_store: str, home: Path, on: Start, trackdsl: Any, tmp_path: Path) -> None:
    """While one machine delivers for a host, another waits for it, and finds everything done."""
    finish(on("node7"))
    lock = FileLock(home / "node7/delivery.lock")
    assert lock.acquire()
    first = subprocess.Popen(
        [sys.executable, "-m", "trackdsl.cli", "sync", "--all-hosts"], stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    assert "running already" in first.stderr.readline()
    lock.release()
    second = trackdsl("sync", "--all-hosts")
    assert (first.wait(PATIENCE), second.returncode) == (0, 0), second.stderr
    first.stderr.close()
    assert statuses() == {"of node7": "FINISHED"}
    assert len(all_runs()) == 1


@pytest.mark.slow
def test_a_journal_names_the_machine(home: Path, on: Start) -> None:
    """The journal of a program says which start of which machine it was made under."""
    finish(on("node7"), on("node8", machine="boot-8"))
    origins = [read_origin(path) for path in journals(home)]
    boots = {origin.host: origin.boot for origin in origins if origin is not None}
    assert boots == {"node7": Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "node8": "boot-8"}


@pytest.mark.parametrize(
    ("mounted", "local", "common"),
    [
        ("ext4 /dev/sda rw", True, True),
        ("overlay overlay rw", True, True),
        ("nfs4 s:/x rw,local_lock=none", False, True),
        ("nfs s:/x rw,vers=3,nolock", False, False),
        ("nfs s:/x rw,vers=3,local_lock=flock", False, False),
        ("nfs s:/x rw,vers=3,local_lock=posix", False, True),
        ("lustre s:/x rw,flock", False, True),
        ("lustre s:/x rw,localflock", False, False),
        ("lustre s:/x rw", False, False),
        ("cifs //s/x rw,nobrl", False, False),
        ("fuse.sshfs s: rw", False, False),
        ("virtiofs x rw", False, False),
    ],
)
def test_what_locks_are_worth(tmp_path: Path, mounted: str, local: bool, common: bool) -> None:
    """Which file systems are this machine's alone, and on which of the others locks are known everywhere."""
    folder = tmp_path / "a b"
    folder.mkdir()
    point = str(folder).replace(" ", "\\040")
    table = f"1 0 0:1 / / rw - tmpfs none rw\n2 1 0:2 / {point} rw,noatime shared:5 - {mounted}\n"
    found = file_system(folder, table + f"3 1 0:3 / {point}c rw - xfs x rw\n")
    assert (found.kind, found.is_local, found.has_common_locks) == (mounted.split()[0], local, common)
    assert file_system(tmp_path, table).kind == "tmpfs"
    assert not FileSystem("").has_common_locks
