"""Data frames whose text and HTML no terminal and no page obeys: what runs record may contain control characters."""

from __future__ import annotations

from typing import Any

import pandas as pd

from trackdsl._core.escaping import printable


class _Alike(type):
    """Classes that other code takes for those of pandas: every frame is an instance, and the classes are equal.

    So comparisons, such as those of `pandas.testing`, see no difference.
    """

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, cls.__base__ or cls)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.__base__

    def __hash__(cls) -> int:
        return hash(cls.__base__)


class DataFrame(pd.DataFrame, metaclass=_Alike):  # type: ignore[misc, unused-ignore]
    """A data frame that shows control characters of its values as escapes; the values stay as they are.

    Its indexes are plain: pandas does not let other classes do what `pd.Index` does.
    """

    @property
    def _constructor(self) -> Any:
        return DataFrame

    @property
    def _constructor_sliced(self) -> Any:
        return Series

    def __repr__(self) -> str:
        return _inert(super().__repr__())

    def _repr_html_(self) -> str | None:
        html = super()._repr_html_()
        return None if html is None else _inert(html)

    def to_string(self, buf: Any = None, **options: Any) -> Any:
        """As in pandas. The text is inert, but not what is written to a file."""
        text = super().to_string(buf, **options)
        return _inert(text) if isinstance(text, str) else text

    def describe(self, *args: Any, **options: Any) -> Any:
        """As in pandas."""
        return DataFrame(super().describe(*args, **options))

    def value_counts(self, *args: Any, **options: Any) -> Any:
        """As in pandas."""
        return Series(super().value_counts(*args, **options))

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return pd.DataFrame, (pd.DataFrame(self),)  # So reading a pickle needs nothing but pandas.


class Series(pd.Series, metaclass=_Alike):  # type: ignore[misc, unused-ignore]
    """A column or a row of such a frame."""

    @property
    def _constructor(self) -> Any:
        return Series

    @property
    def _constructor_expanddim(self) -> Any:
        return DataFrame

    def __repr__(self) -> str:
        return _inert(super().__repr__())

    def to_string(self, buf: Any = None, **options: Any) -> Any:
        """As in pandas. The text is inert, but not what is written to a file."""
        text = super().to_string(buf, **options)
        return _inert(text) if isinstance(text, str) else text

    def describe(self, *args: Any, **options: Any) -> Any:
        """As in pandas."""
        return Series(super().describe(*args, **options))

    def value_counts(self, *args: Any, **options: Any) -> Any:
        """As in pandas."""
        return Series(super().value_counts(*args, **options))

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return pd.Series, (pd.Series(self),)


def _inert(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
