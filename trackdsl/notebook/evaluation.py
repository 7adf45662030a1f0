"""The values of a magic's expressions, and its name with placeholders filled in."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import CodeType
from typing import Any

from trackdsl._decorate import name_templates
from trackdsl.errors import OptionError
from trackdsl.notebook.arguments import Arguments, unquoted


def evaluate(magic: str, arguments: Arguments, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the expressions of a magic. Each may use the names before it."""
    values: dict[str, Any] = {}
    for key, expression in arguments.expressions.items():
        code = _compiled(expression, f"<{magic} {key}>")
        values[key] = eval(code, {**namespace, **values})  # noqa: S307 - code that the user wrote into the cell
    return values


@functools.lru_cache(maxsize=128)  # Cells are executed again and again.
def _compiled(expression: str, name: str) -> CodeType:
    return compile(expression, name, "eval")


def given_name(magic: str, arguments: Arguments) -> str:
    """The name in the line of a magic, which is `%%stage`, `%experiment` or `%%experiment`.

    Raises:
        OptionError: it is missing, or there is more than one positional argument.
    """
    names = arguments.positional
    if len(names) > 1:
        raise OptionError(
            f"{magic} takes one name, not {' '.join(map(repr, names))}. Values are key=expression, without spaces "
            "around the equals sign.",
            option=names[1],
        )
    if names and names[0].endswith(","):
        raise OptionError(f"{magic}: there is no comma after the name: {names[0].rstrip(',')}.", option="name")
    if not names and magic == "%%stage":
        raise OptionError("%%stage takes a name: `%%stage fit lr=0.1`.", option="name")
    return unquoted(names[0]) if names else ""


def filled(magic: str, template: str, values: Mapping[str, Any], namespace: Mapping[str, Any]) -> str:
    """A name with its placeholders filled in, from the values of the magic and the variables of the notebook.

    Raises:
        OptionError: a placeholder is neither.
    """
    wanted = name_templates.placeholders(template)
    for name in wanted:
        if name not in values and name not in namespace:
            raise OptionError(
                f"the name {template!r} of {magic} uses {{{name}}}, which is not a variable: add {name}=….", option=name
            )
    known = {name: values[name] if name in values else namespace[name] for name in wanted}
    return name_templates.fill(template, known) if "{" in template or "}" in template else template
