"""MLflow's limits, and encodings for what exceeds them.

A key has at most 250 characters: letters, digits and `/_-. :`. It must not change when it is read as a path. Any other
character is written as `_xHHHH_` (the escape of ISO/IEC 9075-14, SQL/XML), which `unescape_key` decodes.
Source of the limits: mlflow/utils/validation.py, MLflow 3.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
import re
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_RUN_NAME = 250
#: Limits for one request.
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_ITEMS = 1000
#: Our own limit for the points, the parameters or the tags that are written to one run at once.
MAX_BATCH = 250_000
_MAX_FILE_NAME = 200

#: Types that `msgspec` checks when it reads what another machine has sent.
Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]  # `is_key` checks the rest.
ParamValue = Annotated[str, Meta(max_length=MAX_PARAM)]
TagValue = Annotated[str, Meta(max_length=MAX_TAG)]
RunName = Annotated[str, Meta(max_length=MAX_RUN_NAME)]
Integer = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
RunId = Annotated[str, Meta(min_length=32, max_length=32, pattern=r"\A[0-9a-f]{32}\Z")]

_ALLOWED = re.compile(r"[/\w.\- :]+")
_REFUSED = re.compile(r"[^/\w.\- :]|_(?=x[0-9A-F]{4,6}_)")
#: Characters that cannot distinguish keys if a store ignores case, accents and trailing spaces.
_INDISTINCT = re.compile(r"[^/a-z0-9_.\- :]| (?= *$)")
_ESCAPED = re.compile(r"_x([0-9A-F]{4,6})_")
_EMPTY = "_x_"


def escape_key(key: str) -> str:
    """A key that MLflow accepts; `unescape_key` returns the original.

    >>> escape_key("layers[0]"), escape_key("loss")
    ('layers_x005B_0_x005D_', 'loss')
    """
    if not key:
        return _EMPTY
    if key == _EMPTY:
        return _mark("_") + "x_"
    key = _REFUSED.sub(lambda match: _mark(match[0]), key)
    if _unlike_path(key):
        parts = key.split("/")
        # A path drops empty parts, and parts of dots lead upwards: both are escaped.
        key = parts[0] if parts[0] not in (".", "..") else _mark(".") + parts[0][1:]
        for before, part in pairwise(parts):
            slash = "/" if before and part else _mark("/")
            key += slash + (_mark(".") + part[1:] if part in (".", "..") else part)
    return key


def unescape_key(key: str) -> str:
    """The key that `escape_key` was given.

    >>> unescape_key("layers_x005B_0_x005D_")
    'layers[0]'
    """
    if key == _EMPTY:
        return ""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), key)


def spell_out(key: str) -> str:
    """Another key for the same original, in lower case and ASCII; `unescape_key` returns the same.

    >>> spell_out("LR"), spell_out("lr")
    ('_x004C__x0052_', '_x006C_r')
    """
    parts = re.split(f"({_ESCAPED.pattern.replace('(', '(?:')})", key)  # Every other one is an escape.
    spelled = "".join(
        part if number % 2 else _INDISTINCT.sub(lambda match: _mark(match[0]), part)
        for number, part in enumerate(parts)
    )
    if spelled == key:
        spelled = _mark(key[0]) + key[1:]
    if unescape_key(spelled) != unescape_key(key):  # Together, old and new characters form an escape.
        spelled = "".join(map(_mark, unescape_key(key)))
    return cut_key(spelled, key)


@functools.lru_cache(20_000)  # Most runs have the same keys.
def fit_key(key: str) -> str:
    """A key that MLflow accepts: escaped, and, if it is too long, cut with a hash at the end."""
    return cut_key(escape_key(key), key)


@functools.lru_cache(20_000)  # Runs of one function have the same keys.
def all_fit(keys: tuple[str, ...]) -> bool:
    """Whether MLflow accepts all of these keys as they are."""
    return all(fit_key(key) == key for key in keys)


def cut_key(escaped: str, key: str | None = None) -> str:
    """An escaped key; if it is too long, it is cut, with a hash of the whole at the end."""
    if len(escaped) <= MAX_KEY:
        return escaped
    key = escaped if key is None else key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    # A cut may end in half an escape or a slash: the hash behind it keeps the key a valid path.
    return escaped[: MAX_KEY - 13].rstrip("/. ") + "-" + digest


def fit_path(path: str) -> str:
    """A path whose parts fit a file system, which counts bytes: long parts are cut, with a hash at the end."""
    parts = []
    for part in path.split("/"):
        stem, dot, suffix = part.rpartition(".")
        if len(part.encode()) > _MAX_FILE_NAME:
            digest = hashlib.sha256(part.encode()).hexdigest()[:12]
            part = stem.encode()[:150].decode(errors="ignore") + f"-{digest}{dot}{suffix[:20]}"
        parts.append(part)
    return "/".join(parts)


def fit_text(text: str, limit: int) -> str:
    """Text cut to a limit, with a mark at the end if something is missing."""
    if len(text) <= limit:
        return text
    mark = f"… [{len(text)} characters]"
    return text[: limit - len(mark)] + mark


def fit_value(text: str, limit: int) -> str:
    """A parameter or tag cut to a limit, with a digest of the whole: values that differ in the rest look different."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    mark = f"…, digest {digest}… [{len(text)} characters]"
    return text[: limit - len(mark)] + mark


@functools.lru_cache(20_000)
def is_key(key: str) -> bool:
    """Whether a key has only characters that MLflow allows, and reads as a path, as MLflow demands.

    >>> is_key("train/loss"), is_key("../loss"), is_key("a//b"), is_key("a=b")
    (True, False, False, False)
    """
    return _ALLOWED.fullmatch(key) is not None and not _unlike_path(key)


def _unlike_path(key: str) -> bool:
    return posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/"))


def _mark(character: str) -> str:
    return f"_x{ord(character):04X}_"
