"""The wire form of a context, and the settings that a receiving process takes from it."""

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
from trackdsl.journal._spool import JOURNALS, is_safe_spool, journals, locate
from trackdsl.journal._spool_choice import default_path, named_path
from trackdsl.journal._spool_choice import find as find_spool
from trackdsl.journal._store_target import DISCARDED

_SHOWN = 200


#: The settings from `configure` that the receiving process uses too. The store comes with the run.
Chosen: Any = msgspec.defstruct(
    "Chosen",
    [(setting.name, setting.type | None, None) for setting in SETTINGS.values() if setting.travels],
    frozen=True,
    omit_defaults=True,
)


class WireContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """The wire form of a context. Other users of a machine may see it, so it has no credentials."""

    run: str
    name: str
    path: str
    uri: str
    cwd: str
    host: str
    spool: str
    #: The journal of the run, in `spool`. Its `origin` file has the credentials, and only its owner can read it.
    journal: str = ""
    #: The first bytes of the ids of the processes above the one that opened the run; see `Origin.ancestors`.
    ancestors: tuple[str, ...] = msgspec.field(default=(), name="within")
    experiment: str | None = None
    step: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)] = 0
    mlflow: tuple[str, str] | None = None
    settings: Chosen = Chosen()


def encode(wire: WireContext) -> str:
    """Encode the wire form of a context as JSON."""
    # ASCII works in every locale of a child. `msgspec.json` would refuse file names that are not valid Unicode.
    return json.dumps(msgspec.to_builtins(wire), separators=(",", ":"))


@functools.lru_cache(maxsize=64)
def decode(text: str) -> WireContext:
    """The wire form in a JSON text.

    Raises:
        ContextError: the text is not a context.
    """
    try:
        json_decoder(WireContext)  # msgspec caches what it needs of the type here, where no signal interrupts it.
        wire = msgspec.convert(json.loads(text), WireContext)
        if len(bytes.fromhex(wire.run)) != 16 or len(wire.run) != 32:
            raise ValueError("the run has no valid id")
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        shown = mask_text(str(text)[: 10 * _SHOWN])[:_SHOWN]
        reraise_from_signal(error)
        raise ContextError(f"this text is not a context of trackdsl: {format_error(error)}", text=shown) from None
    return wire


def take_settings(wire: WireContext) -> None:
    """Use the settings of the sending process that neither `configure` nor the environment sets in this one."""
    if begins_with(bytes.fromhex(wire.run), prefix()):
        return
    chosen: dict[str, Any] = {name: getattr(wire.settings, name) for name in Chosen.__struct_fields__}
    # A context may come from anywhere, and may name any folder.
    if _is_same_host(wire) and wire.spool != _usual_spool() and is_safe_spool(Path(wire.spool)):
        chosen["spool"] = wire.spool
    configured = settings.configured()
    for name in list(chosen):
        is_set = configured.get(name) is not None or os.environ.get(f"TRACKDSL_{name.upper()}")
        if is_set or chosen[name] is None:
            del chosen[name]
    if chosen:
        settings.update(**chosen)
        if "spool" in chosen:
            _target.start_new_journals()
        state.refresh()


def is_same_spool(wire: WireContext) -> bool:
    """Whether the process that sent a context records to the same spool as this one."""
    if not _is_same_host(wire) or wire.spool != _own_spool():
        return False
    # A container may have the name of its host, and another folder at the same path.
    return not wire.journal or (Path(wire.spool) / JOURNALS / Path(wire.journal).name).is_dir()


def _own_spool() -> str:
    try:
        return str(named_path())
    except (OSError, RuntimeError):  # The folder cannot be used, or there is no home folder.
        return ""


def _usual_spool() -> str:
    try:
        return str(locate(default_path()))
    except (OSError, RuntimeError):
        return ""


def _is_same_host(wire: WireContext) -> bool:
    return wire.host == os.uname().nodename


def uri_of(wire: WireContext) -> str:
    """The tracking URI of a context, with credentials if this process or a journal on this machine has them."""
    if wire.uri == DISCARDED:
        return wire.uri
    known = [target.uri for target in _target.targets()]
    with contextlib.suppress(SettingsError):  # A wrong setting here does not matter, as the context names the store.
        known.insert(0, settings.tracking_uri())
    for uri in known:
        if public(uri) == wire.uri:
            return uri
    if _is_same_host(wire):
        origin = None
        if is_safe_spool(Path(wire.spool)):
            origin = read_origin(Path(wire.spool) / JOURNALS / (Path(wire.journal).name or "-"))
        # The sender may have masked more than this process would: it knows other secrets.
        if origin is not None and (public(origin.uri) == wire.uri or MASK in wire.uri):
            return origin.uri
        for directory in journals(find_spool()):
            origin = read_origin(directory)
            if origin is not None and public(origin.uri) == wire.uri:
                return origin.uri
    return wire.uri


def public(uri: str) -> str:
    """A tracking URI without credentials."""
    user = ""
    try:
        parts = urlsplit(uri)
        if "@" in parts.netloc:
            # The user name of a database is part of its address. That of a server may be a secret, such as a token.
            if parts.password and not parts.scheme.startswith("http"):
                user = mask_text(parts.netloc.partition(":")[0]) + "@"
            # `urlunsplit` would drop the slashes if no host is left.
            uri = parts.geturl().replace(f"//{parts.netloc}", f"//{parts.netloc.rpartition('@')[2]}", 1)
    except ValueError:
        pass
    for value in filter(_hides_password, re.split("[?&=]", uri)):
        uri = uri.replace(f"={value}", f"={MASK}")
    uri = mask_text(uri)
    return uri.replace("://", f"://{user}", 1) if user else uri


def _hides_password(value: str) -> bool:
    """Whether a value in a query is a connection string with a password, as for ODBC."""
    return "pwd=" in unquote_plus(value).lower()
