"""The letters of names: without accents, and decoded from escapes."""

from __future__ import annotations

import re
import unicodedata

#: Letters that no Unicode normal form decomposes.
_LETTERS = str.maketrans(
    {"ł": "l", "đ": "d", "ð": "d", "ø": "o", "ß": "ss", "æ": "ae", "œ": "oe", "\u0131": "i", "þ": "th"}
    | {"Ł": "L", "Đ": "D", "Ð": "D", "Ø": "O", "ẞ": "SS", "Æ": "AE", "Œ": "OE", "Þ": "TH"}
)
#: Marks that belong to the letter before them: in text that is decomposed into letters and accents, and in Indic
#: languages, Thai, Arabic and Hebrew. A name may contain them, but `\w` does not match them.
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0e4e\u3099\u309a"
_ACCENTS = re.compile("[\u0300-\u036f\u3099\u309a]+")


def fold(text: str) -> str:
    """A text without accents, and with full-width and half-width letters replaced.

    >>> fold("Contraseña"), fold("hasło")
    ('Contrasena', 'haslo')
    """
    return text if text.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", text.translate(_LETTERS)))


#: Letters as JSON writes them, and bytes of UTF-8 as URLs and Python write them.
_ESCAPED_LETTER = re.compile(r"\\+u([0-9A-Fa-f]{4})")
_ESCAPED_BYTES = re.compile(r"(?:(?:\\+x|%)[89A-Fa-f][0-9A-Fa-f])+")


def unescaped(name: str) -> str:
    """Decode a name whose letters are written as numbers."""
    if "\\" not in name and "%" not in name:
        return name
    name = _ESCAPED_LETTER.sub(lambda found: chr(int(found[1], 16)), name)
    return _ESCAPED_BYTES.sub(
        lambda found: bytes.fromhex(re.sub(r"\\+x|%", "", found[0])).decode("utf-8", "replace"), name
    )
