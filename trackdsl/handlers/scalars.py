"""Values that are one word of text: members of enumerations, dates, decimals; and secrets, which are none."""

from __future__ import annotations

from typing import Any

from trackdsl._secrets import MASK, mask_text, remember
from trackdsl.handlers._registry import Scalar, class_name
from trackdsl.handlers.json import is_scalar
from trackdsl.handlers.pickled import Pickled

_MAX_ITEMS = 100


class _Shown(Pickled):
    def summary(self, value: Any) -> Scalar:
        return mask_text(str(value))


class _Member(Pickled):
    def summary(self, value: Any) -> Scalar:
        # A flag of no members has no name.
        return f"{type(value).__name__}({value.value})" if value.name is None else str(value.name)


class _Moment(Pickled):
    def summary(self, value: Any) -> Scalar:
        return str(value.isoformat())


class _Secret(Pickled):
    """Types that exist to hide a value: pydantic's `SecretStr` and its like. Never written anywhere."""

    def accepts(self, value: Any) -> bool:
        reveal = getattr(value, "get_secret_value", None)
        if reveal is not None:
            remember(reveal())
        return True

    def summary(self, value: Any) -> Scalar:
        self.accepts(value)
        return MASK

    def write(self, value: Any, path: Any) -> None:
        raise TypeError(f"{class_name(value)} hides a secret")


class _Group(Pickled):
    """Sets: the items in a stable order where they are plain."""

    def summary(self, value: Any) -> Scalar:
        if len(value) > _MAX_ITEMS or not all(is_scalar(item) for item in value):
            return f"{type(value).__name__} of {len(value)}"
        return "[" + ", ".join(mask_text(str(item)) for item in sorted(value, key=str)) + "]"


shown = _Shown()
member = _Member()
moment = _Moment()
secret = _Secret()
group = _Group()
