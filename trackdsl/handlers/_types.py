"""Facts about types that can be found out without a value."""

from __future__ import annotations

from typing import Any


def offers(kind: type, name: str) -> bool:
    """Whether a class defines an attribute. A value is never asked, because its property may load or compute data."""
    return any(name in vars(base) for base in kind.__mro__)


def is_array_like(kind: type) -> bool:
    """Whether values of a type are arrays with a `shape`, as those of NumPy, PyTorch, JAX or xarray."""
    return offers(kind, "shape") and (offers(kind, "__array__") or offers(kind, "__float__"))


def is_mock(kind: type) -> bool:
    """Whether a type is a mock from `unittest.mock`, which has every attribute that it is asked for."""
    return any(base.__module__ in ("unittest.mock", "mock.mock", "mock") for base in kind.__mro__)


def class_name(value: Any) -> str:
    """The full name of the value's class, without `builtins`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def full_name(kind: type) -> str:
    """The full name of a type, under which handlers are registered."""
    # Python 3.13 moved pathlib's classes into a submodule. Handlers are registered under the public name.
    module = "pathlib" if kind.__module__.startswith("pathlib") else kind.__module__
    return "object" if kind is object else f"{module}.{kind.__qualname__}"
