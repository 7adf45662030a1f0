"""A connection to a database server through SQLAlchemy; each transaction is repeated after a collision, and ends."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trackdsl.delivery.database._connection import Row, T, chunks, for_driver, width_of
from trackdsl.delivery.database._errors import (
    COLLISIONS,
    CONTENT,
    DENIED,
    MISSING_TABLE,
    UNWRITABLE,
    NoTable,
    code_of,
)
from trackdsl.delivery.store._errors import Denied, Refused, Unavailable
from trackdsl.errors._databases import database_advice, with_fix

#: How long one transaction may take, in seconds; drivers wait for ever.
_LONGEST_CALL = 60
#: How often to repeat a transaction that collided with another one.
_ATTEMPTS = 5
#: How long to wait at most before a transaction is repeated, in seconds: two that collided must not do so again.
_LONGEST_WAIT = 0.1
#: Rows of one statement, and their characters: MySQL takes statements of 16 MB by default.
_MOST_ROWS = 500
_MOST_CHARACTERS = 1_000_000


class ServerConnection:
    """A connection to PostgreSQL, MySQL or MariaDB.

    Args:
        uri: the tracking URI.
        longest: how long one transaction may take, in seconds, if not as long as one of delivery.

    Raises:
        Unavailable: the database cannot be reached.
    """

    booleans = (False, True)

    def __init__(self, uri: str, longest: int | None = None) -> None:
        import sqlalchemy

        self._errors = sqlalchemy.exc
        self._longest = _LONGEST_CALL if longest is None else longest
        options = _options(uri, self._longest)
        try:
            self._engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=options)
        except (ImportError, sqlalchemy.exc.ArgumentError) as error:
            raise Unavailable(str(error)) from error
        self.dialect = self._engine.dialect.name
        self._open: Any = None
        self._cursor: Any = None

    def transact(self, work: Callable[[], T]) -> T:
        """See `Connection`."""
        last: Exception | None = None
        begun = time.monotonic()
        for attempt in range(_ATTEMPTS):
            try:
                if attempt:
                    time.sleep(random.uniform(0, _LONGEST_WAIT))  # noqa: S311 - no secret
                self._connect()
                with self._limited():
                    result = work()
                    self._open.commit()
                self._cursor = None
                return result
            except self._engine.dialect.loaded_dbapi.Error as error:
                last = error
                seconds = time.monotonic() - begun
                repeats = self._may_be_repeated(error)
                if seconds >= self._longest:
                    self.close()
                    raise Unavailable(
                        f"the database has not answered for {seconds:.0f} s: {error}", late=True
                    ) from None
                if not repeats:
                    raise self._explained(error) from None
            except self._errors.SQLAlchemyError as error:
                self.close()
                raise Unavailable(str(error)) from None
            except UNWRITABLE as error:
                self._roll_back()
                raise Refused(str(error)) from None
            except BaseException:
                self._roll_back()
                raise
        assert last is not None
        raise self._explained(last) from None

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """See `Connection`. Outside `transact`, the query has a transaction of its own."""
        if self._cursor is None:
            return self.transact(lambda: self._rows(statement, values))
        return self._rows(statement, values)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """See `Connection`."""
        self._cursor.execute(self._text(statement), tuple(values))
        return int(self._cursor.rowcount)

    def insert(self, into: str, values: list[Any], tail: str = "") -> None:
        """See `Connection`."""
        width = width_of(into)
        marks = "(" + ",".join(["%s"] * width) + ")"
        for part in _statements(values, width):
            many = ",".join([marks] * (len(part) // width))
            self._cursor.execute(f"INSERT INTO {self._text(into)} VALUES {many} {self._text(tail)}", part)  # noqa: S608

    def close(self) -> None:
        """See `Connection`."""
        with contextlib.suppress(Exception):  # It may be broken.
            if self._open is not None:
                self._open.close()
        self._open = self._cursor = None
        self._engine.dispose()

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Shut the connection down if the block takes too long. MySQL's drivers have a limit of their own."""
        descriptor = getattr(self._open.driver_connection, "fileno", None)
        if self.dialect == "mysql" or descriptor is None:
            yield
            return
        with socket.socket(fileno=os.dup(descriptor())) as copy:
            timer = threading.Timer(self._longest, _shut_down, (copy,))
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()

    def _connect(self) -> None:
        if self._open is None:
            self._open = self._engine.raw_connection()
        self._cursor = self._open.cursor()

    def _rows(self, statement: str, values: Sequence[Any]) -> list[Row]:
        self._cursor.execute(self._text(statement), tuple(values))
        return [tuple(row) for row in self._cursor.fetchall()]

    def _text(self, statement: str) -> str:
        return for_driver(statement, self.dialect)

    def _roll_back(self) -> None:
        try:
            self._open.rollback()
        except Exception:  # The connection is broken: the next transaction opens another one.
            self.close()
        self._cursor = None

    def _may_be_repeated(self, error: Any) -> bool:
        """Roll back, and say whether the transaction can be repeated: all that it writes may be written twice."""
        lost = self._engine.dialect.is_disconnect(error, self._open, self._cursor)
        self.close() if lost else self._roll_back()
        return bool(lost) or code_of(error) in COLLISIONS or isinstance(error, self._dbapi("IntegrityError"))

    def _explained(self, error: Exception) -> Exception:
        text, code = str(error).strip(), code_of(error)
        advised = with_fix(text.partition("\n")[0], database_advice(code, text))
        content = (self._dbapi("DataError"), self._dbapi("IntegrityError"))
        if isinstance(error, content) or code in CONTENT:
            return Refused(text)
        self.close()
        if code in DENIED:
            return Denied(text)
        if code in MISSING_TABLE:
            return NoTable(advised)
        return Unavailable(f"the database cannot be used: {advised}")

    def _dbapi(self, name: str) -> Any:
        return getattr(self._engine.dialect.loaded_dbapi, name)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # It was closed in between.
        connection.shutdown(socket.SHUT_RDWR)


def _options(uri: str, longest: int) -> dict[str, Any]:
    """The options of a MySQL driver: the certificates that MLflow's variables name, and how long to wait."""
    if not uri.startswith("mysql"):
        return {}
    names = {"ssl_ca": "MLFLOW_MYSQL_SSL_CA", "ssl_cert": "MLFLOW_MYSQL_SSL_CERT", "ssl_key": "MLFLOW_MYSQL_SSL_KEY"}
    options: dict[str, Any] = {option: os.environ[name] for option, name in names.items() if os.environ.get(name)}
    if uri.startswith(("mysql://", "mysql+pymysql:", "mysql+mysqldb:")):
        options |= {"read_timeout": longest, "write_timeout": longest}
    return options


def _statements(values: list[Any], width: int) -> Iterator[list[Any]]:
    """The values of rows of this many columns, in parts that a database server accepts in one statement."""
    part: list[Any] = []
    characters = 0
    for row in chunks(values, width):
        length = sum(len(value) for value in row if isinstance(value, str))
        if part and (len(part) == _MOST_ROWS * width or characters + length > _MOST_CHARACTERS):
            yield part
            part, characters = [], 0
        part += row
        characters += length
    if part:
        yield part
