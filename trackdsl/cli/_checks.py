"""The checks of `trackdsl doctor`: settings, versions, the store, the spool. Each result says how to fix a problem."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from trackdsl._config import resolve as settings
from trackdsl._core import uris as _uris
from trackdsl._core.redaction import mask_prose
from trackdsl._core.version import __version__
from trackdsl._server.reachable import check
from trackdsl._server.tracking_server import VERSIONS
from trackdsl.cli._hosts import other_hosts, summary
from trackdsl.cli._journals import WAY_OUT
from trackdsl.cli._status import ago, is_delivering, size
from trackdsl.errors import ExperimentDeleted, SettingsError, TrackdslError
from trackdsl.errors._databases import cause_in_sqlite
from trackdsl.store_format.installed_mlflow import UPGRADE, is_newer, mlflow_folder, needed_revision, revision_of
from trackdsl.store_format.journals import read_journals
from trackdsl.store_format.sinks import SERVER, SLOWER, TABLES, read_sink

Level = Literal["ok", "warning", "problem"]

#: In bytes: a disk with less free space than the first is a warning, with less than the second a problem.
_LITTLE, _TOO_LITTLE = 1 << 30, 64 << 20
_MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        about: what was checked.
        level: whether it is a problem.
        text: the result.
        fix: what to do about it; empty if nothing needs to be done.
    """

    about: str
    level: Level
    text: str
    fix: str = ""


def project() -> Iterator[Finding]:
    """What is wrong with the project's table. A setting that the table could contain then has no known value."""
    try:
        settings.project()
    except SettingsError as error:
        yield Finding("[tool.trackdsl]", "problem", *split(mask_prose(str(error))))


def variables() -> Iterator[Finding]:
    """Environment variables with misspelt names."""
    for name, message in settings.unknown_variables().items():
        yield Finding("environment", "warning", message.partition(" Known:")[0], f"unset {name}, or rename it")


def versions() -> Iterator[Finding]:
    """trackdsl, Python, MLflow."""
    where = Path(__file__).parent.parent
    yield Finding(
        "trackdsl", "ok", f"{__version__} in {where}, Python {platform.python_version()}, {platform.platform()}"
    )
    found = _version_of_mlflow()
    if found is None:
        yield Finding("MLflow", "problem", "is not installed", "pip install mlflow")
        return
    number = re.match(r"(\d+)\.(\d+)", found)
    least, beyond = VERSIONS
    if number is not None and not least <= (int(number[1]), int(number[2])) < beyond:
        fix = f"pip install 'mlflow>={least[0]}.{least[1]},<{beyond[0]}'"
        yield Finding("MLflow", "problem", f"{found} is not a version that trackdsl works with", fix)
        return
    yield Finding("MLflow", "ok", found)


def _version_of_mlflow() -> str | None:
    """The version of the installed MLflow; None if there is none.

    The name of the folder next to the package has it. To import `importlib.metadata`, which reads the same from the
    file in there, takes longer than most checks.
    """
    spec = find_spec("mlflow")
    for folder in (spec and spec.submodule_search_locations) or ():
        noted = [path.name for path in Path(folder).parent.glob("mlflow-*.dist-info")]
        if len(noted) == 1:
            return noted[0].removeprefix("mlflow-").removesuffix(".dist-info")
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("mlflow")
    return None


def mode() -> Iterator[Finding]:
    """Whether programs record, and whether the records are delivered."""
    chosen = settings.look_up("mode")
    if chosen.value == "disabled":
        yield Finding("recording", "warning", f"is switched off by {chosen.source}", _undo(chosen.source, "mode"))
    elif chosen.value == "offline":
        text = f"is on; delivery is off by {chosen.source}"
        yield Finding("recording", "warning", text, "`trackdsl sync` delivers what was recorded")
    else:
        yield Finding("recording", "ok", "is on")
    if chosen.value == "online" and settings.delivery() == "process" and not os.path.exists("/bin/sh"):
        fix = "set TRACKDSL_DELIVERY=thread"
        yield Finding("delivery", "problem", "needs /bin/sh to start its process, and there is none", fix)
    if not sys.executable:
        fix = "set TRACKDSL_DELIVERY=thread"
        yield Finding(
            "delivery",
            "problem",
            "cannot be started: the path of this Python (sys.executable) is unknown",
            fix,
        )


def _undo(source: str, name: str) -> str:
    return f"unset {source}" if source.isupper() else f"change `{name}` there"


def store(uri: str | None) -> Iterator[Finding]:
    """Whether the store answers, and has the experiment or can create it."""
    named = settings.checked("tracking_uri", uri, "--tracking-uri") if uri else settings.tracking_uri()
    uri = _uris.absolute_uri(named, os.getcwd())
    shown = mask_prose(uri)
    name = None if settings.experiment_id() else settings.experiment_name()
    try:
        found = check(uri, name)
    except ExperimentDeleted as error:
        yield Finding("store", "ok", f"{shown} answers")
        yield Finding("experiment", "problem", *split(str(error)))
        return
    except TrackdslError as error:
        yield Finding("store", "problem", *split(mask_prose(str(error))))
        return
    version = f" (MLflow {found.version})" if found.version else ""
    path = _database_file(uri)
    if path is not None and not path.exists():
        yield from _new_database(path)
        return
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        cause = cause_in_sqlite("readonly")
        yield Finding("store", "problem", f"{path} {cause.what}", cause.fix)
        return
    yield Finding("store", "ok", f"{shown} answers{version}")
    schema = list(_schema(uri))
    yield from schema
    if name is not None and not any(found.level == "warning" for found in schema):
        id_ = f"id {found.experiment_id}" if found.experiment_id else "the first run creates it"
        yield Finding("experiment", "ok", f"{name!r}, {id_}")


def split(text: str) -> tuple[str, str]:
    """Split the text of an error: what happened, and what to do."""
    happened, found, fix = text.partition(". ")
    return (happened, fix) if found else (text, "")


def _database_file(uri: str) -> Path | None:
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if uri.startswith("sqlite:///") and path else None


def _new_database(path: Path) -> Iterator[Finding]:
    if os.access(path.parent, os.W_OK | os.X_OK):
        yield Finding("store", "ok", f"the first run creates {path}")
    else:
        fix = "create the folder, or set TRACKDSL_TRACKING_URI to another path"
        yield Finding("store", "problem", f"{path} cannot be created: you cannot write to {path.parent}", fix)


def _schema(uri: str) -> Iterator[Finding]:
    """Whether a database has the schema of the installed MLflow, which refuses any other."""
    mlflow = mlflow_folder()
    if not _uris.is_database(uri) or mlflow is None:
        return
    try:
        wanted, found = needed_revision(mlflow), revision_of(uri)
    except Exception as error:  # For example a plugin, or a database without tables.
        text = mask_prose(str(error)).partition("\n")[0][:200]
        fix = cause_in_sqlite(text).fix if uri.startswith("sqlite") else ""
        yield Finding("schema", "warning", f"cannot be read: {text}", fix)
        return
    if found == wanted:
        yield Finding("schema", "ok", f"matches the installed MLflow ({found})")
    else:
        text = f"is {found}, and the installed MLflow needs {wanted}"
        fix = f"back the database up, then `mlflow db upgrade {mask_prose(uri)}`"
        if is_newer(found, mlflow):
            fix = UPGRADE[0].lower() + UPGRADE[1:]
        yield Finding("schema", "problem", text, fix)


def spool(path: Path) -> Iterator[Finding]:
    """Whether the spool is private and has free space, and how many records wait in it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    private = "private" if not mode & 0o077 else f"open to others (mode {mode:o})"
    fix = f"chmod 700 {path}" if mode & 0o077 else ""
    yield Finding("spool", "problem" if fix else "ok", f"{path}, {private}, writable", fix)
    free = shutil.disk_usage(path).free
    level: Level = "problem" if free < _TOO_LITTLE else "warning" if free < _LITTLE else "ok"
    room = "free some space, or set TRACKDSL_SPOOL to a folder on another disk" if level != "ok" else ""
    yield Finding("disk", level, f"{size(free)} free where the spool is", room)
    yield from _waiting(path)
    yield from _of_other_hosts(path)


def delivery(spool: Path, uri: str | None) -> Iterator[Finding]:
    """How delivery writes to the store, if it has done so before."""
    named = settings.checked("tracking_uri", uri, "--tracking-uri") if uri else settings.tracking_uri()
    note = read_sink(spool, _uris.absolute_uri(named, os.getcwd()), os.getcwd())
    if note is None:
        return
    if note.way == TABLES:
        yield Finding("delivery", "ok", "writes to the tables of the database itself")
    elif note.way == SERVER:
        yield Finding("delivery", "ok", "sends change sets to the server, which has trackdsl's plugin")
    elif note.reason:
        yield Finding("delivery", "warning", f"uses {SLOWER[note.way]}, which is slower: {mask_prose(note.reason)}")
    else:
        yield Finding("delivery", "ok", f"uses {SLOWER[note.way]}")


def _waiting(path: Path) -> Iterator[Finding]:
    waiting = [journal for journal in read_journals(path) if journal.waits]
    at_work = "a delivery process is running" if is_delivering(path) else "no delivery process is running"
    if not waiting:
        yield Finding("waiting", "ok", f"nothing; {at_work}")
        return
    left = size(sum(journal.bytes_left() for journal in waiting))
    text = f"{left} of events of {len(waiting)} program{'s' * (len(waiting) > 1)}; {at_work}"
    errors = list(dict.fromkeys(journal.brief_error for journal in waiting if journal.progress.blocked_since))
    errors += [f"{each.target}: {each.wrong_target}" for each in waiting if each.wrong_target and not errors]
    if errors:
        fix = "fix the cause, then run `trackdsl sync`"
        if any(journal.is_stuck for journal in waiting):
            fix += f"; for records that the store will never accept: {WAY_OUT}"
        yield Finding("waiting", "problem", f"{text}: {errors[0]}", fix)
    else:
        fix = "" if is_delivering(path) else "`trackdsl sync` delivers it now, `trackdsl status` shows details"
        yield Finding("waiting", "ok" if is_delivering(path) else "warning", text, fix)


def _of_other_hosts(path: Path) -> Iterator[Finding]:
    hosts = other_hosts(path)
    if not hosts:
        return
    lines = []
    for host in hosts:
        events = sum(each.journal.count()[0] for each in host.waiting)
        programs = ", ".join(each.journal.program for each in host.waiting[:_MOST_NAMED])
        more = f" and {len(host.waiting) - _MOST_NAMED} more" if len(host.waiting) > _MOST_NAMED else ""
        since = min((each.journal.since for each in host.waiting if each.journal.since is not None), default=None)
        when = "" if since is None else f", the oldest from {ago(since)}"
        lines.append(f"{host.name}: {events:,} events of {programs}{more}{when}, in {host.spool}")
    yield Finding("other hosts", "warning", "\n".join(lines), f"{summary(hosts)}; `trackdsl status` shows details")
