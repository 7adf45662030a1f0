"""Which values with the name of a secret are likely to be secrets, and which are common words in other texts.

`password="postgres"` is masked as the value of `password`. In other texts, `postgres` is the name of a program and
is not masked.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction._common import PAIRS, WORDS

#: A text without digits that is at least this long is not a single word.
_LONGEST_WORD = 20
_SHORTEST = 4
#: A number with this many digits next to a word is treated as a code, unless it is a date.
_SHORTEST_CODE = 5
#: Several words with spaces are a passphrase if they have at least this many characters.
_SHORTEST_PHRASE = 12
#: With fewer letters, a word cannot be distinguished from random letters.
_SHORTEST_MADE_UP = 8
#: A text with a digit and this many characters and classes (lower and upper case, digits, signs) does not occur by
#: chance.
_UNMISTAKABLE = ((12, 3), (24, 2))
#: Words in invented passwords: `super-secret`, `MyPassw0rd`.
_PASSWORD_WORD = late_pattern(r"s[e3]cr[e3]t|pass?w[o0]?r?d", re.IGNORECASE)
_SHORTEST_WITH_PASSWORD_WORD = 9
#: The brackets around a token of a language model, such as `<unk>`, or around a placeholder.
_AROUND = " \t\r\n<>[]{}|"
#: The parts of a name in code, such as `RandomForestClassifier`, have at least this many letters on average.
_LONG_PARTS = 4

_UNIT = r"(?:%|[kmgtp]i?b?|[num]?s|ms|min|h|d|px|[kmg]?hz)?"
_NUMBER = late_pattern(
    rf"[+\-]?(?:\d[\d_,.]*(?:e[+\-]?\d+)?|\.\d+|\d+(?:x\d+)+[a-z]?|0[xob][\da-f_]{{1,16}}|inf(?:inity)?|nan){_UNIT}",
    re.IGNORECASE,
)
_DATE = late_pattern(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T_]\d{1,2}[:.\-h]?\d{2}(?:[:.\-]?\d{2}(?:\.\d+)?)?Z?(?:[+\-]\d{2}:?\d{2})?)?"
    r"|\d{8}[T_\-]\d{4,6}Z?|\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
)
_DAY = late_pattern(r"(?:19|20)\d{6}")
#: A change of case after a letter separates words: `MyModel` and `gpt4oMini` are two words, `Aa0aBb` is none.
_BETWEEN_PARTS = late_pattern(
    r"[\s\-_./\\:,]+|(?:(?<=[a-z])(?<!\d[a-z])|(?<=[a-z]{3}\d[a-z]))(?=[A-Z][a-z])"
    r"|(?<=[A-Z])(?=[A-Z][a-z]{3})"
)
#: A common word with a number, such as `resnet50`, `gpt4o` or `test_123`.
_WITH_NUMBER = late_pattern(r"([a-z]+)\d{1,4}[a-z]?", re.IGNORECASE)


@lru_cache(maxsize=1024)
def is_likely(text: str) -> bool:
    """Whether a value with the name of a secret is also masked in other texts.

    A word, a number, a date or a common value is not, because it has another meaning there.

    >>> [is_likely(text) for text in ("postgres", "disabled", "2024-01-31", "resnet50", "hunter2", "correct horse")]
    [False, False, False, False, True, True]
    """
    text = text.strip(_AROUND)
    if len(text) < _SHORTEST or _NUMBER().fullmatch(text) or _DATE().fullmatch(text):
        return False
    parts = [part for part in _BETWEEN_PARTS().split(text) if part]
    if len(text) >= _SHORTEST_WITH_PASSWORD_WORD and "/" not in text and _PASSWORD_WORD().search(text):
        return True
    if all(map(_is_common, parts)):
        return False
    if len(text) >= _LONGEST_WORD:
        return not ((text[0] in "/~." or _is_name_in_code(text, parts)) and all(map(_is_plain, parts)))
    phrase = len(text) >= _SHORTEST_PHRASE and any(map(str.isspace, text))
    return phrase or not all(map(_is_plain, parts))


def is_unmistakable(text: str) -> bool:
    """Whether a secret is so long and mixed that it is masked even inside other words."""
    classes = sum(
        any(map(is_one, text)) for is_one in (str.islower, str.isupper, str.isdigit, lambda sign: not sign.isalnum())
    )
    long = any(len(text) >= length and classes >= least for length, least in _UNMISTAKABLE)
    return long and any(map(str.isdigit, text))


def _is_name_in_code(text: str, parts: list[str]) -> bool:
    return text.isidentifier() and len(parts) > 1 and sum(map(len, parts)) >= _LONG_PARTS * len(parts)


def _is_common(part: str) -> bool:
    if len(part) <= 2 or part.casefold() in WORDS:
        return True
    if _NUMBER().fullmatch(part):
        return len(part) < _SHORTEST_CODE or _DAY().fullmatch(part) is not None
    found = _WITH_NUMBER().fullmatch(part)
    return found is not None and (len(found[1]) <= 2 or found[1].casefold() in WORDS)


def _is_plain(part: str) -> bool:
    """Whether a part of a value is a word, a number or a common value."""
    return _is_common(part) or _is_word(part)


def _is_word(part: str) -> bool:
    if not part.isalpha() or part not in (part.lower(), part.upper(), part.capitalize()):
        return False
    if len(part) < _SHORTEST_MADE_UP or not part.isascii():
        return True
    pairs = ["".join(pair) for pair in pairwise(part.lower())]
    return sum(pair in PAIRS for pair in pairs) >= 0.6 * len(pairs)
