"""The wire form of a context, and what the process that it arrives in makes of it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_plus, urlsplit

import msgspec

from trackdsl._config import resolve as settings
from trackdsl._config.spec import SETTINGS
from trackdsl._config.state import state
from trackdsl._core.decoders import json_decoder
from trackdsl._core.ids import begins_with, prefix
from trackdsl._core.redaction import MASK, mask_text
from trackdsl.errors import ContextError, SettingsError, format_error, reraise_from_signal
from trackdsl.journal import _target
from trackdsl.journal._origin import read_origin
from trackdsl.journal._spool import JOURNALS, default_path, is_safe_spool, journals, locate, named_path
from trackdsl.journal._spool import find as find_spool

_SHOWN = 200


#: What `configure` set and must hold for the other process too. The run itself says where it goes.
Chosen: Any = msgspec.defstruct(
    "Chosen",
    [(setting.name, setting.type | None, None) for setting in SETTINGS.values() if setting.travels],
    frozen=True,
    omit_defaults=True,
)


class Carried(msgspec.Struct, frozen=True, omit_defaults=True):
    """The wire form of a context; all of it may be seen by others on the machine, so it holds no credentials."""

    run: str
    name: str
    path: str
    uri: str
    cwd: str
    host: str
    spool: str
    #: The journal that tells of the run, in `spool`: its `origin` file has the credentials, for its owner alone.
    journal: str = ""
    #: What the ids of the processes begin with that the run's own belongs to; see `Origin.within`.
    within: tuple[str, ...] = ()
    experiment: str | None = None
    step: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)] = 0
    mlflow: tuple[str, str] | None = None
    settings: Chosen = Chosen()


def encode(carried: Carried) -> str:
    """As JSON."""
    # In ASCII: no locale of a child refuses it. msgspec would refuse the bytes of file names that are no text.
    return json.dumps(msgspec.to_builtins(carried), separators=(",", ":"))


@functools.lru_cache(maxsize=64)
def decode(text: str) -> Carried:
    """From JSON.

    Raises:
        ContextError: it is something else.
    """
    try:
        json_decoder(Carried)  # From here on msgspec knows the type, and need not look at it.
        carried = msgspec.convert(json.loads(text), Carried)
        if len(bytes.fromhex(carried.run)) != 16 or len(carried.run) != 32:
            raise ValueError("the run's id is none")
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        shown = mask_text(str(text)[: 10 * _SHOWN])[:_SHOWN]
        reraise_from_signal(error)
        raise ContextError(f"this is no context of trackdsl's: {format_error(error)}", text=shown) from None
    return carried


def take_settings(carried: Carried) -> None:
    """Do as the other process was told to, where nobody has told this one anything."""
    if begins_with(bytes.fromhex(carried.run), prefix()):
        return
    chosen: dict[str, Any] = {name: getattr(carried.settings, name) for name in Chosen.__struct_fields__}
    # Whoever can hand over a context may name any folder in it.
    if _is_here(carried) and carried.spool != _usual_spool() and is_safe_spool(Path(carried.spool)):
        chosen["spool"] = carried.spool
    configured = settings.configured()
    for name in list(chosen):
        told_already = configured.get(name) is not None or os.environ.get(f"TRACKDSL_{name.upper()}")
        if told_already or chosen[name] is None:
            del chosen[name]
    if chosen:
        settings.update(**chosen)
        if "spool" in chosen:
            _target.start_anew()
        state.refresh()


def is_beside(carried: Carried) -> bool:
    """Whether the process that a context is from records to the same spool as this one."""
    if not _is_here(carried) or carried.spool != _own_spool():
        return False
    # Containers may have the host's name, and the same path of something else.
    return not carried.journal or (Path(carried.spool) / JOURNALS / Path(carried.journal).name).is_dir()


def _own_spool() -> str:
    try:
        return str(named_path())
    except (OSError, RuntimeError):  # It cannot be used, or there is no home folder.
        return ""


def _usual_spool() -> str:
    try:
        return str(locate(default_path()))
    except (OSError, RuntimeError):
        return ""


def _is_here(carried: Carried) -> bool:
    return carried.host == os.uname().nodename


def uri_of(carried: Carried) -> str:
    """The tracking URI, with the credentials that it had: from what this process, or this machine, knows of it."""
    if carried.uri == _target.DISCARDED:
        return carried.uri
    known = [target.uri for target in _target.targets()]
    with contextlib.suppress(SettingsError):  # A wrong one here is no matter: another machine says where to go.
        known.insert(0, settings.tracking_uri())
    for uri in known:
        if public(uri) == carried.uri:
            return uri
    if _is_here(carried):
        told_of = None
        if is_safe_spool(Path(carried.spool)):
            told_of = read_origin(Path(carried.spool) / JOURNALS / (Path(carried.journal).name or "-"))
        # What is a secret there may be none here, and would be left in.
        if told_of is not None and (public(told_of.uri) == carried.uri or MASK in carried.uri):
            return told_of.uri
        for directory in journals(find_spool()):
            origin = read_origin(directory)
            if origin is not None and public(origin.uri) == carried.uri:
                return origin.uri
    return carried.uri


def public(uri: str) -> str:
    """A tracking URI without credentials."""
    user = ""
    try:
        parts = urlsplit(uri)
        if "@" in parts.netloc:
            # The user of a database is part of its address; that of a server is half of a secret, or all of it.
            if parts.password and not parts.scheme.startswith("http"):
                user = mask_text(parts.netloc.partition(":")[0]) + "@"
            # Not `urlunsplit` of the parts: it drops the slashes where no host is left.
            uri = parts.geturl().replace(f"//{parts.netloc}", f"//{parts.netloc.rpartition('@')[2]}", 1)
    except ValueError:
        pass
    for value in filter(_hides_password, re.split("[?&=]", uri)):
        uri = uri.replace(f"={value}", f"={MASK}")
    uri = mask_text(uri)
    return uri.replace("://", f"://{user}", 1) if user else uri


def _hides_password(value: str) -> bool:
    """Whether a part of a query is a connection string of its own, as ODBC's are, with a password in it."""
    return "pwd=" in unquote_plus(value).lower()
