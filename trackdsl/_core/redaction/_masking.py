"""Functions that mask secrets in texts. Everything that is recorded passes through one of them."""

from __future__ import annotations

import os

from trackdsl._core.redaction import _clean
from trackdsl._core.redaction._likely import is_likely
from trackdsl._core.redaction._memory import (
    LONG,
    SHORT,
    forms_of,
    longest_first,
    remembered,
    without,
    without_remembered,
)
from trackdsl._core.redaction._names import is_secret_name, may_name_a_secret
from trackdsl._core.redaction._shapes import without_shapes
from trackdsl.errors import mask_messages_with

#: The values of these variables are folders, which appear in every traceback.
_FOLDER_VARIABLES = frozenset(["PWD", "OLDPWD"])
#: A shorter text cannot contain a secret and its name.
_SHORTEST = 6


def mask_text(text: str) -> str:
    """Mask values with the pattern or the name of a secret, and remembered secrets.

    A text without secrets takes little time.

    >>> mask_text("postgresql://me:hunter2@db/x"), mask_text("https://host/x?api_key=hunter2")
    ('postgresql://***@db/x', 'https://host/x?api_key=***')
    >>> mask_text("Login(password='hunter2'); token = tokens[i]")
    'Login(password=***); token = tokens[i]'
    """
    if len(text) < _SHORTEST or (type(text) is str and text in _clean.texts):
        return text
    seen = _clean.forgotten
    masked = _masked(text)
    if masked == text and type(text) is str:
        _clean.keep(text, _clean.texts, seen)
    return masked


def _masked(text: str) -> str:
    masked = without_remembered(_without_patterns_and_names(text))
    if masked != text and text.lstrip()[:1] in ("{", "["):
        from trackdsl._core.redaction._json import keep_valid  # Imported late, because most programs never need it.

        return keep_valid(text, masked, _masked)
    return masked


def _without_patterns_and_names(text: str) -> str:
    """Mask the values in a text that have the pattern or the name of a secret."""
    text = without_shapes(text)
    if "-" in text and (" -" in text or "--" in text or "'-" in text or '"-' in text or text[0] == "-"):
        from trackdsl._core.redaction._commands import (
            without_options,
        )  # Imported late, because most programs never need it.

        text = without_options(text)
    if _may_assign(text):
        text = _without_assigned(text)
    return text


def _may_assign(text: str) -> bool:
    """A quick check whether a text may assign a value to a name."""
    return (
        (":" in text and not _is_address(text))
        or "=" in text
        or ("," in text and ("'" in text or '"' in text))
        or "</" in text
        or "%3" in text
        or "password " in text
        or ("PASSWORD " in text and "'" in text)
        or (not text.isascii() and ("\uff1a" in text or "\uff1d" in text))
    )


def _is_address(text: str) -> bool:
    """Whether the only colon of a text belongs to a scheme, as in `s3://bucket/file`."""
    scheme, _, rest = text.partition(":")
    return rest[:2] == "//" and ":" not in rest and scheme.isalnum() and not is_secret_name(scheme)


def _without_assigned(text: str, *, everything: bool = False) -> str:
    if not may_name_a_secret(text):
        return text
    from trackdsl._core.redaction._assigned import (
        without_assigned,
    )  # Imported late, because most programs never need it.

    return without_assigned(text, everything=everything)


def mask_name(name: str) -> str:
    """Mask a name: of a run, an experiment, a metric, a parameter, a file, a column.

    Remembered secrets are not masked: names rarely contain secrets, but a name such as that of the database `orders-2x`
    may be equal to one.

    >>> mask_name("https://me:hunter2@host/loss"), mask_name("orders-2x")
    ('https://***@host/loss', 'orders-2x')
    """
    if type(name) is str and name in _clean.names:
        return name
    seen = _clean.forgotten
    masked = _without_patterns_and_names(name) if len(name) >= _SHORTEST else name
    if type(name) is str:
        _clean.keep(masked, _clean.names, seen)
    return masked


def mask_prose(text: str) -> str:
    """Mask secrets in messages: as `mask_text`, and also those of the environment, escaped forms, and possible ones.

    >>> mask_prose("login(password=hunter)")
    'login(password=***)'
    """
    text = _without_assigned(mask_text(text), everything=True)
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= LONG and is_secret_name(name) and name not in _FOLDER_VARIABLES and is_likely(value)
    }
    found |= {form for value in found for form in forms_of(value) if form in text}
    return without(text, longest_first(found | remembered.secrets_in(text, SHORT) | remembered.forms_in(text)))


mask_messages_with(mask_prose)
