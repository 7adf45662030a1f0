"""The tag `trackdsl.call`: which call a run records, as one JSON object.

Its fields are listed in `FIELDS` and `LANE_FIELDS`. Older versions of trackdsl wrote a tag of its own for each of
`FIELDS`. Both forms are read here, so no other module needs to know which version recorded a run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from trackdsl.store_format.limits import fit_text

CALL_TAG = "trackdsl.call"
#: The field that names the spool whose delivery process made the run; see `files_tag`.
SPOOL = "spool"
#: The name in a run's tags, in older versions, of each field of the JSON object.
FIELDS = {
    "function": "trackdsl.function",
    "file": "trackdsl.source.file",
    "source_hash": "trackdsl.source.hash",
    "index": "trackdsl.index",
    "decorator": "trackdsl.word",
    "host": "trackdsl.host",
    "pid": "trackdsl.pid",
    "version": "trackdsl.version",
    "git_dirty": "trackdsl.git.dirty",
}
#: The fields about the thread and the task; a run that began in the main thread, in no task, has none of them.
LANE_FIELDS = ("thread", "thread_id", "task", "task_id")
#: The tag in events with the result of git; delivery turns it into the field `git_dirty`.
GIT_DIRTY_TAG = FIELDS["git_dirty"]
#: In characters. MLflow accepts 8000; versions before 2.17, and databases that they created, accept 5000.
MAX_CALL = 5000
_NUMBERS = ("index", "pid", "thread_id", "task_id")
_ALL = (*FIELDS, *LANE_FIELDS)
#: The type of each field's value.
_TYPES: dict[str, type] = {**dict.fromkeys((*_ALL, SPOOL), str), **dict.fromkeys(_NUMBERS, int), "git_dirty": bool}
_FIELD_OF = {tag: field for field, tag in FIELDS.items()} | {f"{CALL_TAG}.{field}": field for field in _ALL}


def call_text(fields: Mapping[str, Any]) -> str:
    """The value of the tag; fields without a value are left out.

    The text is ASCII, because not every database takes other characters.

    >>> call_text({"function": "shop.fit", "index": 0, "host": ""})
    '{"function":"shop.fit","index":0}'
    """
    filled = {field: value for field, value in fields.items() if value is not None and value != ""}
    try:
        text = msgspec.json.encode(filled)
    except UnicodeEncodeError:  # A lone surrogate.
        return json.dumps(filled, separators=(",", ":"))
    return text.decode("ascii") if text.isascii() else json.dumps(filled, separators=(",", ":"))


@functools.lru_cache(1000)
def call_texts(fields: tuple[tuple[str, Any], ...]) -> tuple[str, str]:
    """The value of the tag for calls that differ only in their `index`: what is before and behind that number.

    >>> call_texts((("function", "shop.fit"), ("index", 0), ("decorator", "stage")))
    ('{"function":"shop.fit","index":', ',"decorator":"stage"}')
    """
    # Inside a text of JSON, the quotation marks would be escaped.
    before, name, after = call_text({**dict(fields), "index": 0}).partition('"index":')
    return before + name, after[1:]


@functools.lru_cache(1000)
def lane_text(lane: tuple[str, int, str, int]) -> str:
    """The part of the tag's value about a thread and a task, to follow another field.

    >>> lane_text(("", 0, "Task-7", 140))
    ',"task":"Task-7","task_id":140'
    """
    text = call_text({field: value or None for field, value in zip(LANE_FIELDS, lane, strict=True)})
    return f",{text[1:-1]}" if len(text) > 2 else ""


def fit_call(text: str, limit: int = MAX_CALL) -> str:
    """The value of the tag with its long texts cut, so that it is within the limit and still JSON."""
    if len(text) <= limit:
        return text
    fields = json.loads(text)
    longest = limit
    while len(text) > limit:
        longest //= 2
        text = json.dumps(
            {field: fit_text(value, longest) if isinstance(value, str) else value for field, value in fields.items()}
        )
    return text


def call_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the call that a run records, whichever version wrote its tags; empty where there are none.

    Anybody can set tags. So a field is left out if its value has another type than trackdsl writes; fields of newer
    versions, which nothing here reads, are kept.

    >>> call_of({"trackdsl.function": "shop.fit", "trackdsl.index": "2"})
    {'function': 'shop.fit', 'index': 2}
    """
    single = {field: _value(field, tags[tag]) for field, tag in FIELDS.items() if tag in tags}
    return _well_typed(single) | _well_typed(_decoded(tags.get(CALL_TAG)))


def call_value(tags: Mapping[str, str], name: str) -> str | None:
    """The text of one field, by the name of the tag that older versions wrote, or as `trackdsl.call.<field>`.

    >>> call_value({"trackdsl.call": '{"index": 2, "git_dirty": true}'}, "trackdsl.git.dirty")
    'true'
    """
    field = _FIELD_OF.get(name)
    value = None if field is None else call_of(tags).get(field)
    if value is None:
        return None
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def is_call_value(name: str) -> bool:
    """Whether a name is one that `call_value` knows."""
    return name in _FIELD_OF


def with_git_dirty(tags: Mapping[str, str], held: Mapping[str, str]) -> dict[str, str]:
    """Move `trackdsl.git.dirty` into the tag `trackdsl.call`.

    A run of an older version has no such tag. It keeps `trackdsl.git.dirty`.

    Args:
        tags: the tags that are about to be written.
        held: the tags that the run has at the store.
    """
    if GIT_DIRTY_TAG not in tags or CALL_TAG not in {**held, **tags}:
        return dict(tags)
    written = {key: text for key, text in tags.items() if key != GIT_DIRTY_TAG}
    call = _decoded(tags.get(CALL_TAG, held.get(CALL_TAG)))
    text = call_text(call | {"git_dirty": tags[GIT_DIRTY_TAG] == "true"})
    # The whole text of a call that is about to be written is still kept in a file; one that was cut stays cut.
    written[CALL_TAG] = text if CALL_TAG in tags else fit_call(text)
    return written


def _decoded(text: str | None) -> dict[str, Any]:
    """The fields in a tag; empty where it was damaged or cut: nothing depends on them."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _well_typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    # Not `isinstance`, for which `True` is an int.
    return {field: value for field, value in fields.items() if type(value) is _TYPES.get(field, type(value))}


def _value(field: str, text: str) -> Any:
    if field in _NUMBERS and text.isdecimal() and len(text) < 20:
        return int(text)
    return text == "true" if field == "git_dirty" else text
