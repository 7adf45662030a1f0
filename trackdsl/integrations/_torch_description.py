"""Describes a PyTorch model and its optimizer before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

#: Keys in an optimizer's parameter groups that are not hyperparameters.
_NOT_SHOWN = frozenset(["params", "initial_lr", "param_names", "name"])


def inner_of(model: Any) -> Any:
    """The model inside the wrappers of `torch.compile`, `DataParallel` and similar functions."""
    model = getattr(model, "_orig_mod", model)
    inner = getattr(model, "module", None)
    wraps = type(model).__module__.startswith("torch.") and isinstance(inner, torch.nn.Module)
    return inner if wraps else model


def architecture_of(model: torch.nn.Module) -> str:
    """A text with the layers of a model, as PyTorch prints them, and the shapes of its parameters."""
    lines = [repr(model), "", "Parameters:"]
    for name, parameter in model.named_parameters():
        lazy = torch.nn.parameter.is_lazy(parameter)
        shape = "not known yet" if lazy else " x ".join(map(str, parameter.shape)) or "scalar"
        kept = "" if parameter.requires_grad else ", frozen"
        lines.append(f"{name}: {shape} {str(parameter.dtype).removeprefix('torch.')}{kept}")
    return "\n".join(lines) + "\n"


def described(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """The class and the hyperparameters of an optimizer; for later parameter groups only those that differ."""
    yield "class", type(optimizer).__name__
    first = optimizer.param_groups[0]
    for key, value in first.items():
        if key not in _NOT_SHOWN:
            yield key, _plain(value)
    for number, group in enumerate(optimizer.param_groups[1:], start=1):
        for key, value in group.items():
            if key not in _NOT_SHOWN and _plain(value) != _plain(first.get(key)):
                yield f"groups.{number}.{key}", _plain(value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
