"""What a journal says of the program that writes it; gathered once, when the journal is made."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import getpass
import os
import platform
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trackdsl._core import runtime
from trackdsl._core.decoders import json_decoder
from trackdsl._core.ids import prefix
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import Phase
from trackdsl._core.uris import local_folder
from trackdsl._core.version import __version__
from trackdsl.journal._files import read_regular, write_private
from trackdsl.journal._mounts import boot_id

# Runs beside the program and writes its answer whole. The three lines of configuration keep a repository of a
# stranger from running a command of its own. What a remote's URL may hold of a secret is taken out before anything is
# written: of a URL only the scheme, the host and the path are kept, and the name of a user that a forge gives to all;
# nothing where it cannot be told which part is the host, as with an `@` in the path.
_GIT = r"""
without_tokens() { LC_ALL=C sed -E '
s/(gh[pousr]_|github_pat_|glpat-|hf_|dckr_pat_|AKIA|ATBB|ATCTT|sk-|xox[a-z]-)[A-Za-z0-9_.=-]{8,}/***/g
s/((pass|token|secret|key|pwd)[A-Za-z]*=).*/\1***/'; }
safe_url() { head -n 1 | LC_ALL=C sed -E '
/^((git[+])?ssh([+]git)?:\/\/)?(git|hg|gitea|gitlab|forgejo|gogs|org-[0-9]+)@[^@]*$/!{
s,^([A-Za-z][A-Za-z0-9+.-]*:/+)[^/?#]*@,\1,
/:\//!s,^[^/?#]*@,,
/[^/]@/d
}
/:\/\//!{
/^([.\/~]|[A-Za-z]:[\\/]|[^:]*$)/b
}
s/([?#;&=[:space:]]|%(3[BbDdFf]|2[36]|40)).*//
/^[A-Za-z][A-Za-z0-9+.-]*:\/\/([a-z0-9-]+@)?([^][@:\/%]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?(\/|$)/!{
/^([a-z0-9-]+@)?[^][@:\/%]+:[^:\/]/!d
}' | without_tokens; }
cd "$1" && export GIT_OPTIONAL_LOCKS=0 &&
git() { command git -c core.fsmonitor= -c core.hooksPath=/dev/null "$@"; } && {
git rev-parse HEAD && git rev-parse --abbrev-ref HEAD | without_tokens && {
git config --get remote.origin.url | safe_url | grep . || echo; } &&
if [ -n "$(git status --porcelain --untracked-files=no | head -c 1)" ]; then echo dirty; else echo clean; fi
} > "$2.part" 2>/dev/null
mv -f "$2.part" "$2" 2>/dev/null || : > "$2"
"""


@dataclass(frozen=True)
class Origin:
    """Who writes a journal, and where its runs go.

    Attributes:
        uri: the tracking URI, with its credentials: without them nothing could be delivered once the program is gone.
            They stand in this file alone, which its owner alone can read.
        cwd: the program's working directory.
        host, pid, user, python, version, source: the program.
        time: when the journal was made, in nanoseconds since 1970.
        prefix: what the ids of its runs begin with, in hexadecimal.
        within: the same of the processes that it was started by, or worked for, when the journal was made.
        beside: those of them that record to the same spool.
        boot: the machine, from when it was started on: see `boot_id`; empty where an old version wrote it.
        after: the journal of the same program that this one goes on from, because that was deleted; mostly empty.
        store_device: the file system of the folder of a local store, by its number; 0 where the folder is not there.
    """

    uri: str
    cwd: str
    host: str
    pid: int
    user: str
    python: str
    version: str
    source: str
    time: int
    prefix: str = ""
    within: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    boot: str = ""
    after: str = ""
    store_device: int = 0


class _Ancestry:
    """The processes that this one works for, each by what its ids begin with.

    Attributes:
        own: the same of this process.
        within: all of them, outermost first.
        beside: those of them that record to the same spool.
        at_fork: the last two as they were when this process was forked.
    """

    def __init__(self) -> None:
        self.own = prefix().hex()
        self.within: tuple[str, ...] = ()
        self.beside: tuple[str, ...] = ()
        self.at_fork: tuple[tuple[str, ...], tuple[str, ...]] = (), ()

    def fork(self) -> None:
        """Add the process that this one was forked from."""
        parent, self.own = self.own, prefix().hex()
        work_within((*self.within, parent), (*self.beside, parent))
        self.at_fork = self.within, self.beside

    def reset(self) -> None:
        """Forget those whose work this process took over later."""
        self.within, self.beside = self.at_fork


_ancestry = _Ancestry()
runtime.register(
    "the processes that this one comes from", Phase.ANCESTRY, after_fork=_ancestry.fork, reset=_ancestry.reset
)
_MOST_WITHIN = 32
#: In bytes; an environment, where all that is variable in it comes from, is no larger.
_MOST_ORIGIN = 1 << 20


def within() -> tuple[str, ...]:
    """What the ids of the processes begin with that this one works for."""
    return _ancestry.within


def work_within(prefixes: tuple[str, ...], beside: tuple[str, ...]) -> None:
    """Take note of the processes whose run this one works in; a journal tells of the latest.

    Args:
        prefixes: what their ids begin with, outermost first.
        beside: the same of those that record to the same spool.
    """
    if _ancestry.own not in prefixes:
        _ancestry.within = tuple(dict.fromkeys(prefixes))[-_MOST_WITHIN:]
        _ancestry.beside = tuple(dict.fromkeys(beside))[-_MOST_WITHIN:]


def origin(uri: str, cwd: str, after: str = "") -> Origin:
    """Describe this process; `after` names the journal of it that was deleted, if one was."""
    return Origin(
        uri=uri,
        cwd=cwd,
        host=platform.node(),
        pid=os.getpid(),
        user=_user(),
        python=platform.python_version(),
        version=__version__,
        source=mask_name(main_file() or "<interactive>"),
        time=time.time_ns(),
        prefix=_ancestry.own,
        within=_ancestry.within,
        beside=_ancestry.beside,
        boot=boot_id(),
        after=after,
        store_device=_store_device(uri, cwd),
    )


def write_origin(directory: Path, record: Origin, name: str = "origin") -> None:
    """Write a journal's `origin` file, or one of another name like it: a checksum, then JSON."""
    content = msgspec.json.encode(record)
    write_private(directory / name, b"%08x\n%b\n" % (zlib.crc32(content), content))


def read_origin(directory: Path, name: str = "origin") -> Origin | None:
    """Read a journal's `origin` file, or one of another name like it; None where it is missing or damaged."""
    try:
        check, content = read_regular(directory / name, _MOST_ORIGIN).split(b"\n")[:2]
        if int(check, 16) != zlib.crc32(content):
            return None
        record: Origin = json_decoder(Origin).decode(content)
        for begin in (record.prefix, *record.within, *record.beside):
            bytes.fromhex(begin)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Origin) -> bool:
    """Whether every text in an `origin` can be shown, and used in system calls."""
    texts = (record.uri, record.cwd, record.host, record.user, record.source)
    return 0 <= record.time < 1 << 63 and 0 < record.pid < 1 << 31 and not any("\0" in text for text in texts)


def main_file() -> str | None:
    """The program that runs, as MLflow names it: the first word of the command line."""
    return sys.argv[0] if getattr(sys, "argv", None) and sys.argv[0] else None


def ask_git(directory: Path) -> None:
    """Let git say, beside the program, which commit its source is at; the answer lands in the journal's folder."""
    source = main_file()
    # Without an answer delivery waits a moment, and goes on without it.
    with contextlib.suppress(OSError):
        place = os.path.dirname(os.path.abspath(source)) if source and os.path.exists(source) else os.getcwd()
        run_detached(["/bin/sh", "-c", _GIT, "sh", place, str(directory / "git")])


def run_detached(
    command: list[str], *, log: str = "/dev/null", cwd: str = "/", env: dict[str, str] | None = None
) -> None:
    """Start a command that is no child of this process: the shell in between starts it and is gone at once.

    Raises:
        OSError: there is no shell, or no process can be made.
    """
    # Without any context: it is no part of the program.
    env = {name: value for name, value in (os.environ if env is None else env).items() if name != "TRACKDSL_CONTEXT"}
    done = contextvars.Context().run(
        subprocess.run,
        ["/bin/sh", "-c", 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 &', "sh", log, *command],
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=env,
        start_new_session=True,
        check=False,
    )
    if done.returncode:  # The shell could not fork.
        raise OSError(errno.EAGAIN, f"the shell could not start {command[0]}")


def _store_device(uri: str, cwd: str) -> int:
    folder = local_folder(uri, cwd)
    try:
        return 0 if folder is None else os.stat(folder).st_dev
    except (OSError, ValueError):
        return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user without an entry in passwd.
        return str(os.getuid())
