"""Database servers: a lock for the creation of tables, which MLflow's client lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

#: A number that nothing else locks: the first bytes of the SHA-256 of "trackdsl".
_LOCK = 0x7F02967C
#: How long to wait for another process that creates the tables, in seconds.
_PATIENCE = 60
_TAKE = {
    "postgresql": (f"SET lock_timeout = '{_PATIENCE}s'", f"SELECT pg_advisory_lock({_LOCK})"),
    "mysql": (f"SELECT GET_LOCK('trackdsl.{_LOCK}', {_PATIENCE})",),
}


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold a lock of the database while its tables are created: if two processes create them at once, both fail.

    The lock ends with its connection, even if this process is killed.
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
