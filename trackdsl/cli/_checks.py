"""The checks of `trackdsl doctor`: settings, versions, the store, the spool. Each says what to do about a problem."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from trackdsl._config import resolve as settings
from trackdsl._config.spec import SETTINGS
from trackdsl._core import uris as _uris
from trackdsl._core.redaction import mask_prose
from trackdsl._core.version import __version__
from trackdsl._server.reachable import check
from trackdsl._server.tracking_server import VERSIONS
from trackdsl.cli._hosts import other_hosts, summary
from trackdsl.cli._journals import WAY_OUT
from trackdsl.cli._status import ago, is_delivering, size
from trackdsl.errors import ExperimentDeleted, SettingsError, TrackdslError
from trackdsl.journal import _spool
from trackdsl.store_format.journals import read_journals

Level = Literal["ok", "warning", "problem"]

#: In bytes: a disk with less free space than the first is a warning, with less than the second a problem.
_LITTLE, _TOO_LITTLE = 1 << 30, 64 << 20
_MOST_NAMED = 3
_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)


@dataclass(frozen=True)
class PresentSetting:
    """The present value of a setting.

    Attributes:
        name: its name, or that of a variable that MLflow reads.
        value: as text, with secrets masked; None if it is not set.
        source: what has set it.
        hides: other sources that set it too, and that this one overrides.
        problem: why the value is wrong, or None.
    """

    name: str
    value: str | None
    source: str
    hides: tuple[str, ...] = ()
    problem: str | None = None


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


def all_settings() -> list[PresentSetting]:
    """Every setting, with the source of its value."""
    return [_setting(name) for name in settings.NAMES] + [*_experiment_id(), *_credentials()]


def project() -> Iterator[Finding]:
    """What is wrong with the project's table; then no setting that it could contain has a known value."""
    try:
        settings.project()
    except SettingsError as error:
        yield Finding("[tool.trackdsl]", "problem", *split(mask_prose(str(error))))


def variables() -> Iterator[Finding]:
    """Environment variables with misspelt names."""
    for name, message in settings.unknown_variables().items():
        yield Finding("environment", "warning", message.partition(" Known:")[0], f"unset {name}, or rename it")


def _setting(name: str) -> PresentSetting:
    try:
        found = settings.look_up(name)
    except SettingsError as error:
        if str(error) == _wrong_with_project():
            return PresentSetting(name, None, "unknown: see [tool.trackdsl] below")
        return PresentSetting(name, None, error.setting, problem=mask_prose(str(error)))
    value = found.value
    if name == "spool" and value is None:
        value = _spool.default_path()
    if name == "show_url" and value is None:
        value = "at a terminal"
    shown = ", ".join(value) if isinstance(value, tuple) else str(value)
    return PresentSetting(name, mask_prose(shown), found.source, tuple(_hidden(name, found.source)))


def _wrong_with_project() -> str:
    try:
        settings.project()
    except SettingsError as error:
        return str(error)
    return ""


def _hidden(name: str, source: str) -> Iterator[str]:
    """The other sources of a setting, which have a lower precedence than the source that counts."""
    variables = SETTINGS[name].variables
    counts_less = variables[variables.index(source) + 1 :] if source in variables else variables
    yield from (variable for variable in counts_less if os.environ.get(variable))
    try:
        project = settings.project()
    except SettingsError:  # `project` reports it.
        return
    if name in project.values and source != project.path:
        yield project.path


def _experiment_id() -> Iterator[PresentSetting]:
    id_ = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if id_ and not _wrong_with_project():
        counts = settings.experiment_id() is not None
        value = id_ if counts else f"{id_}, which does not count: experiment_name or tracking_uri is set elsewhere"
        yield PresentSetting("experiment id", value, "MLFLOW_EXPERIMENT_ID")


def _credentials() -> Iterator[PresentSetting]:
    for name in _CREDENTIALS:
        if os.environ.get(name):
            secret = name.endswith(("PASSWORD", "TOKEN", "USERNAME"))
            yield PresentSetting(name, "***" if secret else os.environ[name], "environment")


def versions() -> Iterator[Finding]:
    """trackdsl, Python, MLflow."""
    where = Path(__file__).parent.parent
    yield Finding(
        "trackdsl", "ok", f"{__version__} in {where}, Python {platform.python_version()}, {platform.platform()}"
    )
    try:
        found = metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        yield Finding("MLflow", "problem", "is not installed", "pip install mlflow")
        return
    number = re.match(r"(\d+)\.(\d+)", found)
    least, beyond = VERSIONS
    if number is not None and not least <= (int(number[1]), int(number[2])) < beyond:
        fix = f"pip install 'mlflow>={least[0]}.{least[1]},<{beyond[0]}'"
        yield Finding("MLflow", "problem", f"{found} is not a version that trackdsl works with", fix)
        return
    yield Finding("MLflow", "ok", found)


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
        yield Finding("delivery", "problem", "cannot be started: this Python does not know its own program", fix)


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
    said = f" (MLflow {found.version})" if found.version else ""
    path = _database_file(uri)
    if path is not None and not path.exists():
        yield from _new_database(path)
        return
    yield Finding("store", "ok", f"{shown} answers{said}")
    yield from _schema(uri)
    if name is not None:
        id_ = f"id {found.experiment_id}" if found.experiment_id else "made by the first run"
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
        yield Finding("store", "ok", f"{path} is made by the first run")
    else:
        fix = "make the folder, or set TRACKDSL_TRACKING_URI to another path"
        yield Finding("store", "problem", f"{path} cannot be made: {path.parent} is no folder that you can write", fix)


def _schema(uri: str) -> Iterator[Finding]:
    """Whether a database has the schema of the installed MLflow, which refuses any other."""
    spec = find_spec("mlflow")
    if not _uris.is_database(uri) or spec is None or not spec.submodule_search_locations:
        return
    try:
        import sqlalchemy
        from alembic.script import ScriptDirectory
        from sqlalchemy import pool

        wanted = ScriptDirectory(f"{spec.submodule_search_locations[0]}/store/db_migrations").get_current_head()
        engine = sqlalchemy.create_engine(uri, poolclass=pool.NullPool)
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    except Exception as error:  # For example a plugin, or a database without tables.
        yield Finding("schema", "warning", f"cannot be read: {mask_prose(str(error)).partition(chr(10))[0][:200]}")
        return
    if found == wanted:
        yield Finding("schema", "ok", f"is that of the installed MLflow ({found})")
    else:
        text = f"is {found}, and the installed MLflow wants {wanted}"
        fix = f"back the database up, then `mlflow db upgrade {mask_prose(uri)}`"
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


def _waiting(path: Path) -> Iterator[Finding]:
    waiting = [journal for journal in read_journals(path) if journal.waits]
    at_work = "a delivery process is at work" if is_delivering(path) else "no delivery process is at work"
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
            fix += f"; what will never get there: {WAY_OUT}"
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
