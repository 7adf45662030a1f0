"""The command line of a program as one text, without its secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from trackdsl._core.redaction._commands import secrets_among
from trackdsl._core.redaction._masking import mask_text
from trackdsl._core.redaction._memory import remember
from trackdsl._core.redaction._names import is_number, is_secret_name
from trackdsl._core.redaction._shapes import MASK

#: An option with its value, `--lr=0.1`, or an override of Hydra's, `+db.port=5432`.
_ASSIGNMENT = re.compile(r"(?P<name>(?P<prefix>[-+~]{0,2})[^\W\d][^\s='\"]{0,200})=(?P<value>.+)", re.DOTALL)
_NONE: Mapping[str, int] = {}


def mask_command_line(words: Sequence[str], hidden: Mapping[str, int] = _NONE) -> str:
    """The words of a command line as a shell takes them, with secrets masked; these are masked in later texts too.

    Args:
        words: the program's arguments.
        hidden: options whose values are secrets, whatever their names are, and how many words each of them takes.

    Example:
        >>> mask_command_line(["--api-key", "hunter2", "db.password=one,two", "lr=1", "--pin=12"], {"--pin": 1})
        '--api-key *** db.password=*** lr=1 --pin=***'
    """
    masked = secrets_among(words)
    for index, word in enumerate(words):
        masked.update(dict.fromkeys(range(index + 1, min(index + 1 + hidden.get(word, 0), len(words))), MASK))
    for index, shown in masked.items():
        if shown == MASK:
            remember(words[index])
    parts = [masked[index] if index in masked else _without_value(word, hidden) for index, word in enumerate(words)]
    return mask_text(" ".join(map(_quoted, parts)))


def _without_value(word: str, hidden: Mapping[str, int]) -> str:
    """A word, with the value of a secret option masked that is in the same word."""
    assignment = _ASSIGNMENT.fullmatch(word)
    if assignment is not None:
        name, value = assignment["name"], assignment["value"]
        bare = name.removeprefix(assignment["prefix"])
        if name in hidden or (is_secret_name(bare) and not is_number(bare, value)):
            remember(value)
            return f"{name}={MASK}"
        return f"{name}={_without_value(value, {})}"
    if word.startswith("-") and not word.startswith("--"):  # `-pVALUE`, or `-vpVALUE` with another option before it.
        ends = [word.index(option[1]) + 1 for option in hidden if len(option) == 2 and option[1] in word[1:]]
        if ends and min(ends) < len(word):
            remember(word[min(ends) :])
            return word[: min(ends)] + MASK
    return word


def _quoted(word: str) -> str:
    """A word as a shell needs it. The mask itself is not quoted."""
    return word if shlex.quote(word.replace(MASK, "x")) == word.replace(MASK, "x") else shlex.quote(word)
