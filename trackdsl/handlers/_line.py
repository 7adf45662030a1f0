"""Values as one line of text: JSON as far as possible, so that values that differ have different lines.

A value that JSON does not know is shown by the summary of its handler. A value that is too long is shown by its length
and a digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trackdsl._core.redaction import MASK, is_secret, mask_entry, mask_items, mask_name, mask_text, remember
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import JSON_TEXT, SCALARS, name_of_key, quoted
from trackdsl.handlers._types import class_name
from trackdsl.handlers._value_digest import digest_of, is_sequence

#: MLflow's limit for the value of a parameter, see `MAX_PARAM_VAL_LENGTH` in mlflow/utils/validation.py.
MAX_LINE = 6000
#: A list of more items is shown by its length and digest.
MAX_ITEMS = 100
_MAX_DEPTH = 20


def flat_line(items: Sequence[Any]) -> str:
    """A list of plain values as JSON.

    >>> flat_line([1, "1", None]), flat_line([]), flat_line([""])
    ('[1, "1", null]', '[]', '[""]')
    """
    return f"[{', '.join([JSON_TEXT[type(item)](item) for item in items])}]"


def line_of(value: Any, most: int = MAX_LINE) -> tuple[str, bool]:
    """A value as one line of at most `most` characters, and whether the line shows the whole value.

    >>> line_of(["a, b", ("c", 0.5)])
    ('["a, b", ["c", 0.5]]', True)
    """
    line = _Line(most)
    line.add(value, ())
    text = "".join(line.parts)
    if line.left >= 0:
        return text, line.complete
    size = f" [{type(value).__name__} of {len(value)}]" if isinstance(value, (list, tuple, dict)) else ""
    end = f"…, digest {digest_of(value)}…{size}"
    return text[: most - len(end)] + end, False


def long_list(value: Any) -> str:
    """The text for a list that is too long for one line.

    >>> long_list(list(range(1000))) == long_list([*range(999), 0])
    False
    """
    return f"{type(value).__name__} of {len(value)}, digest {digest_of(value)}"


class _Line:
    """Writes one line until it is full.

    Attributes:
        parts: the texts written so far.
        left: how many more characters fit; less than 0 if something did not fit.
        complete: whether no value is shown only by its length.
    """

    __slots__ = ("complete", "left", "parts")

    def __init__(self, most: int) -> None:
        self.parts: list[str] = []
        self.left = most
        self.complete = True

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.left -= len(text)

    def add(self, value: Any, around: tuple[int, ...]) -> None:
        """Write a value; `around` has the ids of the values that contain it."""
        kind = type(value)
        if kind is str:  # The text is masked before it is cut, because half a secret is not recognized.
            self.put(quoted(mask_text(value if len(value) <= MAX_LINE else value[: 4 * MAX_LINE])))
        elif kind in SCALARS:
            self.put(JSON_TEXT[kind](value))
        elif len(around) > _MAX_DEPTH or id(value) in around:
            self.put(
                f"{kind.__name__} of {len(value)}" if isinstance(value, (list, tuple, dict)) else class_name(value)
            )
        else:
            self._add_other(value, (*around, id(value)))

    def _add_other(self, value: Any, inside: tuple[int, ...]) -> None:
        try:
            handler = handler_for(type(value))
            if is_sequence(handler):
                self._add_items(value, inside)
                return
            parts = handler.children(value)
            summary = handler.summary(value) if parts is None else None
        except Exception:  # A property or mapping of the user raised an error.
            self.put(class_name(value))
            return
        if parts is not None:
            self._add_parts(value, parts, inside)
        elif not isinstance(summary, str):
            self.put(JSON_TEXT.get(type(summary), class_name)(summary))
        else:
            self.put(quoted(summary) if handler.is_text or summary == MASK else str.__str__(summary))

    def _add_items(self, value: Any, inside: tuple[int, ...]) -> None:
        if len(value) > MAX_ITEMS:
            self.put(long_list(value))
            self.complete = False
            return
        opening = "["
        for item in mask_items(value):
            self.put(opening)
            opening = ", "
            self.add(item, inside)
            if self.left < 0:
                return
        self.put("]" if len(value) else "[]")

    def _add_parts(self, value: Any, parts: Mapping[Any, Any], inside: tuple[int, ...]) -> None:
        opening = "{" if isinstance(value, Mapping) else f"{type(value).__name__} {{"
        for key, part in mask_entry(parts).items():
            name = mask_name(name_of_key(key))
            self.put(f"{opening}{quoted(name) if isinstance(key, str) else name}: ")
            opening = ", "
            self.add(remember(part) if is_secret(name, part) else part, inside)
            if self.left < 0:
                return
        self.put("}" if parts else f"{opening}}}")
