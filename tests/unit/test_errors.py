"""Errors: what `trackdsl.errors` does with exceptions that it catches."""

from __future__ import annotations

import pickle
import signal
from typing import Any, NoReturn

import pytest

import trackdsl
from trackdsl import errors
from trackdsl.errors import format_error, reraise_from_signal


class TooLate(Exception):
    """The exception that a program's own time limit raises."""


def test_an_exception_of_a_signal_handler_is_raised_again() -> None:
    """An exception that a signal handler raised inside trackdsl reaches the program; other exceptions are formatted."""

    def out_of_time(*_: object) -> NoReturn:
        raise TooLate("10 s")

    before = signal.signal(signal.SIGUSR1, out_of_time)
    try:
        with pytest.raises(TooLate) as from_signal:
            signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(TooLate):
            reraise_from_signal(from_signal.value)
        assert format_error(from_signal.value) == "TooLate: 10 s"
        try:
            raise TooLate("by itself")
        except TooLate as error:
            reraise_from_signal(error)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_exception_whose_text_raises() -> None:
    """An exception whose text cannot be formatted is shown by its type."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert format_error(Broken()) == "Broken"


@pytest.mark.parametrize("name", [name for name in trackdsl.__all__ if name in errors.__all__])
def test_errors_are_pickled_by_their_public_name(name: str) -> None:
    """Every public exception belongs to `trackdsl.errors`, and comes back from a pickle with its fields."""
    kind: Any = getattr(trackdsl, name)
    assert kind is getattr(errors, name)
    error = kind.__new__(kind, "text")
    error.args, error.field = ("text",), 3
    data = pickle.dumps(error)
    assert b"trackdsl.errors" in data
    assert b"_exceptions" not in data
    back = pickle.loads(data)
    assert (type(back), str(back), back.field) == (kind, "text", 3)
