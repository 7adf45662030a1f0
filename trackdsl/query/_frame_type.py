"""The static type of the data frames that queries return.

pandas has no type hints of its own. Without `pandas-stubs`, mypy takes its `DataFrame` for `Any`, and so the result of
a query. This subclass has a name in any case, and is a `DataFrame` to a checker that knows pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    class Frame(DataFrame):  # type: ignore[misc, unused-ignore]
        """The result of `runs` and `history`: at run time a `pandas.DataFrame` with inert text."""
