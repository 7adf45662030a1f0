"""Name templates such as `fit-{model}`: checked at decoration, filled in at the call."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from trackdsl._core.redaction import MASK, is_secret
from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import TemplateError
from trackdsl.handlers._plain import summary_of

_MAX_LENGTH = 250


class _Filler(string.Formatter):
    """Formats plain values as they are, other objects by their class name, and secrets by their mask."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, used = super().get_field(field_name, args, kwargs)
        hidden = any(is_secret(part, value) for part in re.split(r"[.\[\]]+", field_name))
        return (MASK if hidden else value), used

    def format_field(self, value: Any, format_spec: str) -> str:
        plain = summary_of(value)
        return str(super().format_field(plain, "" if plain is None else format_spec))


_filler = _Filler()


def placeholders(template: str) -> list[str]:
    """The names of the placeholders in a template.

    Raises:
        TemplateError: the braces do not match, or a placeholder has no name.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise TemplateError(
            f"the name {template!r} is not a valid template: {error}. Write {{{{ and }}}} for braces.",
            template=template,
            placeholder="",
        ) from None
    return [field.partition(".")[0].partition("[")[0] for field in fields]


def check(template: str, names: Iterable[str], function: str) -> bool:
    """Check a template against the parameters of a function.

    Returns:
        whether it has placeholders at all.

    Raises:
        TemplateError: a placeholder is not a parameter.
    """
    known = list(names)
    wanted = placeholders(template)
    for name in wanted:
        if name not in known:
            hint = suggestion_for(name, known)
            raise TemplateError(
                f"the name {template!r} uses {{{name}}}, which is not a parameter of {function}(){hint.text} "
                f"It has: {', '.join(known) or 'none'}.",
                template=template,
                placeholder=name,
            )
    return bool(wanted) or "{" in template or "}" in template


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template. If a value cannot be formatted, the result is the template itself."""
    try:
        return _filler.vformat(template, (), values)[:_MAX_LENGTH]
    except Exception:  # A value of the user may raise here, and must not stop the call.
        return template
