"""The line of a magic: a name, `key=expression`, and options."""

from __future__ import annotations

import ast
import functools
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import OptionError

_OPENING, _CLOSING = "([{", ")]}"
_QUOTES = "'\""
_QUOTED = re.compile(r""" "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' """, re.VERBOSE)

#: Where the next value begins, after a comma.
_NEXT = re.compile(r",\w+=(?!=)")


@dataclass(frozen=True)
class Arguments:
    """The parsed line of a magic.

    Attributes:
        positional: what is neither an option nor a key with an expression, in order.
        expressions: the Python expression of each key, in order.
        options: the value of each option, without its hyphens; `""` for an option that takes none.
    """

    positional: tuple[str, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    def names(self, option: str) -> tuple[str, ...]:
        """The names that an option lists, separated by commas."""
        return tuple(name for name in map(str.strip, self.options.get(option, "").split(",")) if name)

    def tags(self) -> dict[str, str]:
        """The tags of `--tags a=b,c=d`.

        Raises:
            OptionError: one of them has no value.
        """
        found = {}
        for tag in self.names("tags"):
            key, equals, value = tag.partition("=")
            if not equals or not key:
                raise OptionError(f"--tags takes name=value, several with commas between, not {tag!r}.", option="tags")
            found[key] = unquoted(value)
        return found


def parse(magic: str, line: str, options: Mapping[str, bool]) -> Arguments:
    """Parse the line of a magic.

    Args:
        magic: the magic, for messages: `%%stage`.
        line: what follows it.
        options: the names of its options, and whether each takes a value.

    Raises:
        OptionError: an option does not exist or has no value, or an expression is not Python.
    """
    return _parsed(magic, line, tuple(options.items()))


@functools.lru_cache(maxsize=128)  # Cells are executed again and again.
def _parsed(magic: str, line: str, known: tuple[tuple[str, bool], ...]) -> Arguments:
    options = dict(known)
    positional: list[str] = []
    expressions: dict[str, str] = {}
    given: dict[str, str] = {}
    parts = split(magic, line)
    for part in parts:
        if part == "-h":
            given["help"] = ""
        elif part.startswith("--"):
            name, equals, value = part[2:].partition("=")
            if name in given and options.get(name):
                raise OptionError(f"{magic} has --{name} twice: --{name} a,b takes several.", option=name)
            given[name] = _option(magic, name, value if equals else None, parts, options)
        elif (assigned := _assigned(part)) is not None:
            key, expression = assigned
            if keyword.iskeyword(key):
                raise OptionError(f"{magic}: {key!r} is a Python keyword and cannot be a variable name.", option=key)
            if key in expressions:
                raise OptionError(f"{magic} has {key!r} twice.", option=key)
            expressions[key] = _checked(magic, key, expression)
        else:
            positional.append(part)
    return Arguments(tuple(positional), expressions, given)


def _option(magic: str, name: str, value: str | None, rest: Iterator[str], options: Mapping[str, bool]) -> str:
    if name not in options:
        hint = suggestion_for(name, options)
        known = ", ".join(f"--{each}" for each in options)
        raise OptionError(f"{magic} has no option --{name}{hint.text} It has: {known}.", option=name)
    if not options[name]:
        if value is not None:
            raise OptionError(f"{magic}: --{name} takes no value.", option=name)
        return ""
    value = next(rest, "") if value is None else value
    if not value or value.startswith("--"):
        raise OptionError(f"{magic}: --{name} takes a value: --{name} a,b.", option=name)
    if value.endswith(","):
        raise OptionError(f"{magic}: after --{name}, there are no spaces around commas: --{name} a,b.", option=name)
    return unquoted(value)


def split(magic: str, line: str) -> Iterator[str]:
    """Split a line at spaces that are outside of quotes and brackets. A comment at its end is left out.

    >>> list(split("%%stage", "fit sizes=[64, 32] note='a b'  # try"))
    ['fit', 'sizes=[64, 32]', "note='a b'"]

    Raises:
        OptionError: a quote or bracket is not closed.
    """
    part = ""
    for piece in re.findall(r"\s+|\S+", line):
        if not part and piece.startswith("#"):
            return
        part += piece if part or not piece.isspace() else ""
        if part and _is_closed(part):
            yield part
            part = ""
    if part:
        raise OptionError(f"{magic}: a quote or bracket is not closed in {part!r}.", option=part)


def _is_closed(text: str) -> bool:
    rest = _QUOTED.sub("", text)
    return not set(_QUOTES) & set(rest) and sum(map(rest.count, _OPENING)) <= sum(map(rest.count, _CLOSING))


def unquoted(text: str) -> str:
    """Text without the quotes around it.

    >>> unquoted("'a b'"), unquoted("a")
    ('a b', 'a')
    """
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES else text


def _assigned(part: str) -> tuple[str, str] | None:
    """The key and the expression of `key=expression`; None if a part is nothing of the kind."""
    key, equals, expression = part.partition("=")
    if not equals or not key.isidentifier() or expression.startswith("="):
        return None
    return key, expression


def _checked(magic: str, key: str, expression: str) -> str:
    if expression.endswith(","):
        plain = f"{key}={expression.rstrip(',')}"
        raise OptionError(f"{magic}: there are no commas between values: {plain}.", option=key)
    try:
        ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        if _NEXT.search(expression):
            raise OptionError(f"{magic}: there are no commas between values, but spaces.", option=key) from None
        example = "write it without spaces around the equals sign, and expressions with spaces in brackets"
        raise OptionError(f"{magic}: {key}={expression} is not a Python expression: {example}.", option=key) from None
    return expression
