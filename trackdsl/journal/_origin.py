"""What a journal records about the program that writes it, collected once when the journal is made."""

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
from pathlib import Path

import msgspec

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.decoders import json_decoder
from trackdsl._core.ids import prefix
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import Phase
from trackdsl._core.uris import local_folder
from trackdsl._core.version import __version__
from trackdsl.journal._files import read_regular, write_private
from trackdsl.journal._mounts import boot_id

# Runs in parallel with the program, and writes its whole answer at once. The options of `git` keep a stranger's
# repository from running commands. Secrets in the remote's URL are removed before anything is written: the scheme, the
# host and the path of the URL are kept, and the user names that all users of a forge share. Nothing is kept if the host
# is ambiguous, as with an `@` in the path.
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


class Project(msgspec.Struct, frozen=True):
    """The import paths of a program, and which names it treats as those of secrets.

    Attributes:
        paths: where it looks for modules (`sys.path`).
        secret_names, public_names: see the settings of these names.
    """

    paths: tuple[str, ...]
    secret_names: tuple[str, ...] = ()
    public_names: tuple[str, ...] = ()


class Origin(msgspec.Struct, frozen=True, rename={"ancestors": "within", "same_spool": "beside"}):
    """The program that writes a journal, and the store that its runs go to.

    Attributes:
        uri: the tracking URI with its credentials, which delivery needs once the program has ended. Only this file
            holds them, and only its owner can read it.
        cwd: the program's working directory.
        host, pid, user, python, version, source: the program.
        time: when the journal was made, in nanoseconds since 1970.
        prefix: the first bytes of the ids of its runs, in hexadecimal.
        ancestors: the prefixes of the processes that started it, or that it worked for, when the journal was made.
        same_spool: those of `ancestors` that record to the same spool.
        boot: identifies the machine since its start, see `boot_id`; empty if an old version wrote it.
        after: the deleted journal of the same program that this journal replaces; mostly empty.
        store_device: the device number of a local store's folder; 0 if the folder does not exist.
        project: its source; None if what changed since its last run is not to be found out.
        reports: whether its root runs get a report.
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
    ancestors: tuple[str, ...] = ()
    same_spool: tuple[str, ...] = ()
    boot: str = ""
    after: str = ""
    store_device: int = 0
    project: Project | None = None
    reports: bool = False


class _Ancestry:
    """The processes that this one works for, each by the prefix of its ids.

    Attributes:
        own: the prefix of this process.
        ancestors: the prefixes of those processes, the outermost first.
        same_spool: those of `ancestors` that record to the same spool.
        at_fork: `ancestors` and `same_spool` as they were when this process was forked.
    """

    def __init__(self) -> None:
        self.own = prefix().hex()
        self.ancestors: tuple[str, ...] = ()
        self.same_spool: tuple[str, ...] = ()
        self.at_fork: tuple[tuple[str, ...], tuple[str, ...]] = (), ()

    def fork(self) -> None:
        """Add the process that this one was forked from."""
        parent, self.own = self.own, prefix().hex()
        work_for((*self.ancestors, parent), (*self.same_spool, parent))
        self.at_fork = self.ancestors, self.same_spool

    def reset(self) -> None:
        """Forget the processes that this one began to work for after its start."""
        self.ancestors, self.same_spool = self.at_fork


_ancestry = _Ancestry()
runtime.register(
    "the processes that this one comes from", Phase.ANCESTRY, after_fork=_ancestry.fork, reset=_ancestry.reset
)
_MOST_ANCESTORS = 32
#: Folders with modules that are written down of a program.
_MOST_PATHS = 200
#: In bytes. The variable part comes from the environment, which is not larger.
_MOST_ORIGIN = 1 << 20


def ancestors() -> tuple[str, ...]:
    """The prefixes of the processes that this one works for."""
    return _ancestry.ancestors


def work_for(prefixes: tuple[str, ...], same_spool: tuple[str, ...]) -> None:
    """Remember the processes whose run this one works in; a journal names the latest of them.

    Args:
        prefixes: of their ids, the outermost process first.
        same_spool: those of `prefixes` that record to the same spool.
    """
    if _ancestry.own not in prefixes:
        _ancestry.ancestors = tuple(dict.fromkeys(prefixes))[-_MOST_ANCESTORS:]
        _ancestry.same_spool = tuple(dict.fromkeys(same_spool))[-_MOST_ANCESTORS:]


def origin(uri: str, cwd: str, after: str = "") -> Origin:
    """Describe this process; `after` names its earlier journal, if that was deleted."""
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
        ancestors=_ancestry.ancestors,
        same_spool=_ancestry.same_spool,
        boot=boot_id(),
        after=after,
        store_device=_store_device(uri, cwd),
        project=Project(_paths(), settings.secret_names(), settings.public_names()) if settings.changes() else None,
        reports=settings.reports(),
    )


def _paths() -> tuple[str, ...]:
    paths = (os.path.abspath(path) for path in map(str, sys.path[:_MOST_PATHS]) if "\0" not in path)
    return tuple(dict.fromkeys(paths))


def write_origin(directory: Path, record: Origin, name: str = "origin") -> None:
    """Write a journal's `origin` file, or one like it under another name: a checksum, then JSON."""
    content = msgspec.json.encode(record)
    write_private(directory / name, b"%08x\n%b\n" % (zlib.crc32(content), content))


def read_origin(directory: Path, name: str = "origin") -> Origin | None:
    """Read a journal's `origin` file, or one like it under another name; None if it is missing or damaged."""
    try:
        check, content = read_regular(directory / name, _MOST_ORIGIN).split(b"\n")[:2]
        if int(check, 16) != zlib.crc32(content):
            return None
        record: Origin = json_decoder(Origin).decode(content)
        for begin in (record.prefix, *record.ancestors, *record.same_spool):
            bytes.fromhex(begin)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return record if _is_sound(record) else None


def may_still_run(origin: Origin) -> bool:
    """Whether the program that wrote a journal may still run, as far as this machine knows."""
    if origin.host != platform.node():
        return False
    import psutil  # It takes milliseconds, and few journals are deleted.

    try:
        process = psutil.Process(origin.pid)
        # One second of tolerance: the clock may have been corrected since the process began.
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= origin.time / 1e9 + 1)
    except psutil.Error:
        return False


def _is_sound(record: Origin) -> bool:
    """Whether every text in an `origin` can be printed and passed to system calls."""
    paths = () if record.project is None else record.project.paths
    texts = (record.uri, record.cwd, record.host, record.user, record.source, *paths)
    return 0 <= record.time < 1 << 63 and 0 < record.pid < 1 << 31 and not any("\0" in text for text in texts)


def main_file() -> str | None:
    """The program's file as MLflow names it, the first part of the command line; in a kernel, the notebook if known."""
    first = sys.argv[0] if getattr(sys, "argv", None) and sys.argv[0] else None
    return notebook_file() or first if is_front_end(first) else first


def notebook_file() -> str:
    """The path of the notebook that this kernel executes, as VS Code or Jupyter give it; empty if it is not known."""
    by_vscode = getattr(sys.modules.get("__main__"), "__vsc_ipynb_file__", None)
    for path in (by_vscode, os.environ.get("JPY_SESSION_NAME")):
        if isinstance(path, str) and path.endswith(".ipynb"):
            return path
    return ""


def is_front_end(file: str | None) -> bool:
    """Whether a program's file only executes what a user types or opens: then it says nothing about the source."""
    name = os.path.basename(file or "")
    return name.endswith("kernel_launcher.py") or name in ("ipython", "ipython3", "marimo")


def _source_folder() -> str:
    """The folder of the program's file or notebook; the working directory if that is not known."""
    source = main_file()
    known = source and os.path.exists(source) and not is_front_end(source)
    return os.path.dirname(os.path.abspath(source)) if source and known else os.getcwd()


def ask_git(directory: Path) -> None:
    """Ask git for the commit of the source, in parallel with the program. The answer goes to the journal's folder."""
    # Without an answer, delivery waits for a moment and continues without it.
    with contextlib.suppress(OSError):
        run_detached(["/bin/sh", "-c", _GIT, "sh", _source_folder(), str(directory / "git")])


def run_detached(
    command: list[str], *, log: str = "/dev/null", cwd: str = "/", env: dict[str, str] | None = None
) -> int:
    """Start a command that is not a child of this process: a shell starts it and exits at once.

    Returns:
        the id of its process; 0 if the shell does not say.

    Raises:
        OSError: there is no shell, or no process can be started.
    """
    # Without the context: the command is not part of the program.
    env = {name: value for name, value in (os.environ if env is None else env).items() if name != "TRACKDSL_CONTEXT"}
    done = contextvars.Context().run(
        subprocess.run,
        ["/bin/sh", "-c", 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!', "sh", log, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=cwd,
        env=env,
        start_new_session=True,
        check=False,
    )
    if done.returncode:  # The shell could not fork.
        raise OSError(errno.EAGAIN, f"the shell could not start {command[0]}")
    said = done.stdout.strip()
    return int(said) if said.isdigit() else 0


def _store_device(uri: str, cwd: str) -> int:
    folder = local_folder(uri, cwd)
    try:
        return 0 if folder is None else os.stat(folder).st_dev
    except (OSError, ValueError):
        return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user may have no entry in passwd.
        return str(os.getuid())
