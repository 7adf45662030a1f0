"""What the tests of the seed documents' rows share."""

from tests.services import mariadb_database, postgresql_database, services

__all__ = ["mariadb_database", "postgresql_database", "services"]
