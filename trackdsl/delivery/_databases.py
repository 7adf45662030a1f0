"""Database servers: what MLflow's client does not see to where several machines meet on a fresh database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

#: Any number that nobody else locks: the first bytes of the SHA-256 of "trackdsl".
_LOCK = 0x7F02967C
#: How long to wait for somebody who makes the tables, in seconds.
_PATIENCE = 60
_TAKE = {
    "postgresql": (f"SET lock_timeout = '{_PATIENCE}s'", f"SELECT pg_advisory_lock({_LOCK})"),
    "mysql": (f"SELECT GET_LOCK('trackdsl.{_LOCK}', {_PATIENCE})",),
}


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold a lock of the database while it gets its tables: two processes that make them at once both fail.

    The lock ends with its connection, however this process ends.
    """
    statements = _TAKE.get(uri.partition(":")[0].partition("+")[0])
    if statements is None:
        yield
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield
