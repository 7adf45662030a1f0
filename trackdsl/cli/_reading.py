"""How commands read a store: errors are printed as one line, and each request ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import click

from trackdsl._server.bounded_requests import bound_requests_of_process
from trackdsl.delivery.environment import prepare_environment
from trackdsl.errors import QueryError, TrackingServerError
from trackdsl.query import _shown


@contextlib.contextmanager
def errors_printed() -> Iterator[None]:
    """Print errors as one line without control characters: they quote names and values of runs."""
    prepare_environment()
    bound_requests_of_process()
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # Some versions of MLflow log that they open the database.
    try:
        yield
    except (QueryError, TrackingServerError) as error:
        raise click.ClickException(_shown.printable(str(error))) from None
    finally:
        logging.disable(before)
