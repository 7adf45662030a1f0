"""Functions that stand in for functions of MLflow's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


def stand_in(original: Function, function: Any) -> Function:
    """Let a function stand in for one of MLflow's: with its name and signature, and unseen by `warnings`.

    `warnings` and `logging` pass over frames whose file has `importlib` and `_bootstrap` in its name, see
    `_shapes_like_importlib_bootstrap`: so what MLflow warns its caller of points at the program's own line.

    Args:
        original: MLflow's function.
        function: what is called in its place.
    """
    code = function.__code__
    function.__code__ = code.replace(co_filename=f"{code.co_filename} (like importlib._bootstrap)")
    found: Function = functools.wraps(original)(function)
    return found


def replace_everywhere(functions: dict[Function, Function]) -> None:
    """Put functions in the place of others, also where a module has imported those by name."""
    by_id = {id(original): function for original, function in functions.items()}
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):  # Anything may stand in `sys.modules`.
            continue
        for name, value in list(names.items()):
            function = by_id.get(id(value))
            if function is not None:
                names[name] = function
