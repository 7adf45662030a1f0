"""Data frames whose text and HTML no terminal and no page obeys: what runs record may contain control characters."""

from __future__ import annotations

from typing import Any

import pandas as pd

from trackdsl._core.escaping import printable


class _Alike(type):
    """Every frame is an instance, so that comparisons such as those of `pandas.testing` see no other class."""

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, pd.DataFrame)


class DataFrame(pd.DataFrame, metaclass=_Alike):  # type: ignore[misc, unused-ignore]
    """A data frame that shows control characters of its values as escapes; the values stay as they are.

    Its columns are plain: comparisons of frames, such as those of `pandas.testing`, compare the classes of these.
    """

    @property
    def _constructor(self) -> Any:
        return DataFrame

    def __repr__(self) -> str:
        return _inert(super().__repr__())

    def _repr_html_(self) -> str | None:
        html = super()._repr_html_()
        return None if html is None else _inert(html)

    def to_string(self, buf: Any = None, **options: Any) -> Any:
        """As in pandas. The text is inert, but not what is written to a file."""
        text = super().to_string(buf, **options)
        return _inert(text) if isinstance(text, str) else text

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return pd.DataFrame, (pd.DataFrame(self),)  # So reading a pickle needs nothing but pandas.


def _inert(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
