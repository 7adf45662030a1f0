"""Escapes text for terminals and HTML pages: names and values may contain control characters and markup."""

from __future__ import annotations

import unicodedata

#: Joiners change only how the characters next to them are drawn, for example several emojis as one.
_HARMLESS = "\u200d\u200c"


def printable(text: str) -> str:
    r"""Text with escaped control characters: newlines, escape sequences, changes of the writing direction.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(one if _is_harmless(one) else one.encode("unicode_escape").decode() for one in text)


def _is_harmless(one: str) -> bool:
    return one.isprintable() or one in _HARMLESS or unicodedata.category(one) == "Zs"


def markup(text: str) -> str:
    """Text for an HTML page, escaped.

    >>> markup("<b>")
    '&lt;b&gt;'
    """
    import html  # Terminals do without its table of all entities.

    return html.escape(printable(text), quote=True)
