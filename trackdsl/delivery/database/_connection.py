"""What the sink needs of a connection to MLflow's database: one short transaction after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

Row = tuple[Any, ...]
T = TypeVar("T")

#: As many values as every database accepts in one statement (SQLite before 3.32: 999).
MOST_VALUES = 900


class Connection(Protocol):
    """One connection, and within `transact`, one transaction.

    Attributes:
        dialect: `sqlite`, `postgresql` or `mysql`.
        booleans: false and true, as the driver takes them fastest.
    """

    dialect: str
    booleans: tuple[Any, Any]

    def transact(self, work: Callable[[], T]) -> T:
        """Run `work` in one transaction, and repeat it after a collision with another writer.

        Raises:
            Unavailable: the database cannot be reached or is busy.
            Refused: it does not accept the content.
        """

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query; `?` stands for a value."""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Execute a statement; returns how many rows it changed."""

    def insert(self, into: str, values: list[Any], tail: str = "") -> None:
        """Insert many rows.

        Args:
            into: the table and its columns, such as `tags (key, value)`.
            values: of all rows, one row after the other: a list for each of them would take twice as long.
            tail: what follows the values.
        """

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""


def width_of(into: str) -> int:
    """The number of columns that an `INSERT` names, as in `tags (key, value)`."""
    return into.count(",") + 1


def chunks(values: Sequence[T], size: int = MOST_VALUES) -> Iterator[Sequence[T]]:
    """The values in parts of at most `size`."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def marks(values: Sequence[Any]) -> str:
    """As many question marks as values, for `IN`."""
    return ",".join("?" * len(values))


def for_driver(statement: str, dialect: str) -> str:
    """A statement as the driver of a database takes it.

    >>> for_driver('SELECT "key" FROM tags WHERE value = ?', "mysql")
    'SELECT `key` FROM tags WHERE value = %s'
    """
    if dialect == "sqlite":
        return statement
    statement = statement.replace("?", "%s")
    return statement.replace('"', "`") if dialect == "mysql" else statement
