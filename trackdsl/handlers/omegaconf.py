"""OmegaConf and Hydra configurations; a value that cannot be resolved is told as it stands in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trackdsl.handlers._registry import Scalar
from trackdsl.handlers.json import sequence
from trackdsl.handlers.pickled import Pickled


class _Config(Pickled):
    def children(self, value: Any) -> Mapping[Any, Any] | None:
        from omegaconf import ListConfig

        if value._is_none() or value._is_missing():
            return None
        if isinstance(value, ListConfig):
            return sequence.children([_node(value, index) for index in range(len(value))])
        return {str(key): _node(value, key) for key in value}

    def summary(self, value: Any) -> Scalar:
        from omegaconf import ListConfig

        if value._is_none() or value._is_missing():
            return None if value._is_none() else "???"
        if isinstance(value, ListConfig):
            return sequence.summary([_node(value, index) for index in range(len(value))])
        return f"{type(value).__name__} of {len(value)}"


def _node(config: Any, key: Any) -> Any:
    try:
        return config[key]
    except Exception:  # `???`, or an interpolation that leads nowhere.
        return str(config._get_node(key)._value())


handler = _Config()
