"""Replacing functions of MLflow."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


def replacement(original: Function, function: Any) -> Function:
    """Give a function the name and signature of the MLflow function that it replaces, and hide it from `warnings`.

    `warnings` and `logging` skip frames whose file has `importlib` and `_bootstrap` in its name, as in
    `_decorate.wrappers_importlib_bootstrap`. So a warning of MLflow for its caller points at a line of the program.

    Args:
        original: MLflow's function.
        function: its replacement.
    """
    code = function.__code__
    function.__code__ = code.replace(co_filename=f"{code.co_filename} (like importlib._bootstrap)")
    found: Function = functools.wraps(original)(function)
    return found


def replace_everywhere(functions: dict[Function, Function]) -> None:
    """Replace functions everywhere, also in modules that have imported them by name."""
    by_id = {id(original): function for original, function in functions.items()}
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):  # `sys.modules` may contain any object.
            continue
        for name, value in list(names.items()):
            function = by_id.get(id(value))
            if function is not None:
                names[name] = function
